"""`harness audit`: check that a results database still says what was written into it.

The audit checks every row as it is stored: seals, the ledger's chain, the checksums of answers, identities, the sums of
the ledger against the facts of outcomes, test labels against the available test sets, and predictions against labels.
It computes scores again from the predictions. It names the table and the row of each fault. It does not use the reading
methods of `harness.results.store`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from harness.errors import InputError, counted
from harness.results import corrections, observations, rulings, schema, tables
from harness.results.digests import chained, closing_seal, first_link, left_out, mark_of, row_seal
from harness.results.measure import classes_of, metric_of
from harness.results.records import cell_record, run_id
from harness.results.status import COUNTS, MARKS, MEANING
from harness.solving.metrics import cell_score, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.results.at_hand import DataHere
    from harness.results.records import CellRecord
    from harness.results.store import Store

_ODD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions that a damaged value can cause when its type is not that of its column."""


@dataclass(frozen=True)
class Finding:
    """A part of the database that differs from what was written."""

    table: str
    row: str
    """The row: the run with its entry, the cell, the query or the mark."""
    fact: str


@dataclass(frozen=True)
class Recomputed:
    """A finished cell, scored again from its stored predictions."""

    run: str
    entry: str
    task: str
    split: int
    status: str
    scores: dict[float, float]
    """Score of the incumbent at each mark."""


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    digest: str
    """SHA-256 of all seals. Two databases with the same digest and no findings hold the same facts."""
    findings: tuple[Finding, ...]
    rows: dict[str, int]
    """Number of rows read in each table."""
    cells: tuple[Recomputed, ...]
    late: int
    """Finished cells that were sealed when their database was migrated and not when they ended."""
    unfinished: int
    """Attempts without an outcome, interrupted or still running. Their queries are chained, but nothing covers their
    end."""
    test_sets_at_hand: int
    """Test sets whose texts were at hand, so that their labels were compared."""
    other_data: tuple[str, ...] = ()
    """Where the data of the same name at hand are not those that cells were tuned or scored on, in lines."""


def audit(store: Store, test_labels: Mapping[str, bytes] | None = None, here: DataHere | None = None) -> Audit:
    """Check a whole results database; `test_labels` are those at hand, by the digest of their test set.

    With the data `here`, cells that were tuned or scored on others of the same name are told.

    Raises:
        StoreError: the database cannot be read to the end. The message is the database's own.
    """
    with store.snapshot() as connection:
        return audit_snapshot(connection, test_labels, here)


def audit_snapshot(
    connection: sa.Connection, test_labels: Mapping[str, bytes] | None = None, here: DataHere | None = None
) -> Audit:
    """`audit`, of what one transaction sees; for those who go on to use it."""
    return _Auditor(connection, test_labels or {}, here).audit()


def summary(found: Audit, differs: bool = False) -> list[str]:
    """The result in lines. With `differs`, published results differ from the database, so the verdict is not "ok"."""
    n = found.rows
    rows = (counted(n["runs"], "run"), counted(n["outcomes"], "cell"), counted(n["queries"], "query", "queries"))
    absent = f" ({n['left out']:,} published without their bytes)" if n["left out"] else ""
    kept = [counted(n["incumbents"], "incumbent"), counted(n["answers"], "answer") + absent]
    kept += [counted(n[name], name.rstrip("s")) for name in ("rulings", "corrections", "observations") if n[name]]
    late = [f"{counted(found.late, 'cell')} sealed when migrated, not when finished"] * bool(found.late)
    verdict = "not as written" if found.findings else "the database is as written" if differs else "ok"
    return [
        f"{', '.join([*rows, *kept])}; {counted(sum(len(cell.scores) for cell in found.cells), 'score')} recomputed",
        f"{counted(n['test_sets'], 'test set')}, labels of {found.test_sets_at_hand:,} compared with the texts at hand",
        f"{counted(found.unfinished, 'attempt')} without an outcome: interrupted, or running",
        *(*found.other_data, *late),
        f"{verdict}; digest {found.digest}",
    ]


@dataclass
class _Attempt:
    """Sums over the ledger of one attempt."""

    queries: int = 0
    last_link: str = ""
    sums: dict[str, Any] = field(default_factory=dict)


