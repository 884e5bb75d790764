"""Connections to SQLite and PostgreSQL that give `harness.results.store` the same guarantees.

- A commit is on disk before it returns.
- A writer sees everything that was written before, and nobody else writes at the same time. On SQLite this is ``BEGIN
  IMMEDIATE``. On PostgreSQL it is an advisory lock that ends with the transaction.
- A process that only appends rows of its own does not take that lock, so the ledgers of many evaluators grow at the
  same time.
- A reader sees the state of one moment: a transaction on SQLite, ``REPEATABLE READ`` on PostgreSQL.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from harness.errors import StoreError
from harness.results.packed import SUFFIX, unpacked

WAIT_S = {"sqlite": 120, "postgresql": 300}
"""Seconds that a writer waits for other writers."""
_LOCK = int.from_bytes(b"harness\0", "big")
"""Key of the advisory lock; there is one per database."""
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "connect_timeout": 30}
"""Options of libpq, so that a lost connection to the server is noticed within a minute."""


def shown(url: str) -> str:
    """A store's name for messages. It has neither the password nor the query part of the URL, which may hold one."""
    if "://" not in url:
        return url
    hidden = re.sub(r"(://[^:/@?]*):.*@", r"\1:***@", url, count=1, flags=re.DOTALL)  # the password ends at the last @
    return re.sub(r"(?i)((?:password|passwd|pwd)=)[^&]*", r"\1***", hidden)


def open_engine(url: str, *, create: bool = True, name: str = "results database", option: str = "--store") -> sa.Engine:
    """Connect to a database: a path is SQLite, anything with ``://`` is a SQLAlchemy URL.

    A path that ends in ``.xz`` is a compressed SQLite file, which can only be read: see `harness.results.packed`.
    Messages call the database `name` and tell the user to choose another one with `option`.

    Raises:
        StoreError: the database cannot be opened or created. Without `create`, also if there is no such file.
    """
    try:
        where = sa.make_url(url) if "://" in url else sa.URL.create("sqlite", database=url)
        if where.get_backend_name() not in WAIT_S:
            raise ArgumentError(f"{where.get_backend_name()} is not among {', '.join(WAIT_S)}")
        if "@" in (where.host or ""):
            raise ArgumentError("an @, : or / of the password must be written %40, %3A or %2F")
        if where.get_backend_name() == "postgresql":
            return _postgresql(where)
        return _sqlite(where, create=create)
    except (OSError, ImportError, ValueError, SQLAlchemyError) as problem:
        raise StoreError(
            f"{name} {shown(url)} cannot be opened: {_cause(problem)}. Choose another with {option}"
        ) from None  # a cause in the traceback might spell the URL


def address(engine: sa.Engine) -> str:
    """The URL by which other processes reach the same database, with its password. A file has its absolute path."""
    url, file = engine.url, engine.url.database
    if url.get_backend_name() == "sqlite" and file and not file.startswith((":memory:", "file:")):
        url = url.set(database=str(Path(file).resolve()))
    return url.render_as_string(hide_password=False)


def identity(connection: sa.Connection) -> tuple[str, ...]:
    """What distinguishes this database from every other one, whatever name it was opened by."""
    if connection.dialect.name == "sqlite":
        file = next(row.file for row in connection.exec_driver_sql("PRAGMA database_list") if row.name == "main")
        if not file:
            return ("memory", str(id(connection.engine.pool)))
        place = Path(file).stat()
        return ("file", str(place.st_dev), str(place.st_ino))
    query = (
        "SELECT pg_postmaster_start_time()::text, current_schema()::text, "
        "(SELECT oid::text FROM pg_database WHERE datname = current_database())"
    )
    return ("postgresql", *map(str, connection.exec_driver_sql(query).one()))


def _cause(problem: Exception) -> str:
    """The cause of an error, in words that contain no part of a URL."""
    if isinstance(problem, ModuleNotFoundError) and problem.name == "psycopg":
        return 'psycopg is not installed; run: pip install -e ".[postgres]"'
    if isinstance(problem, ArgumentError) and "Could not parse" in str(problem):
        return "the URL cannot be read; a password's special characters must be percent-encoded"
    if isinstance(problem, ValueError) and not isinstance(problem, UnicodeError):
        return "the URL cannot be read; its port must be a number"
    return str(problem)


def _sqlite(where: sa.URL, *, create: bool) -> sa.Engine:
    """Threads share no connection and never wait for one, only for the database's lock."""
    memory, frozen = where.database in {None, "", ":memory:"}, False
    if not memory and not str(where.database).startswith("file:"):
        path = Path(str(where.database))
        if not create and not path.is_file():
            raise OSError("no such file")
        packed = path.suffix == SUFFIX
        if packed and create:
            raise OSError(f"a compressed database can only be read; unpack it first: xz --decompress --keep {path}")
        path = unpacked(path) if packed else path
        path.parent.mkdir(parents=True, exist_ok=True)
        frozen = packed or (not create and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)))
        if frozen:
            where = _as_it_lies(where, path)
    engine = sa.create_engine(where) if memory else sa.create_engine(where, max_overflow=-1)

    @sa.event.listens_for(engine, "connect")
    def durable(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # `begin` starts transactions, not the driver
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={WAIT_S['sqlite'] * 1000}",
            *(() if frozen else ("journal_mode=WAL", "synchronous=FULL")),
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        """Make writers take the lock before they read, so that what they read is still true when they write."""
        writing = connection.get_execution_options().get("writes", "nothing") != "nothing"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _as_it_lies(where: sa.URL, path: Path) -> sa.URL:
    """Open a file that cannot be written, or lies where nothing can be: on a read-only file system, of another user.

    SQLite would write a file beside it even to read. What a writer has not brought into the file yet lies in a second
    one; where that is, the writer's shared memory must be there, too.
    """
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.is_file() and log.stat().st_size else "immutable=1"
    return where.set(database=f"file:{quote(str(path.resolve()))}", query={"uri": "true", **dict([how.split("=")])})


def _postgresql(where: sa.URL) -> sa.Engine:
    """Each connection is tested before use, so that a restarted server is found again."""
    if where.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise ArgumentError("PostgreSQL is reached with psycopg: postgresql+psycopg://USER@HOST/DATABASE")
    where = where.set(drivername="postgresql+psycopg")
    alive = {name: value for name, value in _ALIVE.items() if name not in where.query}
    engine = sa.create_engine(where, pool_pre_ping=True, max_overflow=-1, connect_args=alive)

    @sa.event.listens_for(engine, "connect")
    def durable(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        cursor.execute(f"SET lock_timeout = '{WAIT_S['postgresql']}s'")
        cursor.close()
        connection.autocommit = False

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("writes", "nothing") == "anything":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))

    return engine


def readers(engine: sa.Engine) -> sa.Engine:
    """The same connections for transactions that only read. Each transaction sees the database at one moment."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
