"""`harness merge`: bring results databases that were filled separately together in one.

Each source is audited first and then comes over in one transaction, whole or not at all. Attempts get the target's
numbers, so their chains and seals are made anew: over the same facts, in the same way, and late seals stay late. An
attempt is known again by its run, cell and start, so that merging twice adds nothing, and merging later adds what is
new. A cell that was finished in several places counts once: where the outcomes agree the first stays, and the other
is kept as an attempt without one; where they differ the source is refused. An outcome that replaced a failed one
(`harness evaluate --again`) replaces it here, too. Rulings, corrections
and observations come over as they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from harness.errors import StoreError
from harness.results import corrections, observations, rulings, tables
from harness.results.audit import audit_snapshot
from harness.results.digests import chained, closing_seal, first_link, mark_of, row_seal
from harness.results.records import cell_record
from harness.results.store import remove_outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.results.store import Store

_NAMED = 5
"""Number of findings or conflicts that a message lists."""
_PAGE = 100
"""Number of answers in memory at once; each may have tens of megabytes."""
_CELL = ("run", "task", "split")

Row = dict[str, Any]


@dataclass(frozen=True)
class Merged:
    """What was copied from one source."""

    source: str
    runs: int
    attempts: int
    queries: int
    cells: int
    agreeing: int
    """Number of cells that the target already had from another source, with the same result."""
    rulings: int = 0
    corrections: int = 0
    observations: int = 0


def merge(source: Store, target: Store) -> Merged:
    """Copy all facts of one database into another, in one transaction of the target.

    Raises:
        StoreError: both are the same database, the audit of the source has findings, or the two contradict each other.
            The target is then unchanged.
    """
    if source.identity() == target.identity():
        raise StoreError(f"{source.url} and {target.url} are the same database; merge it into another one")
    with source.snapshot() as there:
        findings = audit_snapshot(there).findings
        if findings:
            first = "; ".join(f"{f.table}: {f.row}: {f.fact}" for f in findings[:_NAMED])
            raise StoreError(
                f"{source.url}: its audit has {len(findings)} findings, and nothing was merged: {first}. "
                f"See harness audit --store {source.url}"
            )
        with target.changes() as here:
            return _Merge(there, here, source.url, target.url).run()


class _Merge:
    def __init__(self, there: sa.Connection, here: sa.Connection, source: str, target: str) -> None:
        self._there, self._here, self._source, self._target = there, here, source, target
        self._count: Counter[str] = Counter()
        self._conflicts: list[str] = []

    def run(self) -> Merged:
        for table, facts in (
            (tables.runs, ()),
            (tables.test_sets, ("labels",)),
        ):  # a run's id is a digest
            for row in _rows(self._there, table):
                self._once(table, row, facts)
        self._answers()
        for row in _rows(self._there, tables.attempts):
            self._attempt(row)
        if self._conflicts:
            more = len(self._conflicts) - _NAMED
            raise StoreError(
                f"{self._source} and {self._target} contradict each other, and nothing of the former was merged: "
                f"{'; '.join(self._conflicts[:_NAMED])}{f'; and {more} more' if more > 0 else ''}. "
                "Merge only one of the two, or run these cells again on one machine"
            )
        self._decisions()
        n = self._count
        later = (n["rulings"], n["corrections"], n["observations"])
        return Merged(self._source, n["runs"], n["attempts"], n["queries"], n["cells"], n["agreeing"], *later)

    def _once(self, table: sa.Table, row: Row, facts: tuple[str, ...]) -> None:
        (key,) = table.primary_key.columns
        known = _rows(self._here, table, **{key.name: row[key.name]})
        if not known:
            self._here.execute(table.insert(), row)
            self._count[table.name] += 1
        elif any(known[0][name] != row[name] for name in facts):
            self._conflicts.append(f"{table.name}: {row[key.name]} has another {' and '.join(facts)}")

    def _answers(self) -> None:
        """Copy the answers. Each is named by the digest of its bytes, which the audit has checked."""
        answers = tables.answers.c.sha256
        lacking = sorted(_column(self._there, answers) - _column(self._here, answers))
        for start in range(0, len(lacking), _PAGE):
            page = sa.select(tables.answers).where(answers.in_(lacking[start : start + _PAGE]))
            self._here.execute(tables.answers.insert(), [dict(row) for row in self._there.execute(page).mappings()])

    def _decisions(self) -> None:
        """Copy rulings, corrections and observations that are missing, each named by the digest of itself."""
        known = {each.id for each in rulings.decided(self._here)}
        for ruling in rulings.decided(self._there):
            if ruling.id not in known:
                rulings.insert(self._here, ruling)
                self._count["rulings"] += 1
        known = {each.id for each in corrections.decided(self._here)}
        for correction in corrections.decided(self._there):
            if correction.id not in known:
                corrections.insert(self._here, correction)
                self._count["corrections"] += 1
        known = {observations.id_of(each) for each in observations.decided(self._here)}
        for fact in observations.decided(self._there):
            if observations.id_of(fact) not in known:
                observations.insert(self._here, fact)
                self._count["observations"] += 1

    def _attempt(self, row: Row) -> None:
        """Copy an attempt, or what was added to an attempt since it was last merged."""
        place = {name: row[name] for name in _CELL}
        known = _rows(self._here, tables.attempts, started=row["started"], **place)
        mine = known[0] if known else self._new_attempt(row)
        name = f"run {row['run']}, {row['task']}/{row['split']}"
        outcomes = _rows(self._there, tables.outcomes, attempt=row["attempt"])
        ledger = self._ledger(row, mine, ended=bool(outcomes))
        if ledger is None:
            self._conflicts.append(f"{name}: the attempt started at {row['started']} has other queries")
            return
        if not outcomes:
            return
        result = self._result(self._there, outcomes[0])
        standing = _rows(self._here, tables.outcomes, **place)
        if not standing:
            self._close(outcomes[0], mine, ledger, result)
        elif _replaces(outcomes[0], standing[0]):
            remove_outcome(self._here, standing[0]["attempt"])
            self._close(outcomes[0], mine, ledger, result)
        elif _replaces(standing[0], outcomes[0]):
            self._count["agreeing"] += 1
        elif self._result(self._here, standing[0]) != result:
            self._conflicts.append(f"{name} ended differently: {_told(outcomes[0])} there, {_told(standing[0])} here")
        elif standing[0]["attempt"] != mine["attempt"]:
            self._count["agreeing"] += 1

    def _new_attempt(self, row: Row) -> Row:
        values = {name: value for name, value in row.items() if name not in {"attempt", "seal"}}
        inserted = self._here.execute(tables.attempts.insert().values(seal="", **values)).inserted_primary_key
        assert inserted is not None  # noqa: S101 - the database chose an integer key
        mine = values | {"attempt": int(inserted[0])}
        mine["seal"] = row_seal("attempts", mine)
        number = tables.attempts.c.attempt == mine["attempt"]
        self._here.execute(tables.attempts.update().where(number).values(seal=mine["seal"]))
        self._count["attempts"] += 1
        return mine

    def _ledger(self, row: Row, mine: Row, *, ended: bool) -> tuple[int, str] | None:
        """Copy the queries that are missing, and return how many there are and the last link.

        Returns None if the two ledgers contradict each other: they differ in a query, or an attempt that has ended has
        fewer.
        """
        link = first_link(mine["run"], mine["task"], mine["split"], mine["attempt"])
        theirs = _rows(self._there, tables.queries, attempt=row["attempt"])
        known = _rows(self._here, tables.queries, attempt=mine["attempt"])
        links = []
        for query in theirs:
            link = chained(link, query)
            links.append(link)
        if any(query["chain"] != link for query, link in zip(known, links, strict=False)):
            return None
        added = [
            query | {"attempt": mine["attempt"], "chain": link}
            for query, link in zip(theirs[len(known) :], links[len(known) :], strict=True)
        ]
        if added and _rows(self._here, tables.outcomes, attempt=mine["attempt"]):
            return None  # the attempt ended here with fewer queries
        if ended and len(known) > len(theirs):
            return None
        if added:
            self._here.execute(tables.queries.insert(), added)
            self._count["queries"] += len(added)
        return len(theirs), link

    def _close(self, outcome: Row, mine: Row, ledger: tuple[int, str], result: tuple[Any, ...]) -> None:
        seals = []
        *_, kept = result
        for mark, rows, answer, predictions in kept:
            values = {"mark": mark, "rows": rows, "answer": answer, "predictions": predictions}
            incumbent = values | {"attempt": mine["attempt"]}
            seals.append(row_seal("incumbents", incumbent))
            self._here.execute(tables.incumbents.insert(), incumbent | {"seal": seals[-1]})
        mark = mark_of(outcome["seal"])
        row = {name: value for name, value in outcome.items() if name != "seal"} | {"attempt": mine["attempt"]}
        here = self._here
        parts = (
            tables.seal_of(here, tables.runs, row["run"]),
            mine["seal"],
            tables.seal_of(here, tables.test_sets, row["test"]),
        )
        seal = closing_seal(row, *parts, seals, *ledger, mark)
        self._here.execute(tables.outcomes.insert(), row | {"seal": seal})
        self._count["cells"] += 1

    def _result(self, connection: sa.Connection, outcome: Row) -> tuple[Any, ...]:
        """The part of two outcomes that must be equal: everything that a score is made of, but not times and memory."""
        kept = _rows(connection, tables.incumbents, attempt=outcome["attempt"])
        columns = ("mark", "rows", "answer", "predictions")
        incumbents = sorted(tuple(row[name] for name in columns) for row in kept)
        return outcome["status"], outcome["test"], cell_record(outcome["facts"]).rows_spent, incumbents


def _replaces(one: Row, other: Row) -> bool:
    """Whether the outcome of a cell took the place of another, a failure: its record says how that one ended."""
    before = (*cell_record(other["facts"]).replaced, other["status"])
    return cell_record(one["facts"]).replaced[: len(before)] == before


def _rows(connection: sa.Connection, table: sa.Table, **where: Any) -> list[Row]:
    """Rows, in the order of their keys."""
    query = sa.select(table).where(*(table.c[name] == value for name, value in where.items()))
    return [dict(row) for row in connection.execute(query.order_by(*table.primary_key.columns)).mappings()]


def _column(connection: sa.Connection, column: sa.Column[str]) -> set[str]:
    return set(connection.execute(sa.select(column)).scalars())


def _told(outcome: Mapping[str, Any]) -> str:
    return f"{outcome['status']} after {cell_record(outcome['facts']).rows_spent} rows"
