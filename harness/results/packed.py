"""Compressed results databases: how the facts behind a published table are published.

`harness audit`, `leaderboard`, `report` and `compare` read one as any other database. They unpack it into a temporary
file first, and nothing is written to it.
"""

from __future__ import annotations

import atexit
import contextlib
import lzma
import shutil
import sqlite3
import tempfile
from functools import cache
from pathlib import Path

from harness.errors import StoreError

SUFFIX = ".xz"
LEFT_OUT = (
    "as in a published database, which keeps digests alone; take the database of the runs, or evaluate the entry again"
)
"""Why the bytes of an answer are not in a database, and what to do about it."""


def pack(database: Path, out: Path, *, answers: bool = True) -> None:
    """Write a compressed copy of a SQLite database, as it is at one moment, without the space of deleted rows.

    Args:
        database: the file; others may write to it meanwhile.
        out: the copy, whose name ends in ``.db.xz``; an existing one is replaced when the new one is complete.
        answers: whether the bytes of answers are kept. Predictions, ledgers and all seals are kept in any case, and so
            are the digests of the answers, with which an answer that is made again can be compared.

    Raises:
        StoreError: there is no such database, it cannot be read, or the copy cannot be written.
    """
    if not database.is_file():
        raise StoreError(f"{database}: no such results database")
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        whole = Path(folder) / "whole.db"
        try:
            connection = sqlite3.connect(database)
            try:
                connection.execute("VACUUM INTO ?", (str(whole),))
            finally:
                connection.close()
            if not answers:
                _leave_answers_out(whole)
        except sqlite3.Error as problem:
            raise StoreError(f"{database} cannot be read: {problem}") from problem
        part = out.with_name(f"{out.name}.part")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with whole.open("rb") as source, lzma.open(part, "wb", preset=9 | lzma.PRESET_EXTREME) as target:
                shutil.copyfileobj(source, target)
            part.replace(out)
        except OSError as problem:
            raise StoreError(f"{out} cannot be written: {problem}") from problem
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _leave_answers_out(database: Path) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("UPDATE answers SET blob = x''")
        connection.execute("VACUUM")
    finally:
        connection.close()


def unpacked(path: Path) -> Path:
    """The database of a compressed file: a temporary file that is there until this process ends.

    Raises:
        OSError: the file is damaged or incomplete, or there is no room for the copy.
    """
    facts = path.stat()
    return _unpacked(path.resolve(), facts.st_mtime_ns, facts.st_size)


@cache
def _unpacked(path: Path, _changed: int, _size: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / path.with_suffix("").name
    try:
        with lzma.open(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (lzma.LZMAError, EOFError) as problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"it is not a complete xz file: {problem}") from problem
    return copy
