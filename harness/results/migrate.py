"""`harness migrate`: copy a results database of an older version into one of the present version.

Version 1 had a chained ledger and no seals. Every row is copied unchanged and sealed. Outcomes are marked as sealed
late, because changes before the migration cannot be detected. Version 2 lacked the tables of rulings, corrections and
observations, version 3 the last two of them and version 4 the last; rows of these are copied with their seals. The
older file is kept under another name.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from harness.errors import StoreError
from harness.results import tables
from harness.results.digests import LATE, closing_seal, first_link, row_seal

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST, TO = 1, tables.SCHEMA
_AT_ONCE = 1000


def needed(path: Path) -> bool:
    """Whether a SQLite file is of an older version; False if it is of the present one.

    Raises:
        StoreError: there is no such file, it is not a results database, or a newer harness wrote it.
    """
    try:
        with _opened(path) as old:
            return _version(old, path) != TO
    except sqlite3.Error as problem:
        raise StoreError(f"{path} cannot be read as a results database: {problem}; name another with --store") from None


def migrate(path: Path) -> Path:
    """Replace a SQLite file of an older version by one of the present version, and return where the older one is kept.

    The complete new file replaces the old one in one step. If the process is killed before this step, nothing has
    changed.

    Raises:
        StoreError: as for `needed`; or the file is of the present version or in use, or the place for the older file is
            taken.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with _opened(path) as old:
            version = _version(old, path)
            kept = path.with_name(f"{path.name}.v{version}")
            if version == TO:
                raise StoreError(f"{path} is of version {TO} already; nothing to do")
            if kept.exists() and not kept.samefile(path):  # the same: killed at the last step
                raise StoreError(f"{kept} exists already; move it away, because the older file will get this name")
            _alone(old, path)
            _remove(new)
            if version == _FIRST:
                old.execute("BEGIN EXCLUSIVE")
                _copy(old, new)
            else:
                _extend(old, new)
                old.execute("BEGIN EXCLUSIVE")
            with suppress(FileExistsError):
                os.link(path, kept)
            os.replace(new, path)  # noqa: PTH105 - one step, as os.link
    except (sqlite3.Error, OSError, sa.exc.SQLAlchemyError) as problem:
        _remove(new)
        raise StoreError(f"{path} could not be migrated and is unchanged: {problem}") from problem
    return kept


def _extend(old: sqlite3.Connection, new: Path) -> None:
    """Copy a file of version 2, 3 or 4 as it is, and make the tables that it lacks."""
    with closing(sqlite3.connect(new)) as copied:
        old.backup(copied)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(new)))
    try:
        with engine.begin() as connection:
            tables.bring_up_to_date(connection)
    finally:
        engine.dispose()


def _opened(path: Path) -> closing[sqlite3.Connection]:
    if not path.is_file():
        raise StoreError(f"{path}: no such SQLite file; name it with --store")
    return closing(sqlite3.connect(path, isolation_level=None, timeout=5))


def _version(old: sqlite3.Connection, path: Path) -> int:
    """The version of a file, which is an older or the present one."""
    names = {name for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    row = old.execute("SELECT version FROM schema").fetchone() if {"schema", "runs"} <= names else None
    if row is None or not isinstance(row[0], int) or row[0] < _FIRST:
        raise StoreError(f"{path}: not a results database of this project; name another with --store")
    if row[0] > TO:
        raise StoreError(
            f"{path}: version {row[0]}, written by a newer harness; this one migrates {_FIRST} to {TO}. "
            "Keep it for that version"
        )
    return row[0]


def _alone(old: sqlite3.Connection, path: Path) -> None:
    """Merge the write-ahead log into the file. SQLite does this only if no other process has the file open."""
    try:
        old.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as problem:
        raise StoreError(f"{path} is in use ({problem}); end the processes that use it, then migrate") from problem


def _copy(old: sqlite3.Connection, new: Path) -> None:
    """Write all rows with their seals into a new file, in one transaction."""
    old.row_factory = sqlite3.Row
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(new)))
    try:
        with engine.begin() as connection:
            tables.metadata.create_all(connection)
            connection.execute(tables.schema.insert().values(version=TO))
            for table in (tables.runs, tables.test_sets, tables.attempts, tables.incumbents):
                _insert(connection, table, ({**row, "seal": row_seal(table.name, row)} for row in _rows(old, table)))
            for table in (tables.answers, tables.queries):
                _insert(connection, table, _rows(old, table))
            _insert(connection, tables.outcomes, _closed(connection, old))
    finally:
        engine.dispose()


def _rows(old: sqlite3.Connection, table: sa.Table) -> Iterator[dict[str, Any]]:
    return (dict(row) for row in old.execute(f"SELECT * FROM {table.name}"))  # noqa: S608 - the name of an own table


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
    while some := list(islice(rows, _AT_ONCE)):
        connection.execute(table.insert(), some)


def _closed(connection: sa.Connection, old: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Outcomes, with seals that are marked as late."""
    for row in list(_rows(old, tables.outcomes)):
        attempt = row["attempt"]
        links = old.execute("SELECT chain FROM queries WHERE attempt = ? ORDER BY number", (attempt,)).fetchall()
        last = links[-1][0] if links else first_link(row["run"], row["task"], row["split"], attempt)
        kept = tables.incumbents.c
        seals = connection.execute(sa.select(kept.seal).where(kept.attempt == attempt).order_by(kept.mark)).scalars()
        parts = (
            tables.seal_of(connection, tables.runs, row["run"]),
            tables.seal_of(connection, tables.attempts, attempt),
            tables.seal_of(connection, tables.test_sets, row["test"]),
        )
        yield {**row, "seal": closing_seal(row, *parts, list(seals), len(links), last, LATE)}


def _remove(new: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{new}{suffix}").unlink()