class _Auditor:
    def __init__(self, connection: sa.Connection, test_labels: Mapping[str, bytes], here: DataHere | None) -> None:
        self._connection, self._at_hand, self._here = connection, test_labels, here
        self._data: dict[str, str] = {}
        """Name of the data of each run."""
        self._other: Counter[str] = Counter()
        """Cells by what of their data is not what is here."""
        self._findings: list[Finding] = []
        self._rows: Counter[str] = Counter()
        self._cells: list[Recomputed] = []
        self._runs: dict[str, Mapping[str, Any]] = {}
        self._entries: dict[str, str] = {}
        self._tests: dict[str, Mapping[str, Any]] = {}
        self._answers: set[str] = set()
        self._late = self._unfinished = 0
        self._digest = hashlib.sha256()

    def audit(self) -> Audit:
        sqlite = self._connection.dialect.name == "sqlite"
        if not sqlite:
            self._other_objects({})
        if not sqlite or self._file():
            facts = (self._all_runs, self._all_test_sets, self._all_answers, self._all_attempts, self._all_decisions)
            for check in (*facts, self._orphans):
                check()
        at_hand = len(self._tests.keys() & self._at_hand.keys())
        cells, findings = tuple(self._cells), tuple(self._findings)
        rows = {name: self._rows[name] for name in ("left out", *tables.metadata.tables)}
        other = tuple(f"{what}, {counted(count, 'cell')}" for what, count in sorted(self._other.items()))
        return Audit(self._digest.hexdigest(), findings, rows, cells, self._late, self._unfinished, at_hand, other)

    def _found(self, table: str, row: str, fact: str) -> None:
        self._findings.append(Finding(table, row, fact))

    def _select(self, table: sa.Table, order: str, **where: Any) -> Iterator[Mapping[str, Any]]:
        """Rows as they are stored. Column types are not applied, because damage may have changed the values."""
        condition = " AND ".join(f"{name} = :{name}" for name in where) or "1 = 1"
        query = sa.text(f"SELECT * FROM {table.name} WHERE {condition} ORDER BY {order}")  # noqa: S608 - own names
        for row in self._connection.execute(query, where).mappings():
            self._rows[table.name] += 1
            yield dict(row)

    def _file(self) -> bool:
        """SQLite's own check of its file. Returns whether the file has the tables that can be read here."""
        for (line,) in self._connection.exec_driver_sql("PRAGMA integrity_check"):
            if line != "ok":
                self._found("(file)", "SQLite's integrity check", str(line))
        for table, row, parent, _ in self._connection.exec_driver_sql("PRAGMA foreign_key_check"):
            self._found(str(table), f"SQLite row {row}", f"refers to a row of {parent} that is not there")
        there = schema.shape(self._connection)
        version = self._version()
        made_by = version if version in tables.READABLE else tables.SCHEMA
        wanted, objects = schema.wanted(max(made_by, *(v for v, t in tables.LATER.items() if t.name in there), 0))
        for name in sorted(there.keys() | wanted.keys()):
            if there.get(name) != wanted.get(name):
                self._found(name, "its definition", f"{there.get(name)}; {wanted.get(name)} expected")
        self._other_objects(objects)
        return there == wanted

    def _other_objects(self, wanted: Mapping[schema.Object, str]) -> None:
        """What else is in the database, or lacks; the digest of a database that is as it was made is left alone."""
        there = schema.objects(self._connection)
        for each in sorted(there.keys() | wanted.keys()):
            if there.get(each) == wanted.get(each):
                continue
            kind, name, table = each
            self._digest.update(f"{each} {there.get(each)}\n".encode())
            if each not in wanted:
                fact = "belongs to no results database: it may change what is read or written"
                self._found(table, f"{kind} {name}", fact)
            elif each not in there:
                self._found(table, f"{kind} {name}", "is not there")
            else:
                self._found(table, f"{kind} {name}", "was not made as it must be; compare it with a new database's")

    def _sealed(self, table: sa.Table, name: str, row: Mapping[str, Any]) -> None:
        if row["seal"] != row_seal(table.name, row):
            self._found(table.name, name, "does not match its seal: a column was changed")

    def _all_runs(self) -> None:
        for row in self._select(tables.runs, "run"):
            name = f"run {row['run']}"
            try:
                identity = json.loads(row["identity"])
                self._entries[row["run"]] = str(identity["entry"])
                self._data[row["run"]] = str(identity.get("data"))
                if run_id(identity) != row["run"]:
                    self._found("runs", name, f"its id is not the digest of its identity, {run_id(identity)}")
            except _ODD as problem:
                self._found("runs", name, f"its identity cannot be read: {problem}")
            self._runs[row["run"]] = row
            self._sealed(tables.runs, name, row)
            self._digest.update(f"{row['seal']}\n".encode())

    def _all_test_sets(self) -> None:
        for row in self._select(tables.test_sets, "test"):
            name = f"test set {row['test']}"
            self._sealed(tables.test_sets, name, row)
            self._tests[row["test"]] = row
            if self._at_hand.get(row["test"], row["labels"]) != row["labels"]:
                self._found("test_sets", name, "its labels are not those of the test set with this digest")

    def _all_answers(self) -> None:
        for row in self._select(tables.answers, "sha256"):
            try:
                digest = hashlib.sha256(row["blob"]).hexdigest()
            except _ODD as problem:
                digest = str(problem)
            self._answers.add(row["sha256"])
            self._rows["left out"] += (absent := left_out(row["blob"], row["sha256"]))
            if digest != row["sha256"] and not absent:
                self._found("answers", f"answer {row['sha256']}", f"its checksum is {digest}")

    def _all_attempts(self) -> None:
        for row in self._select(tables.attempts, "attempt"):
            run = str(row["run"])
            name = f"run {run} ({self._entries.get(run, '?')}), {row['task']}/{row['split']}, attempt {row['attempt']}"
            self._sealed(tables.attempts, name, row)
            if run not in self._runs:
                self._found("attempts", name, "there is no such run")
            ledger = self._ledger(name, row)
            outcomes = list(self._select(tables.outcomes, "run", attempt=row["attempt"]))
            kept = list(self._select(tables.incumbents, "mark", attempt=row["attempt"]))
            for outcome in outcomes:
                try:
                    self._outcome(name, row, ledger, outcome, kept)
                except _ODD as problem:
                    self._found("outcomes", name, f"cannot be read: {type(problem).__name__}: {problem}")
            if not outcomes:
                self._unfinished += 1
                if kept:
                    self._found("incumbents", name, f"{len(kept)} of them, and no outcome")
            parts = [row["seal"], ledger.queries, ledger.last_link, *(outcome["seal"] for outcome in outcomes)]
            self._digest.update(f"{parts}\n".encode())

    def _version(self) -> int | None:
        """Of the schema; None where it cannot be told."""
        try:
            return int(self._connection.exec_driver_sql("SELECT version FROM schema").scalar_one())
        except (sa.exc.SQLAlchemyError, *_ODD):
            return None

    def _all_decisions(self) -> None:
        """Rulings, corrections, observations; a database of an older version has no such rows to add to its digest."""
        kinds: tuple[tuple[sa.Table, str, Callable[[sa.Connection], bool], Callable[[Any], list[str]]], ...] = (
            (tables.rulings, "ruling", rulings.there, rulings.faults),
            (tables.corrections, "correction", corrections.there, lambda row: corrections.faults(row, self._tests)),
            (tables.observations, "observation", observations.there, observations.faults),
        )
        for table, one, there, faults in kinds:
            for row in self._select(table, f"made, {one}") if there(self._connection) else ():
                name = f"{one} {row[one]}"
                self._sealed(table, name, row)
                try:
                    for fact in faults(row):
                        self._found(table.name, name, fact)
                except _ODD as problem:
                    self._found(table.name, name, f"cannot be read: {problem}")
                self._digest.update(f"{row['seal']}\n".encode())

    def _ledger(self, name: str, attempt: Mapping[str, Any]) -> _Attempt:
        """Follow the chain. After a break it continues from the stored link, so that each break is reported once."""
        rows = list(self._select(tables.queries, "number", attempt=attempt["attempt"]))
        link = first_link(attempt["run"], attempt["task"], attempt["split"], attempt["attempt"])
        for place, row in enumerate(rows):
            if row["number"] != place:
                self._found("queries", f"{name}, query {row['number']}", f"query {place} expected: one is missing")
            if row["chain"] != _linked(link, row):
                self._found("queries", f"{name}, query {row['number']}", "breaks the chain: query or link was changed")
            link = row["chain"]
        try:
            sums = {name: sum(row[name] for row in rows) for name in ("rows", "tokens", "bytes_up", "bytes_down")}
            sums |= {"level": max((row["level"] for row in rows), default=0), "queries": len(rows)}
            seconds = 0.0
            for row in rows:  # one by one, as `Usage.count` does; `sum` is compensated from Python 3.12 on
                seconds += row["seconds"]
            sums["seconds"] = seconds
        except _ODD as problem:
            self._found("queries", name, f"do not add up: {problem}")
            sums = {}
        return _Attempt(len(rows), str(link), sums)

    def _outcome(
        self, name: str, attempt: Mapping[str, Any], ledger: _Attempt, row: Mapping[str, Any], kept: list[Any]
    ) -> None:
        if any(row[column] != attempt[column] for column in ("run", "task", "split")):
            self._found("outcomes", name, f"is of run {row['run']}, {row['task']}/{row['split']}")
        record, test = cell_record(row["facts"]), self._tests.get(row["test"])
        if self._here is not None and self._data.get(row["run"]) == self._here.name:
            self._other.update(self._here.differs(row["task"], row["split"], row["test"], record.shots_sha256))
        if row["status"] not in MEANING:
            self._found("outcomes", name, f"its status {row['status']!r} does not exist")
        self._sums(name, record, ledger)
        if test is None:
            self._found("outcomes", name, f"its test set {row['test']} is missing")
            return
        mark = mark_of(row["seal"])
        run_seal = self._runs.get(row["run"], {}).get("seal", "")
        seals = [each["seal"] for each in kept]
        if row["seal"] != closing_seal(
            row, run_seal, attempt["seal"], test["seal"], seals, ledger.queries, ledger.last_link, mark
        ):
            self._found(
                "outcomes",
                name,
                "its seal does not match the cell: the outcome was changed, or the ledger's end, predictions, "
                "run or test set were replaced, added or removed",
            )
        self._late += bool(mark)
        self._incumbents(name, record, row, tables.classes_of(test["labels"]), kept)

    def _sums(self, name: str, record: CellRecord, ledger: _Attempt) -> None:
        """Compare the record with the ledger. Uploaded predictions have neither."""
        pairs = {"rows_spent": "rows", "lm_s": "seconds"}
        pairs |= {same: same for same in ("tokens", "bytes_up", "bytes_down", "queries")}
        if record.access != "white-box":  # the level of a reference says that it had the weights
            pairs["level"] = "level"
        for fact, column in pairs.items():
            stored, summed = getattr(record, fact), ledger.sums.get(column)
            if stored != summed:
                self._found("outcomes", name, f"{fact} is {stored}, but its queries add up to {summed}")
        if record.rows_spent > record.rows_total:
            self._found("outcomes", name, f"{record.rows_spent} rows spent of {record.rows_total}")

    def _incumbents(
        self, name: str, record: CellRecord, outcome: Mapping[str, Any], labels: Any, kept: list[Any]
    ) -> None:
        try:
            metric, classes = metric_of(outcome["task"], record), classes_of(outcome["task"], record)
        except InputError as problem:
            self._found("outcomes", name, f"cannot be scored: {problem}")
            return
        scores: dict[float, float] = {}
        for each in kept:
            which = f"{name}, mark {each['mark']}"
            self._sealed(tables.incumbents, which, each)
            if each["answer"] not in self._answers:
                self._found("incumbents", which, f"its answer {each['answer']} is missing")
            if each["mark"] not in MARKS or each["rows"] > each["mark"] * record.rows_total:
                self._found("incumbents", which, f"offered after {each['rows']} of {record.rows_total} rows")
            predicted = tables.classes_of(each["predictions"])
            if len(predicted) != len(labels) or not ((predicted >= 0) & (predicted < classes)).all():
                fact = f"{len(predicted)} predictions for {len(labels)} texts, or a class beyond {classes}"
                self._found("incumbents", which, fact)
                continue
            # The score at the last mark is scikit-learn's, which checks the vectorised metrics of the ranking.
            of = cell_score if each["mark"] == MARKS[-1] else score
            scores[each["mark"]] = float(of(metric, predicted, labels, classes))
        if outcome["status"] in COUNTS and 1.0 not in scores:
            self._found("outcomes", name, f"status {outcome['status']!r} without a final answer that can be scored")
        run = str(outcome["run"])
        entry, place = self._entries.get(run, "?"), (outcome["task"], outcome["split"])
        self._cells.append(Recomputed(run, entry, *place, outcome["status"], scores))

    def _orphans(self) -> None:
        """Report rows that belong to no attempt."""
        for table in (tables.queries, tables.outcomes, tables.incumbents):
            count = self._connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            if count != self._rows[table.name]:
                self._found(table.name, f"{count - self._rows[table.name]} rows", "belong to no attempt")
        (version,) = [row["version"] for row in self._select(tables.schema, "version")]
        wanted = tables.version_of(sa.inspect(self._connection).get_table_names())
        if version != wanted:
            self._found("schema", "its version", f"{version}, {wanted} expected of these tables")
        self._digest.update(f"{version}".encode())


def _linked(previous: str, row: Mapping[str, Any]) -> str:
    """The next link by `chained`, or the problem that prevents it if the row is damaged."""
    try:
        return chained(previous, row)
    except _ODD as problem:
        return str(problem)
