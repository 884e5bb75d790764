"""The results database: append-only facts through SQLAlchemy Core. Scores are computed from it and not stored in it.

It is a SQLite file or a PostgreSQL database. `harness.results.database` gives both the same guarantees.

A *run* is one submission with one configuration on one track, model, data set, environment and seed. A run has *cells*
(task x split). Every start of a cell is an *attempt*. Its answered queries go into the ledger one by one, and each is
committed before its reply is sent. When an attempt ends, its *outcome*, answers and predictions are written in one
transaction; the database enforces one outcome per cell. An interrupted attempt has no outcome, so the cell runs again.
Every row is sealed (`harness.results.digests`), so that `harness audit` can name what was changed afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from harness.errors import StoreError
from harness.results import corrections, tables
from harness.results.database import address, identity, open_engine, readers, shown
from harness.results.digests import chained, closing_seal, first_link, left_out, row_seal
from harness.results.records import LedgerRow, OpenCell, Pace, Run, StoredCell, cell_record, run_key
from harness.results.rulings import check_new, decided
from harness.results.status import COUNTS
from harness.results.tables import READABLE, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from harness.contract import IntArray
    from harness.results.records import CellRecord, KeptAnswer, RunKey
    from harness.results.rulings import Ruling

_QUERY = tables.queries.insert()
"""Built once, because the ledger gets a row for every query."""


class Store:
    """A results database."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the database, and create it if `create`. A path is SQLite; anything with ``://`` is a SQLAlchemy URL.

        Raises:
            StoreError: it cannot be opened or created, has another schema, or is not a results database. Without
                `create`, also if it does not exist.
        """
        self.url = shown(url)
        """The store's name for messages, without the password."""
        self.labels = corrections.CORRECTED
        """The labels that cells are read with: see `harness.results.corrections.in_force`."""
        self._engine = open_engine(url, create=create)
        self.address = address(self._engine)
        """The URL by which other processes reach it from any directory. It may have a password, so it is never
        shown."""
        self._reader = readers(self._engine)
        self._writer = self._engine.execution_options(writes="anything")
        self._appender = self._engine.execution_options(writes="its own")
        try:
            self._open(create)
        except StoreError:
            self.close()
            raise

    def _open(self, create: bool) -> None:
        with self._reading() as connection:
            version = self._version(connection)
        if version is None and not create:
            raise StoreError(f"{self.url}: this is not a results database, as it has no tables; name another")
        if version is None:
            with self._writing() as connection:  # one transaction: a database is complete or does not exist
                version = self._version(connection) or self._create(connection)
        if version not in READABLE:
            way_out = (
                f"To bring it up to date and keep the older file beside it, run: harness migrate --store {self.url}"
                if version == 1
                else "Keep it for the version that wrote it, and name another with --store"
            )
            raise StoreError(f"{self.url}: schema version {version}, this program reads {SCHEMA}. {way_out}")

    def _version(self, connection: sa.Connection) -> int | None:
        """The schema version, or None if there are no tables yet."""
        there = sa.inspect(connection).get_table_names()
        if not there:
            return None
        if "schema" not in there or "runs" not in there:
            raise StoreError(f"{self.url}: not a results database of this project; choose another with --store")
        return int(connection.execute(sa.select(tables.schema.c.version)).scalar() or 0)

    def _create(self, connection: sa.Connection) -> int:
        tables.metadata.create_all(connection)
        connection.execute(tables.schema.insert().values(version=SCHEMA))
        return SCHEMA

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def open_run(self, key: RunKey, environment: Mapping[str, Any], *, ruled: bool = True) -> str:
        """Record a run, unless it is recorded already, and return its id. If `ruled`, rulings count.

        Raises:
            SubmissionError: it is new, and a ruling does not allow it.
        """
        with self._writing() as connection:
            known = connection.execute(sa.select(tables.runs.c.run).where(tables.runs.c.run == key.id)).scalar()
            if known is None and ruled:
                check_new(connection, key)
            if known is None:
                row = {"identity": json.dumps(asdict(key)), "environment": json.dumps(dict(environment))}
                tables.insert_sealed(connection, tables.runs, row | {"run": key.id, "started": time.time()})
        return key.id

    def finished(self, run: str) -> set[tuple[str, int]]:
        """Cells of a run that have an outcome and need not run again."""
        query = sa.select(tables.outcomes.c.task, tables.outcomes.c.split).where(tables.outcomes.c.run == run)
        with self._reading() as connection:
            return {(task, split) for task, split in connection.execute(query)}

    def failed(self, run: str) -> dict[tuple[str, int], int]:
        """Cells of a run that ended in a failure, each with the attempt that did: those that may be run again."""
        columns = tables.outcomes.c
        query = sa.select(columns.task, columns.split, columns.attempt)
        with self._reading() as connection:
            rows = connection.execute(query.where(columns.run == run, columns.status.not_in(COUNTS))).all()
        return {(row.task, row.split): row.attempt for row in rows}

    def begin(self, run: str, task: str, split: int, replaces: int | None = None) -> Attempt:
        """Start a cell. Its outcome takes the place of that of the attempt `replaces`, a failure, if one is named."""
        row = {"run": run, "task": task, "split": split, "started": time.time()}
        columns = tables.attempts.c
        with self._appending() as connection:
            inserted: Any = connection.execute(tables.attempts.insert().values(seal="", **row)).inserted_primary_key
            number = int(inserted[0])
            seal = row_seal("attempts", row | {"attempt": number})
            connection.execute(tables.attempts.update().where(columns.attempt == number).values(seal=seal))
        return Attempt(self, number, run, task, split, seal, replaces)

    def runs(self) -> list[Run]:
        """All runs, oldest first.

        Raises:
            StoreError: a run cannot be read.
        """
        with self._reading() as connection:
            rows = connection.execute(sa.select(tables.runs).order_by(tables.runs.c.started, tables.runs.c.run)).all()
        with self._decoding("runs"):
            return [Run(row.run, run_key(row.identity), json.loads(row.environment), row.started) for row in rows]

    def rulings(self) -> list[Ruling]:
        """What was decided about entries, oldest first."""
        with self._reading() as connection:
            return decided(connection)

    def labels_shown(self, track: str) -> list[str]:
        """With which labels the scores of a track are computed, in lines; none where no label was ever corrected."""
        with self._reading() as connection:
            return corrections.shown(connection, track, self.labels)

    def cells(self, run: str) -> list[StoredCell]:
        """Finished cells of a run, in order of task and split, with the `labels` that were asked for."""
        return self._cells(run, [tables.outcomes.c.task, tables.outcomes.c.split])

    def newest_cell(self, run: str) -> StoredCell | None:
        """The cell of a run that finished last; None if no cell is finished."""
        found = self._cells(run, [tables.outcomes.c.finished.desc(), tables.outcomes.c.attempt.desc()], 1)
        return found[0] if found else None

    def _cells(self, run: str, order: list[Any], limit: int | None = None) -> list[StoredCell]:
        query = sa.select(tables.outcomes, tables.test_sets.c.labels).join(tables.test_sets)
        with self._reading() as connection:
            rows = connection.execute(query.where(tables.outcomes.c.run == run).order_by(*order).limit(limit)).all()
            kept: dict[int, list[Any]] = {row.attempt: [] for row in rows}
            incumbents = sa.select(tables.incumbents).where(tables.incumbents.c.attempt.in_(kept))
            for incumbent in connection.execute(incumbents):
                kept[incumbent.attempt].append(incumbent)
            corrected = corrections.labels(connection, self.labels)
        with self._decoding(f"run {run}"):
            return [_cell(row, kept[row.attempt], corrected.get(row.test)) for row in rows]

    def pace(self, run: str) -> Pace:
        """How many cells of a run have finished, and how long they took."""
        outcomes, attempts = tables.outcomes.c, tables.attempts.c
        seconds = sa.func.avg(outcomes.finished - attempts.started)
        query = sa.select(sa.func.count(), seconds).select_from(tables.outcomes.join(tables.attempts))
        with self._reading() as connection:
            finished, mean = connection.execute(query.where(outcomes.run == run)).one()
        return Pace(finished, mean)

    def open_cells(self, run: str) -> list[OpenCell]:
        """Cells of a run that have been started and are not finished, by their last start, in order of task and split.

        Each is running or was interrupted. The database cannot tell the two apart, but the rows of a running cell grow.
        """
        attempts, outcomes, queries = tables.attempts.c, tables.outcomes.c, tables.queries.c
        ended = sa.exists().where(
            outcomes.run == attempts.run, outcomes.task == attempts.task, outcomes.split == attempts.split
        )
        newest = sa.select(sa.func.max(attempts.attempt)).where(attempts.run == run, ~ended)
        rows = sa.select(sa.func.coalesce(sa.func.sum(queries.rows), 0)).where(queries.attempt == attempts.attempt)
        query = sa.select(
            attempts.attempt, attempts.task, attempts.split, attempts.started, rows.scalar_subquery()
        ).where(attempts.attempt.in_(newest.group_by(attempts.task, attempts.split)))
        with self._reading() as connection:
            return [OpenCell(*row) for row in connection.execute(query.order_by(attempts.task, attempts.split))]

    def answer(self, run: str, task: str, split: int, mark: float = 1.0) -> bytes | None:
        """The bytes of an answer; None if the cell has none, or its bytes were left out (`harness.results.packed`)."""
        columns, outcomes = tables.answers.c, tables.outcomes.c
        query = (
            sa.select(columns.blob, columns.sha256)
            .join(tables.incumbents, tables.incumbents.c.answer == columns.sha256)
            .join(tables.outcomes, outcomes.attempt == tables.incumbents.c.attempt)
            .where(outcomes.run == run, outcomes.task == task, outcomes.split == split)
            .where(tables.incumbents.c.mark == mark)
        )
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None or left_out(*row) else row[0]

    def ledger(self, attempt: int) -> list[LedgerRow]:
        """All answered queries of an attempt, in order."""
        columns = tables.queries.c
        query = sa.select(*(columns[name] for name in LedgerRow.__dataclass_fields__)).where(columns.attempt == attempt)
        with self._reading() as connection:
            return [LedgerRow(*row) for row in connection.execute(query.order_by(columns.number))]

    def attempts(self, run: str) -> list[tuple[int, str, int]]:
        """Every start of every cell: attempt, task, split."""
        columns = tables.attempts.c
        query = sa.select(columns.attempt, columns.task, columns.split).where(columns.run == run)
        with self._reading() as connection:
            return [(row.attempt, row.task, row.split) for row in connection.execute(query.order_by(columns.attempt))]

    def snapshot(self) -> AbstractContextManager[sa.Connection]:
        """One consistent view of all tables, even while others write, for code that checks rows as they are stored."""
        return self._reading()

    def changes(self) -> AbstractContextManager[sa.Connection]:
        """One transaction that keeps all other writers waiting, for code that copies rows from another database."""
        return self._writing()

    def identity(self) -> tuple[str, ...]:
        """What distinguishes this database from every other one, whatever name it was opened by."""
        with self._reading() as connection:
            return identity(connection)

    def _writing(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction(self._writer)

    def _appending(self) -> AbstractContextManager[sa.Connection]:
        """A transaction for rows that nobody else writes. On PostgreSQL it does not wait for other writers."""
        return self._transaction(self._appender)

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction(self._reader)

    @contextmanager
    def _decoding(self, what: str) -> Iterator[None]:
        """Raise a `StoreError` if stored JSON is not what was written."""
        try:
            yield
        except ValueError as problem:
            raise StoreError(
                f"results database {self.url}: {what} cannot be read: {problem}. "
                f"See what was changed: harness audit --store {self.url}"
            ) from problem

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """A transaction whose failures are raised as `StoreError`. Constraint violations pass through."""
        try:
            with engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (SQLAlchemyError, UnicodeDecodeError) as problem:  # damaged text raises UnicodeDecodeError
            cause = str(getattr(problem, "orig", None) or problem).strip()
            raise StoreError(
                f"results database {self.url}: {cause}. It contains nothing half-written; "
                "remove the cause and run the same command again, or name another with --store"
            ) from problem


class Attempt:
    """A cell that is being run. It takes ledger rows one by one, and then the outcome."""

    def __init__(
        self, store: Store, number: int, run: str, task: str, split: int, seal: str, replaces: int | None
    ) -> None:
        """Continue from nothing: an attempt is never resumed."""
        self._replaces = replaces
        self._store, self.number, self.run, self.task, self.split = store, number, run, task, split
        self._queries, self._chain, self._seal = 0, first_link(run, task, split, number), seal

    def record(self, row: LedgerRow) -> None:
        """Commit one answered query, chained to the query before it.

        Raises:
            StoreError: the row could not be made durable, so the reply must not be sent.
        """
        values = vars(row)  # `asdict` makes a deep copy, a tenth of a row's cost
        chain = chained(self._chain, values)
        with self._store._appending() as connection:  # noqa: SLF001 - two classes of one module
            place = {"attempt": self.number, "number": self._queries, "chain": chain}
            connection.execute(_QUERY, place | values)
        self._chain, self._queries = chain, self._queries + 1

    def finish(self, status: str, record: CellRecord, test: str, labels: IntArray, kept: list[KeptAnswer]) -> bool:
        """Write outcome, answers and predictions in one transaction.

        Returns False where another process finished this cell first; then nothing is written. A failed outcome that
        this one replaces goes in the same transaction. Its attempt and its ledger stay, and `CellRecord.replaced` says
        how it ended.
        """
        try:
            with self._store._writing() as connection:  # noqa: SLF001
                record = self._replacing(connection, record)
                _once(connection, tables.test_sets, "test", {"test": test, "labels": tables.class_bytes(labels)})
                kept_seals = [self._keep(connection, answer) for answer in sorted(kept, key=lambda each: each.mark)]
                cell = {"run": self.run, "task": self.task, "split": self.split, "attempt": self.number}
                outcome = {"status": status, "facts": record.to_json(), "test": test, "finished": time.time()}
                row = cell | outcome
                seal = closing_seal(
                    row, tables.seal_of(connection, tables.runs, self.run), self._seal,
                    tables.seal_of(connection, tables.test_sets, test), kept_seals, self._queries, self._chain,
                )  # fmt: skip
                connection.execute(tables.outcomes.insert().values(seal=seal, **row))
        except IntegrityError as problem:
            if (self.task, self.split) in self._store.finished(self.run):
                return False
            raise StoreError(
                f"results database {self._store.url}: {problem.orig}; run the same command again"
            ) from problem
        return True

    def _replacing(self, connection: sa.Connection, record: CellRecord) -> CellRecord:
        """Take the failed outcome away that this attempt replaces, if it still stands; the record with its status."""
        columns = tables.outcomes.c
        if self._replaces is None:
            return record
        query = sa.select(columns.status, columns.facts).where(columns.attempt == self._replaces)
        failed = connection.execute(query.where(columns.status.not_in(COUNTS))).first()
        if failed is None:
            return record
        remove_outcome(connection, self._replaces)
        return replace(record, replaced=(*cell_record(failed.facts).replaced, failed.status))

    def withdraw(self) -> None:
        """Take the start back, where it came to nothing: the submission was refused before any query was answered.

        An attempt of which something is stored stays, as one that was interrupted.
        """
        mine = tables.attempts.c.attempt == self.number
        with contextlib.suppress(IntegrityError), self._store._writing() as connection:  # noqa: SLF001
            connection.execute(tables.attempts.delete().where(mine))

    def _keep(self, connection: sa.Connection, answer: KeptAnswer) -> str:
        """Write one incumbent with its answer, and return its seal."""
        digest = hashlib.sha256(answer.blob).hexdigest()
        known = sa.select(tables.answers.c.sha256).where(tables.answers.c.sha256 == digest)
        if connection.execute(known).scalar() is None:
            connection.execute(tables.answers.insert().values(sha256=digest, blob=answer.blob))
        values = {"mark": float(answer.mark), "rows": int(answer.rows), "answer": digest}
        predictions = tables.class_bytes(answer.predictions)
        return tables.insert_sealed(
            connection, tables.incumbents, {"attempt": self.number, "predictions": predictions, **values}
        )


def remove_outcome(connection: sa.Connection, attempt: int) -> None:
    """Take an outcome away that another one replaces; the attempt stays, as one without an outcome."""
    connection.execute(tables.incumbents.delete().where(tables.incumbents.c.attempt == attempt))
    connection.execute(tables.outcomes.delete().where(tables.outcomes.c.attempt == attempt))


def _cell(row: Any, incumbents: list[Any], corrected: IntArray | None) -> StoredCell:
    """Make a cell from its outcome, its incumbents, and the labels of the test set, unless they were corrected."""
    kept = sorted(incumbents, key=lambda incumbent: incumbent.mark)
    predictions = {incumbent.mark: tables.classes_of(incumbent.predictions) for incumbent in kept}
    rows = {incumbent.mark: incumbent.rows for incumbent in kept}
    record, labels = cell_record(row.facts), tables.classes_of(row.labels) if corrected is None else corrected
    return StoredCell(
        row.run, row.task, row.split, row.attempt, row.status, record, labels, predictions, row.finished, rows
    )


def _once(connection: sa.Connection, table: sa.Table, key: str, row: dict[str, Any]) -> None:
    if connection.execute(sa.select(table.c[key]).where(table.c[key] == row[key])).scalar() is None:
        tables.insert_sealed(connection, table, row)
