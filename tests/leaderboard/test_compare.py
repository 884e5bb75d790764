"""Two entries side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key
from rich.console import Console

from harness.errors import InputError
from harness.leaderboard.compare import (
    Difference,
    compare,
    comparison_record,
    comparison_rows,
    comparison_table,
    shown_p,
    verdict,
)
from harness.leaderboard.exports import tidy_cells
from harness.leaderboard.rank import rank
from harness.leaderboard.stats import Interval
from harness.leaderboard.ties import Comparison
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
    facts = FACTS | ({"sandbox": identity.pop("sandbox")} if "sandbox" in identity else {})
    run = store.open_run(key(entry, **identity), {"packages": {"torch": "1"}})
    for split, texts in wrong.items():
        predicted = np.where(np.isin(np.arange(8), texts), 1 - LABELS, LABELS)
        store.begin(run, "sst2", split).finish(
            "ok", CellRecord(**facts), "t", LABELS, [KeptAnswer(1.0, 1, b"a", predicted)]
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
    one, other = found.average.difference, task.found.difference
    assert one.value == other.value == pytest.approx(1 / 8)
    assert one.low < one.value < one.high
    assert found.average.p == task.found.p


def test_the_other_way_round_is_the_negative(store: Store) -> None:
    """This includes the intervals."""
    add(store, "a", {1: [0], 2: [0, 1]})
    add(store, "b", {1: [1, 2, 3], 2: [0, 1]})
    ranking = rank(store, "tiny")
    one, other = (compare(ranking, *names).average.difference for names in (("a", "b"), ("b", "a")))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_an_entry_does_not_differ_from_itself(store: Store) -> None:
    """All differences are exactly 0."""
    add(store, "a", {1: [0]})
    average = compare(rank(store, "tiny"), "a", "a").average.difference
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
    rows = comparison_rows(found)
    assert [row["task"] for row in rows] == ["average", "sst2"]
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows)
    assert [row["told_apart"] for row in rows] == [not found.average.tied, not found.tasks[0].found.tied]
    record = comparison_record(found)
    assert record["tasks"][0]["splits"][0]["first_alone"] == 1
    assert record["adjustment"] == "Tukey's range for all 1 pairs of 2 entries"
    said = " ".join(shown.get().split())
    assert "intervals and p: simultaneous, by Tukey's range for all 1 pairs of 2 entries" in said
    assert "no order is stated" in said


SPLITS = range(1, 8)
"""Seven of one task are six degrees of freedom: enough for ranks."""


def test_what_is_said_follows_the_ranks(store: Store) -> None:
    """Two that were told apart, and two that were not: in words, in p and in ranks the same."""
    add(store, "good", {split: [split % 2] for split in SPLITS})
    add(store, "good too", {split: [(split + 1) % 2] for split in SPLITS})
    add(store, "poor", {split: [0, 2, 3, 4, 5, split % 2 + 6] for split in SPLITS})
    ranking = rank(store, "tiny")
    (division,) = ranking.divisions
    found = ranking.standings(division)
    assert found is not None
    assert [found.entries[name].rank for name in ("good", "good too", "poor")] == [1, 1, 3]
    apart, open_ = compare(ranking, "poor", "good"), compare(ranking, "good", "good too")
    assert apart.ranks == (3, 1)
    assert apart.average == found.against("poor")["good"]
    assert apart.average.p <= 0.05 < open_.average.p
    assert verdict(apart).startswith("good is better than poor on average (adjusted p")
    assert verdict(open_).startswith("cannot be told apart on average (adjusted p")


def test_ranks_that_differ_through_others_are_explained() -> None:
    """The middle one was told apart from neither."""
    tied = Comparison(Interval(0.01, -0.01, 0.03), 0.4, 3)
    said = verdict(Difference("b", "c", tied, (), (1, 3)))
    assert said.startswith("cannot be told apart on average (adjusted p 0.400): the order of b and c is open")
    assert said.endswith("their ranks, 1 and 3, differ because one of them was told apart from somebody else")


@pytest.mark.parametrize(("p", "shown"), [(0.0004, "< 0.001"), (0.05, "0.050"), (0.0501, "> 0.05"), (0.3, "0.300")])
def test_a_p_value_stays_on_its_side(p: float, shown: str) -> None:
    assert shown_p(p) == shown


def test_what_cannot_be_compared_is_refused_with_the_reason(store: Store) -> None:
    """Unknown, incomplete, in another division."""
    add(store, "a", {1: [0], 2: [0]})
    add(store, "part", {1: [0]})
    add(store, "outside", {1: [0], 2: [0]}, external="more data")
    add(store, "trained", {1: [0], 2: [0]}, access="white-box")
    ranking = rank(store, "tiny")
    with pytest.raises(InputError, match="no entry 'c'"):
        compare(ranking, "a", "c")
    with pytest.raises(InputError, match="lacks 1 cells"):
        compare(ranking, "a", "part")
    with pytest.raises(InputError, match="different divisions"):
        compare(ranking, "a", "outside")
    with pytest.raises(InputError, match="trained is a white-box reference, which is never ranked and not compared"):
        compare(ranking, "a", "trained")


def test_entries_without_isolation_are_told_so_and_compared_where_that_is_allowed(store: Store) -> None:
    """They are in one division, which has no ranks; nobody is told that it is another one."""
    for entry, wrong in (("a", {1: [0], 2: [0]}), ("b", {1: [1], 2: [2]})):
        add(store, entry, wrong, sandbox="0")
    with pytest.raises(InputError, match=r"a and b ran without isolation .* --allow-unsandboxed"):
        compare(rank(store, "tiny"), "a", "b")
    assert compare(rank(store, "tiny", allow_unsandboxed=True), "a", "b").average.difference.value == 0


def test_entries_are_compared_in_the_division_where_both_are(store: Store) -> None:
    """One of them has a complete run on the device that ranks as well; the other one has none."""
    add(store, "a", {1: [0], 2: [0]})
    add(store, "c", {1: [0], 2: [0]})
    for entry, wrong in (("a", {1: [0], 2: [0]}), ("b", {1: [1, 2], 2: [1, 2]})):
        add(store, entry, wrong, device="NVIDIA H200")
    ranking = rank(store, "tiny", ranks=lambda device: device == "cpu")
    assert compare(ranking, "a", "b").average.difference.value == pytest.approx(1 / 8)


def test_of_two_outputs_the_better_one_counts(store: Store) -> None:
    """On a task that is answered by text nothing is right or wrong, and a score of 0 is no hit."""
    for entry, scores in (("a", [0, 50, 70, 0]), ("b", [0, 60, 10, 30])):
        run = store.open_run(key(entry), {"packages": {"torch": "1"}})
        record = CellRecord(**FACTS | {"metric": "chrf"})
        kept = KeptAnswer(1.0, 1, b"a", np.array(scores))
        store.begin(run, "written", 1).finish("ok", record, "t", np.zeros(4, dtype=np.int64), [kept])
    ranking = rank(store, "tiny")
    found = compare(ranking, "a", "b")
    ((split,),) = (task.splits for task in found.tasks)
    assert (split.first_alone, split.second_alone) == (1, 2)
    with (plain := Console(width=120)).capture() as shown:
        plain.print(comparison_table(found))
    assert "first better" in shown.get()
    assert "right" not in shown.get()
    assert {row["accuracy"] for row in tidy_cells(ranking)} == {None}
