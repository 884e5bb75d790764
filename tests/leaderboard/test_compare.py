"""Two entries side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key
from rich.console import Console

from harness.errors import InputError
from harness.leaderboard.compare import compare, comparison_record, comparison_table
from harness.leaderboard.rank import rank
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = np.array([0, 1, 1, 0, 1, 0, 1, 1])
FACTS = {
    "rows_spent": 64, "train_rows": 32, "calls_total": 2, "tuning_s": 30.0, "level": 1, "tokens": 7, "bytes_up": 5,
    "bytes_down": 6, "lm_s": 0.25, "sandbox": "process",
}  # fmt: skip


@pytest.fixture
def store() -> Iterator[Store]:
    """A database in memory."""
    made = Store("sqlite://")
    yield made
    made.close()


def add(store: Store, entry: str, wrong: dict[int, list[int]], **identity: Any) -> None:
    """A run on sst2 that gets these texts of each split wrong."""
    run = store.open_run(key(entry, **identity), {"packages": {"torch": "1"}})
    for split, texts in wrong.items():
        predicted = np.where(np.isin(np.arange(8), texts), 1 - LABELS, LABELS)
        store.begin(run, "sst2", split).finish(
            "ok", CellRecord(**FACTS), "t", LABELS, [KeptAnswer(1.0, 1, b"a", predicted)]
        )


def test_differences_are_by_task_split_and_text(store: Store) -> None:
    """First minus second; texts that only one of them gets right are counted."""
    add(store, "a", {1: [0], 2: [0, 1]})
    add(store, "b", {1: [1, 2, 3], 2: [0, 1]})
    found = compare(rank(store, "tiny"), "a", "b")
    (task,) = found.tasks
    assert task.task == "sst2"
    assert [(s.split, s.first, s.second) for s in task.splits] == [(1, 7 / 8, 5 / 8), (2, 6 / 8, 6 / 8)]
    assert [(s.first_alone, s.second_alone) for s in task.splits] == [(3, 1), (0, 0)]
    assert found.average.value == task.difference.value == pytest.approx(1 / 8)
    assert task.difference.low <= task.difference.value <= task.difference.high


def test_the_other_way_round_is_the_negative(store: Store) -> None:
    """Intervals included."""
    add(store, "a", {1: [0], 2: [0, 1]})
    add(store, "b", {1: [1, 2, 3], 2: [0, 1]})
    ranking = rank(store, "tiny")
    one, other = compare(ranking, "a", "b").average, compare(ranking, "b", "a").average
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_an_entry_does_not_differ_from_itself(store: Store) -> None:
    """Not by a hair."""
    add(store, "a", {1: [0]})
    average = compare(rank(store, "tiny"), "a", "a").average
    assert (average.value, average.low, average.high) == (0, 0, 0)


def test_the_table_and_the_record_say_the_same(store: Store) -> None:
    """Names from submissions are shown as they are."""
    add(store, "a[red]", {1: [0]})
    add(store, "b", {1: [0, 1]})
    found = compare(rank(store, "tiny"), "a[red]", "b")
    plain = Console(width=100)
    with plain.capture() as shown:
        plain.print(comparison_table(found))
    lines = shown.get().splitlines()
    assert lines[0].startswith("a[red] minus b")
    assert any(line.split()[:3] == ["split", "1", "+12.5"] for line in lines)
    assert max(map(len, lines)) <= 100
    record = comparison_record(found)
    assert record["tasks"][0]["splits"][0]["first_alone"] == 1


def test_what_cannot_be_compared_is_refused_with_the_reason(store: Store) -> None:
    """Unknown, incomplete, in another division."""
    add(store, "a", {1: [0], 2: [0]})
    add(store, "part", {1: [0]})
    add(store, "outside", {1: [0], 2: [0]}, external="more data")
    ranking = rank(store, "tiny")
    with pytest.raises(InputError, match="no entry 'c'"):
        compare(ranking, "a", "c")
    with pytest.raises(InputError, match="lacks 1 cells"):
        compare(ranking, "a", "part")
    with pytest.raises(InputError, match="different divisions"):
        compare(ranking, "a", "outside")
