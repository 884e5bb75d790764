"""The results database: append-only facts through SQLAlchemy Core. Scores are computed from it, never kept in it.

A *run* is one submission with one configuration on one track, model, data set, environment and seed. A run has
*cells* (task x split). Every start of a cell is an *attempt*, whose answered queries go into the ledger one by one,
each committed before its reply is sent. An attempt that ends writes its *outcome*, answers and predictions in one
transaction; one outcome per cell, enforced by the database. An interrupted attempt has none: the cell runs again.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Text, UniqueConstraint
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError, SQLAlchemyError

from harness.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.contract import IntArray
    from harness.lm.broker import LedgerRow

SCHEMA = 1
DEFAULT = "results/harness.db"

_meta = sa.MetaData()
_schema = sa.Table("schema", _meta, Column("version", Integer, primary_key=True))
_runs = sa.Table(
    "runs",
    _meta,
    Column("run", Text, primary_key=True),  # digest of `identity`
    Column("identity", Text, nullable=False),  # JSON of RunKey
    Column("environment", Text, nullable=False),  # JSON: versions, device, threads, sandbox tier
    Column("started", sa.Float, nullable=False),
)
_attempts = sa.Table(
    "attempts",
    _meta,
    Column("attempt", Integer, primary_key=True, autoincrement=True),
    Column("run", ForeignKey("runs.run"), nullable=False, index=True),
    Column("task", Text, nullable=False),
    Column("split", Integer, nullable=False),
    Column("started", sa.Float, nullable=False),
)
_queries = sa.Table(
    "queries",
    _meta,
    Column("attempt", ForeignKey("attempts.attempt"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("rows", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("bytes_up", Integer, nullable=False),
    Column("bytes_down", Integer, nullable=False),
    Column("seconds", sa.Float, nullable=False),
    Column("level", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("chain", Text, nullable=False),
)
_outcomes = sa.Table(
    "outcomes",
    _meta,
    Column("run", ForeignKey("runs.run"), primary_key=True),
    Column("task", Text, primary_key=True),
    Column("split", Integer, primary_key=True, autoincrement=False),
    Column("attempt", ForeignKey("attempts.attempt"), nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("facts", Text, nullable=False),  # JSON of what else is known: see referee.Cell
    Column("test", ForeignKey("test_sets.test"), nullable=False),
    Column("finished", sa.Float, nullable=False),
)
_test_sets = sa.Table(
    "test_sets",
    _meta,
    Column("test", Text, primary_key=True),  # digest of texts and labels
    Column("labels", LargeBinary, nullable=False),  # int16, little-endian
)
_answers = sa.Table(
    "answers",
    _meta,
    Column("sha256", Text, primary_key=True),
    Column("blob", LargeBinary, nullable=False),
)
_incumbents = sa.Table(
    "incumbents",
    _meta,
    Column("attempt", ForeignKey("attempts.attempt"), nullable=False),
    Column("mark", sa.Float, nullable=False),  # fraction of the budget; 1 is the final answer
    Column("rows", Integer, nullable=False),  # rows spent when it was offered
    Column("answer", ForeignKey("answers.sha256"), nullable=False),
    Column("predictions", LargeBinary, nullable=False),  # int16 class per test text
    UniqueConstraint("attempt", "mark"),
)


@dataclass(frozen=True)
class RunKey:
    """What makes two runs the same run: any difference starts a new one."""

    entry: str
    """Name on the leaderboard: the folder, and options that were given."""
    submission_sha256: str
    options: tuple[tuple[str, str], ...]
    track: str
    track_fingerprint: str
    rules: int
    model: str
    model_sha256: str
    data: str
    data_sha256: str
    device: str
    seed: int
    environment_sha256: str
    """Of the versions of everything that computes."""
    modified: tuple[str, ...] = ()
    """Which of the track's choices were replaced on the command line; a run with any is never ranked with it."""

    @property
    def id(self) -> str:
        """Digest that names the run."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class KeptAnswer:
    """An incumbent with what it predicts."""

    mark: float
    rows: int
    blob: bytes
    predictions: IntArray


@dataclass(frozen=True)
class StoredCell:
    """One finished cell, as read back."""

    run: str
    task: str
    split: int
    attempt: int
    status: str
    facts: dict[str, Any]
    labels: IntArray
    predictions: dict[float, IntArray]
    """Predicted classes per mark; empty where there was no answer."""
    finished: float


class Store:
    """A results database."""

    def __init__(self, url: str = DEFAULT) -> None:
        """Open or create it. A path is SQLite; anything with ``://`` is a SQLAlchemy URL.

        Raises:
            StoreError: it cannot be opened or created, is of another schema, or is no database.
        """
        self.url = url
        if "://" not in url:
            try:
                Path(url).parent.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise StoreError(f"{url}: its directory cannot be made: {problem}. Choose another with --store") from problem
        self._engine = sa.create_engine(url if "://" in url else f"sqlite:///{url}")
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _durable)
        try:
            self._create()
        except SQLAlchemyError as problem:
            raise StoreError(_reason(url, problem)) from problem

    def _create(self) -> None:
        with self._engine.begin() as connection:
            if not sa.inspect(connection).has_table("schema"):
                if sa.inspect(connection).has_table("runs"):
                    raise StoreError(f"{self.url}: not a results database of this project; choose another with --store")
                _meta.create_all(connection)
                connection.execute(_schema.insert().values(version=SCHEMA))
            version = connection.execute(sa.select(_schema.c.version)).scalar()
        if version != SCHEMA:
            raise StoreError(
                f"{self.url}: schema version {version}, this program reads {SCHEMA}. "
                "Keep the file for the version that wrote it, and name another with --store"
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def open_run(self, key: RunKey, environment: Mapping[str, Any]) -> str:
        """Record a run, unless the same one is there; return its id."""
        with self._writing() as connection:
            known = connection.execute(sa.select(_runs.c.run).where(_runs.c.run == key.id)).scalar()
            if known is None:
                values = {"identity": json.dumps(asdict(key)), "environment": json.dumps(dict(environment))}
                connection.execute(_runs.insert().values(run=key.id, started=time.time(), **values))
        return key.id

    def finished(self, run: str) -> set[tuple[str, int]]:
        """Cells of a run that need not run again."""
        query = sa.select(_outcomes.c.task, _outcomes.c.split).where(_outcomes.c.run == run)
        with self._engine.connect() as connection:
            return {(task, split) for task, split in connection.execute(query)}

    def begin(self, run: str, task: str, split: int) -> Attempt:
        """Start a cell."""
        row = {"run": run, "task": task, "split": split, "started": time.time()}
        with self._writing() as connection:
            number = connection.execute(_attempts.insert().values(**row)).inserted_primary_key
        assert number is not None
        return Attempt(self, number[0], run, task, split)

    def runs(self) -> list[tuple[str, dict[str, Any], dict[str, Any], float]]:
        """All runs, oldest first: id, identity, environment, start (Unix seconds)."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_runs).order_by(_runs.c.started, _runs.c.run)).all()
        return [(row.run, json.loads(row.identity), json.loads(row.environment), row.started) for row in rows]

    def cells(self, run: str) -> Iterator[StoredCell]:
        """Finished cells of a run, in order of task and split."""
        with self._engine.connect() as connection:
            query = sa.select(_outcomes, _test_sets.c.labels).join(_test_sets).where(_outcomes.c.run == run)
            for row in connection.execute(query.order_by(_outcomes.c.task, _outcomes.c.split)).all():
                kept = sa.select(_incumbents.c.mark, _incumbents.c.predictions)
                found = connection.execute(kept.where(_incumbents.c.attempt == row.attempt).order_by(_incumbents.c.mark))
                predictions = {mark: _labels(blob) for mark, blob in found}
                facts = json.loads(row.facts)
                yield StoredCell(
                    run, row.task, row.split, row.attempt, row.status, facts, _labels(row.labels), predictions, row.finished
                )

    def answer(self, run: str, task: str, split: int, mark: float = 1.0) -> bytes | None:
        """An answer's bytes; None where the cell has none."""
        query = (
            sa.select(_answers.c.blob)
            .join(_incumbents, _incumbents.c.answer == _answers.c.sha256)
            .join(_outcomes, _outcomes.c.attempt == _incumbents.c.attempt)
            .where(_outcomes.c.run == run, _outcomes.c.task == task, _outcomes.c.split == split, _incumbents.c.mark == mark)
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar()

    def ledger(self, attempt: int) -> list[dict[str, Any]]:
        """All answered queries of an attempt, in order."""
        query = sa.select(_queries).where(_queries.c.attempt == attempt).order_by(_queries.c.number)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def attempts(self, run: str) -> list[tuple[int, str, int]]:
        """Every start of every cell: attempt, task, split."""
        query = sa.select(_attempts.c.attempt, _attempts.c.task, _attempts.c.split).where(_attempts.c.run == run)
        with self._engine.connect() as connection:
            return [(row.attempt, row.task, row.split) for row in connection.execute(query.order_by(_attempts.c.attempt))]

    def _writing(self) -> Any:
        return _Writing(self._engine, self.url)


class Attempt:
    """A cell being run: takes ledger rows one by one, then the outcome."""

    def __init__(self, store: Store, number: int, run: str, task: str, split: int) -> None:
        """Continue from nothing: an attempt is never resumed."""
        self._store, self.number, self.run, self.task, self.split = store, number, run, task, split
        self._queries = 0
        self._chain = hashlib.sha256(f"{run}/{task}/{split}/{number}".encode()).hexdigest()

    def record(self, row: LedgerRow) -> None:
        """Commit one answered query, chained to the one before.

        Raises:
            StoreError: it could not be made durable; the reply must not be sent.
        """
        values = asdict(row)
        chain = chained(self._chain, values)
        with self._store._writing() as connection:  # noqa: SLF001 - one module, two halves of one thing
            connection.execute(_queries.insert().values(attempt=self.number, number=self._queries, chain=chain, **values))
        self._chain, self._queries = chain, self._queries + 1

    def finish(
        self, status: str, facts: Mapping[str, Any], test: str, labels: IntArray, kept: list[KeptAnswer]
    ) -> bool:
        """Write outcome, answers and predictions in one transaction.

        Returns False where another process finished this cell first; then nothing is written.
        """
        try:
            with self._store._writing() as connection:  # noqa: SLF001
                _once(connection, _test_sets, "test", test, labels=_bytes(labels))
                outcome = {"status": status, "facts": json.dumps(dict(facts)), "test": test, "finished": time.time()}
                cell = {"run": self.run, "task": self.task, "split": self.split, "attempt": self.number}
                connection.execute(_outcomes.insert().values(**cell, **outcome))
                for answer in kept:
                    digest = hashlib.sha256(answer.blob).hexdigest()
                    _once(connection, _answers, "sha256", digest, blob=answer.blob)
                    values = {"mark": answer.mark, "rows": answer.rows, "answer": digest}
                    predictions = _bytes(answer.predictions)
                    connection.execute(_incumbents.insert().values(attempt=self.number, predictions=predictions, **values))
        except IntegrityError:
            return False
        return True


class _Writing:
    """A transaction whose failures come out as `StoreError`; constraint violations pass through."""

    def __init__(self, engine: sa.Engine, url: str) -> None:
        self._context, self._url = engine.begin(), url

    def __enter__(self) -> sa.Connection:
        try:
            return self._context.__enter__()
        except SQLAlchemyError as problem:
            raise StoreError(_reason(self._url, problem)) from problem

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool | None:
        try:
            result = self._context.__exit__(kind, value, trace)
        except IntegrityError:
            raise
        except SQLAlchemyError as problem:
            raise StoreError(_reason(self._url, problem)) from problem
        if isinstance(value, (DatabaseError, OperationalError)) and not isinstance(value, IntegrityError):
            raise StoreError(_reason(self._url, value)) from value
        return result


def chained(previous: str, row: Mapping[str, Any]) -> str:
    """Next link of the ledger's hash chain."""
    fields = ("rows", "tokens", "bytes_up", "bytes_down", "seconds", "level", "sha256")
    return hashlib.sha256(f"{previous}{json.dumps([row[name] for name in fields])}".encode()).hexdigest()


def _durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _once(connection: sa.Connection, table: sa.Table, key: str, value: str, **rest: Any) -> None:
    if connection.execute(sa.select(table.c[key]).where(table.c[key] == value)).scalar() is None:
        connection.execute(table.insert().values({key: value, **rest}))


def _bytes(labels: IntArray) -> bytes:
    return np.asarray(labels).astype("<i2").tobytes()


def _labels(blob: bytes) -> IntArray:
    return np.frombuffer(blob, dtype="<i2").astype(np.int64)


def _reason(url: str, problem: BaseException) -> str:
    cause = getattr(problem, "orig", None) or problem
    return f"results database {url}: {cause}. Nothing half-written is in it; free the cause, or name another with --store"
