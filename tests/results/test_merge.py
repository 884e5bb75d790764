"""Databases that were filled apart become one, as if they had never been apart."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.errors import StoreError
from harness.leaderboard.rank import rank
from harness.results.at_hand import labels_at_hand
from harness.results.audit import audit
from harness.results.digests import LATE, closing_seal
from harness.results.merge import Merged, merge
from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.store import Attempt, Store
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SST2 = load_task("sst2")
TEST = load_test(SST2, Source("embedded"))
AT_HAND = labels_at_hand([SST2], Source("embedded"))
PLANNED = [("sst2", split) for split in range(1, 5)]


def record(attempt: Attempt, number: int) -> None:
    attempt.record(LedgerRow(8, 100, 10, 20, 0.1, 1, f"{attempt.split}/{number}"))


def finish(attempt: Attempt, queries: int = 4, right: int | None = None) -> bool:
    """End a cell with predictions that its split decides, or with so many right."""
    facts = {
        "rows_spent": 8 * queries, "rows_total": 16 * queries, "train_rows": 8, "calls_total": 2 * queries,
        "queries": queries, "tokens": 100 * queries, "bytes_up": 10 * queries, "bytes_down": 20 * queries,
        "lm_s": sum([0.1] * queries, start=0.0), "level": 1, "access": "black-box", "sandbox": "made up",
        "tuning_s": 1.0, "detail": "",
    }  # fmt: skip
    known = 2 * attempt.split + len(TEST) // 2 if right is None else right
    predicted = np.where(np.arange(len(TEST)) < known, TEST.labels, 1 - TEST.labels)
    kept = [KeptAnswer(mark, int(8 * queries * mark), f"{mark}".encode(), predicted) for mark in (0.5, 1.0)]
    return attempt.finish("ok", CellRecord(**facts), examples_sha256(TEST), TEST.labels, kept)


def cell(store: Store, entry: str, split: int, queries: int = 4, right: int | None = None) -> None:
    attempt = store.begin(store.open_run(key(entry), {}), "sst2", split)
    for number in range(queries):
        record(attempt, number)
    finish(attempt, queries, right)


def ranked(store: Store) -> list[tuple[str, dict[Any, float]]]:
    entries = rank(store, "tiny", "f", PLANNED).entries
    return [(entry.name, {(c.task, c.split): c.score for c in entry.cells}) for entry in entries]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    made = Store(str(tmp_path / "a.db")), Store(str(tmp_path / "b.db"))
    yield made
    for store in made:
        store.close()


@pytest.fixture
def target(place: str) -> Iterator[Store]:
    made = Store(place)
    yield made
    made.close()


def checked(store: Store) -> Any:
    found = audit(store, AT_HAND)
    assert found.findings == ()
    return found


def test_cells_that_ran_apart_rank_as_if_they_had_run_in_one_place(
    parts: tuple[Store, Store], target: Store, tmp_path: Path
) -> None:
    whole = Store(str(tmp_path / "whole.db"))
    for entry in ("one", "two"):
        for _, split in PLANNED:
            cell(parts[split % 2], entry, split)
            cell(whole, entry, split)
    told = [merge(part, target) for part in parts]
    assert told[0] == Merged(parts[0].url, runs=2, attempts=4, queries=16, cells=4, agreeing=0)
    assert (told[1].runs, told[1].cells) == (0, 4)
    assert ranked(target) == ranked(whole)
    assert len(ranked(target)) == 2
    found = checked(target)
    assert (len(found.cells), found.unfinished, found.test_sets_at_hand) == (8, 0, 1)
    for part in parts:
        run = part.runs()[0].id
        for there in part.cells(run):
            (here,) = [each for each in target.cells(run) if each.split == there.split]
            assert (here.status, here.record, here.finished, here.rows) == (
                there.status, there.record, there.finished, there.rows,
            )  # fmt: skip
            assert here.predictions.keys() == there.predictions.keys()
            assert all((here.predictions[mark] == p).all() for mark, p in there.predictions.items())
            answers = [store.answer(run, "sst2", there.split, 0.5) for store in (part, target)]
            assert answers == [b"0.5"] * 2
            ledgers = [store.ledger(each.attempt) for store, each in ((part, there), (target, here))]
            assert ledgers[0] == ledgers[1]
    whole.close()


def test_merging_again_changes_nothing(parts: tuple[Store, Store], target: Store) -> None:
    cell(parts[0], "one", 1)
    merge(parts[0], target)
    before = checked(target).digest
    assert merge(parts[0], target) == Merged(parts[0].url, 0, 0, 0, 0, 0)
    assert checked(target).digest == before


def test_merging_later_adds_what_has_come_since(parts: tuple[Store, Store], target: Store) -> None:
    run = parts[0].open_run(key(), {})
    attempt = parts[0].begin(run, "sst2", 1)
    for number in range(4):
        record(attempt, number)
        told = merge(parts[0], target)
        assert (told.attempts, told.queries, told.cells) == (int(number == 0), 1, 0)
    assert checked(target).unfinished == 1
    assert finish(attempt)
    assert merge(parts[0], target).cells == 1
    assert checked(target).unfinished == 0
    assert len(target.attempts(run)) == 1


def test_an_older_copy_of_a_source_takes_nothing_away(parts: tuple[Store, Store], target: Store) -> None:
    run = parts[0].open_run(key(), {})
    attempt = parts[0].begin(run, "sst2", 1)
    record(attempt, 0)
    merge(parts[0], parts[1])  # the older copy
    for number in range(1, 4):
        record(attempt, number)
    finish(attempt)
    merge(parts[0], target)
    before = checked(target).digest
    assert merge(parts[1], target) == Merged(parts[1].url, 0, 0, 0, 0, 0)
    assert checked(target).digest == before


def test_a_cell_that_ended_the_same_way_twice_counts_once(parts: tuple[Store, Store], target: Store) -> None:
    for part in parts:
        cell(part, "one", 1)
        merge(part, target)
    (run,) = [found.id for found in target.runs()]
    assert len(target.cells(run)) == 1
    found = checked(target)
    assert (found.rows["attempts"], found.unfinished) == (2, 1)
    assert merge(parts[1], target) == Merged(parts[1].url, 0, 0, 0, 0, agreeing=1)


@pytest.mark.parametrize(("queries", "right"), [(4, 7), (3, None)])
def test_a_cell_that_ended_differently_is_named_and_nothing_of_its_source_is_merged(
    parts: tuple[Store, Store], target: Store, queries: int, right: int | None
) -> None:
    cell(parts[0], "one", 4)
    merge(parts[0], target)
    before = checked(target).digest
    cell(parts[1], "another", 1)
    cell(parts[1], "one", 3)
    cell(parts[1], "one", 4, queries, right)
    run = key("one").id
    with pytest.raises(StoreError, match=f"contradict each other.*run {run}, sst2/4 ended differently") as problem:
        merge(parts[1], target)
    assert "sst2/3" not in str(problem.value)
    assert checked(target).digest == before
    assert [found.id for found in target.runs()] == [run]


def test_a_source_that_its_audit_finds_changed_is_refused(
    parts: tuple[Store, Store], target: Store, tmp_path: Path
) -> None:
    cell(parts[0], "one", 1)
    with closing(sqlite3.connect(tmp_path / "a.db")) as raw:
        raw.execute("update queries set rows = 7 where number = 2")
        raw.commit()
    with pytest.raises(StoreError, match=r"its audit has 2 findings, and nothing was merged: queries: .*query 2"):
        merge(parts[0], target)
    assert target.runs() == []


def test_a_database_is_not_merged_into_itself(target: Store, place: str, tmp_path: Path) -> None:
    again = Store(place)
    with pytest.raises(StoreError, match="are the same database"):
        merge(again, target)
    again.close()
    if "://" not in place:
        link = tmp_path / "link.db"
        link.symlink_to(place)
        other = Store(f"sqlite:///{link}")
        with pytest.raises(StoreError, match="are the same database"):
            merge(other, target)
        other.close()


def test_a_killed_merge_leaves_nothing(
    parts: tuple[Store, Store], target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.results import merge as module

    cell(parts[0], "one", 1)
    cell(parts[0], "one", 2)
    sealed = []

    def once(*arguments: Any) -> str:
        sealed.append(arguments)
        if len(sealed) == 2:
            raise KeyboardInterrupt
        return closing_seal(*arguments)

    monkeypatch.setattr(module, "closing_seal", once)
    with pytest.raises(KeyboardInterrupt):
        merge(parts[0], target)
    assert target.runs() == []
    monkeypatch.undo()
    assert merge(parts[0], target).cells == 2
    checked(target)


def test_what_was_sealed_late_stays_late(parts: tuple[Store, Store], target: Store, tmp_path: Path) -> None:
    cell(parts[0], "one", 1)
    with closing(sqlite3.connect(tmp_path / "a.db")) as raw:
        raw.row_factory = sqlite3.Row

        def only(query: str) -> Any:
            return raw.execute(query).fetchone()

        outcome = dict(only("select * from outcomes"))
        seals = [row["seal"] for row in raw.execute("select seal from incumbents order by mark")]
        late = closing_seal(
            outcome, only("select seal from runs")[0], only("select seal from attempts")[0],
            only("select seal from test_sets")[0], seals, 4,
            only("select chain from queries order by number desc")[0], LATE,
        )  # fmt: skip
        raw.execute("update outcomes set seal = ?", (late,))
        raw.commit()
    assert checked(parts[0]).late == 1
    merge(parts[0], target)
    assert checked(target).late == 1


def test_there_and_back_again_is_the_same_database(parts: tuple[Store, Store], target: Store) -> None:
    """Attempts that come over in order keep their numbers, and with them every chain and seal."""
    for split in (1, 2):
        cell(parts[0], "one", split)
        parts[0].begin(parts[0].open_run(key("two"), {}), "sst2", split)
    merge(parts[0], target)
    merge(target, parts[1])
    assert checked(parts[1]).digest == checked(target).digest == checked(parts[0]).digest


def again(store: Store, name: str, *, status: str = "ok") -> None:
    """Run the failed cell sst2/1 of an entry once more."""
    run = store.open_run(key(name), {})
    attempt = store.begin(run, "sst2", 1, store.failed(run)["sst2", 1])
    if status != "ok":
        fail(attempt)
        return
    record(attempt, 0)
    finish(attempt, 1)


def fail(attempt: Attempt) -> None:
    attempt.finish("crashed", CellRecord(rows_total=8, train_rows=8), examples_sha256(TEST), TEST.labels, [])


@pytest.mark.parametrize("first", [0, 1])
def test_an_outcome_that_replaced_a_failure_stands_in_whatever_order_copies_are_merged(
    tmp_path: Path, target: Store, first: int
) -> None:
    """One copy of the database was made before `--again`, the other one after it had been given twice."""
    before = Store(str(tmp_path / "before.db"))
    fail(before.begin(before.open_run(key("one"), {}), "sst2", 1))
    before.close()
    shutil.copy(tmp_path / "before.db", tmp_path / "after.db")
    copies = [Store(str(tmp_path / f"{name}.db")) for name in ("before", "after")]
    again(copies[1], "one", status="crashed")
    again(copies[1], "one")
    for copy in (copies[first], copies[1 - first], copies[first]):
        merge(copy, target)
    (run,) = target.runs()
    (stored,) = target.cells(run.id)
    assert (stored.status, stored.record.replaced) == ("ok", ("crashed", "crashed"))
    assert len(target.attempts(run.id)) == 3
    assert target.failed(run.id) == {}
    checked(target)
    for copy in copies:
        copy.close()
