"""What `harness runs` and `harness log` say of cells that have no budget, no answer, or no task that is known here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.errors import InputError
from harness.leaderboard.cell_log import answers_table, cell_records, heading, log_of, queries_table, record
from harness.leaderboard.trials import records, replaced, table, tried
from harness.results.finding import find_run
from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = np.array([0, 1, 1, 0])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "r.db"))
    yield made
    made.close()


def stored(store: Store, facts: CellRecord, status: str = "ok", task: str = "sst2", rows: int = 0, **who: Any) -> str:
    """A run with one cell; its answers predict the labels."""
    run = store.open_run(key(**who), {})
    attempt = store.begin(run, task, 1)
    for _ in range(rows):
        attempt.record(LedgerRow(8, 9, 10, 11, 0.5, 1, "x"))
    kept = [KeptAnswer(1.0, 8 * rows, b"", LABELS)] if status == "ok" else []
    assert attempt.finish(status, facts, "t", LABELS, kept)
    return run


@pytest.mark.parametrize(
    "facts",
    [
        CellRecord(access="predictions"),
        CellRecord(
            access="white-box", note={"loss": float("nan")}, train_rows=8, history=((0, {"dev": float("inf")}),)
        ),
    ],
    ids=["predictions", "white-box"],
)
def test_a_cell_without_a_budget_is_shown_as_one(store: Store, facts: CellRecord) -> None:
    run = stored(store, facts, access=facts.access)
    (each,) = tried(store)
    assert (each.average, each.calls) == (1.0, None)
    log = log_of(store, find_run(store, "entry"), "sst2", 1)
    assert "budget    not metered" in heading(log)
    assert json.loads(json.dumps(record(log), allow_nan=False))["run"] == run
    assert queries_table(log).row_count == 0
    assert answers_table(log).row_count == 1
    assert cell_records(store, log.run)[0]["score"] == 1.0


def test_a_task_that_is_unknown_here_has_no_score_and_all_else(store: Store) -> None:
    stored(store, CellRecord(train_rows=8, rows_total=80, rows_spent=16, calls_total=10), task="elsewhere", rows=2)
    (each,) = tried(store)
    assert (each.average, each.calls, len(each.cells)) == (None, None, 0)
    log = log_of(store, each.run, "elsewhere", 1)
    assert log.score is None
    assert [row["calls_so_far"] for row in record(log)["queries"]] == [1.0, 2.0]
    assert cell_records(store, each.run)[0]["score"] is None


def test_of_many_queries_the_first_and_the_last_are_shown(store: Store) -> None:
    stored(store, CellRecord(train_rows=8, rows_total=800, rows_spent=800, calls_total=100), rows=100)
    log = log_of(store, find_run(store, "entry"), "sst2", 1)
    assert queries_table(log).row_count == 21
    assert queries_table(log, every=True).row_count == 100


def test_trials_are_those_that_replaced_something(store: Store) -> None:
    stored(store, CellRecord(train_rows=8), entry="plain")
    stored(store, CellRecord(train_rows=8), entry="small", modified=("model", "calls"), calls=40)
    stored(store, CellRecord(train_rows=8, detail="Trace\nKeyError: 1"), "crashed", entry="bad[a=1]", track="other")
    assert [each.run.key.entry for each in tried(store)] == ["plain", "small", "bad[a=1]"]
    assert [each.run.key.entry for each in tried(store, trials=True)] == ["small"]
    assert [each.run.key.entry for each in tried(store, track="other")] == ["bad[a=1]"]
    assert [each.run.key.entry for each in tried(store, entry="bad")] == ["bad[a=1]"]
    (small,) = tried(store, trials=True)
    assert replaced(small.run.key) == "model, calls=40"
    rows = records(tried(store))
    assert [row["failed"] for row in rows] == [0, 0, 1]
    assert rows[0]["replaced"] is None
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert table(tried(store), "t").row_count == 3
    assert cell_records(store, find_run(store, "bad[a=1]"))[0]["why"] == "KeyError: 1"


def test_a_cell_that_was_begun_is_told_from_one_that_is_not_there(store: Store) -> None:
    run = store.open_run(key(), {})
    attempt = store.begin(run, "sst2", 1)
    attempt.record(LedgerRow(8, 9, 10, 11, 0.5, 1, "x"))
    with pytest.raises(InputError, match=r"sst2/1 of run .* is not finished: 8 rows are answered since"):
        log_of(store, find_run(store, "entry"), "sst2", 1)
    with pytest.raises(InputError, match=r"has no cell sst2/2.*no cell of it is finished"):
        log_of(store, find_run(store, "entry"), "sst2", 2)
    assert tried(store)[0].unfinished == 1


def test_a_run_is_looked_for_on_one_track_if_one_is_named(store: Store) -> None:
    first, second = (store.open_run(key(track=name), {}) for name in ("one", "two"))
    assert find_run(store, "entry", "one").id == first
    assert find_run(store, "entry").id == second
    with pytest.raises(InputError, match=r"track three in .* has no run 'entry'; harness runs"):
        find_run(store, "entry", "three")
