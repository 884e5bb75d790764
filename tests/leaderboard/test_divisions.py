"""What is compared with what: divisions and access ceilings, from stored runs to ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.leaderboard.divisions import ACCESS, ceilings, divisions, level_name
from harness.leaderboard.entries import Division
from harness.leaderboard.rank import Ranking, rank
from harness.leaderboard.table import records
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = np.array([0, 1] * 20)
FACTS: dict[str, Any] = {
    "rows_spent": 64, "rows_total": 320, "calls_total": 10, "train_rows": 32, "tuning_s": 30.0, "level": 1, "tokens": 7,
    "bytes_up": 5, "bytes_down": 6, "lm_s": 0.25, "sandbox": "A",
}  # fmt: skip
PURE, OUTSIDE = Division("", "A", "cpu"), Division("p0 of mnli", "A", "cpu")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty database."""
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def add(
    store: Store, entry: str, right: int, splits: int = 7, facts: dict[str, Any] | None = None, **more: Any
) -> None:
    """A run on sst2 that predicts so many of 40 labels right on each split; seven splits carry ranks."""
    run = store.open_run(key(entry, **more), {"packages": {}})
    predicted = np.where(np.arange(40) < right, LABELS, 1 - LABELS)
    for split in range(1, splits + 1):
        kept = [KeptAnswer(1.0, 32, b"a", predicted)]
        store.begin(run, "sst2", split).finish("ok", CellRecord(**FACTS | (facts or {})), "t", LABELS, kept)


def places(ranking: Ranking, division: Division) -> list[tuple[str, int | None]]:
    """Names and shared ranks of a division."""
    found = ranking.standings(division)
    return [] if found is None else [(name, each.rank) for name, each in found.entries.items()]


def test_external_runs_have_a_list_of_their_own(store: Store) -> None:
    """The best run used outside data: it is first there and not in the pure list; nobody else has to have its cells."""
    add(store, "a", 30)
    add(store, "b", 20)
    add(store, "a", 40, splits=8, external="p0 of mnli")
    ranking = rank(store, "tiny")
    assert ranking.divisions == (PURE, OUTSIDE)
    assert places(ranking, PURE) == [("a", 1), ("b", 2)]
    assert places(ranking, OUTSIDE) == [("a", 1)]
    assert [(e.name, e.rank, e.missing) for e in ranking.entries] == [("a", 1, 0), ("b", 2, 0)]


def test_sandbox_tiers_are_not_compared(store: Store) -> None:
    """Each tier has ranks from 1 on. The tier with more complete entries is the main division."""
    add(store, "weak", 40, facts={"sandbox": "B"})
    for name, right in (("a", 30), ("b", 20)):
        add(store, name, right)
    ranking = rank(store, "tiny")
    assert [(e.name, e.rank, e.division.sandbox) for e in ranking.entries] == [
        ("a", 1, "A"), ("b", 2, "A"), ("weak", 1, "B"),
    ]  # fmt: skip
    assert [d.sandbox for d in ranking.divisions] == ["A", "B"]


def test_runs_without_isolation_are_listed_and_ranked_only_if_that_is_allowed(store: Store) -> None:
    """They come after ranked entries and before incomplete ones. If allowed, they are a division of their own."""
    add(store, "isolated", 20)
    for name, right in (("second", 30), ("first", 40)):
        add(store, name, right, facts={"sandbox": "0"})
    add(store, "part", 40, splits=1)
    listed, allowed = rank(store, "tiny"), rank(store, "tiny", allow_unsandboxed=True)
    assert [(e.name, e.rank) for e in listed.entries] == [
        ("isolated", 1), ("first", None), ("second", None), ("part", None),
    ]  # fmt: skip
    assert listed.unsandboxed == 2
    assert places(listed, Division("", "0", "cpu")) == []
    assert listed.standing(listed.entries[1]) is None
    assert [(e.name, e.rank) for e in allowed.entries] == [
        ("isolated", 1), ("first", 1), ("second", 2), ("part", None),
    ]  # fmt: skip
    assert allowed.divisions == (PURE, Division("", "0", "cpu"))
    assert allowed.unsandboxed == 0
    assert places(allowed, allowed.divisions[1]) == [("first", 1), ("second", 2)]


def test_one_cell_without_isolation_is_enough(store: Store) -> None:
    """The run was started with isolation and continued without it."""
    run = store.open_run(key("mixed"), {"packages": {}})
    for split, tier in ((1, "A"), (2, "0")):
        kept = [KeptAnswer(1.0, 32, b"a", LABELS)]
        store.begin(run, "sst2", split).finish("ok", CellRecord(**FACTS | {"sandbox": tier}), "t", LABELS, kept)
    ranking = rank(store, "tiny")
    assert [(e.name, e.rank, e.division.sandbox) for e in ranking.entries] == [("mixed", None, "0 A")]


def test_runs_made_before_there_were_tiers_are_ranked_among_themselves(store: Store) -> None:
    """Their cells say `process`."""
    for name, right in (("a", 30), ("b", 20)):
        add(store, name, right, facts={"sandbox": "process"})
    add(store, "new", 10)
    ranking = rank(store, "tiny")
    assert ranking.divisions == (Division("", "process", "cpu"), PURE)
    assert [(e.name, e.rank) for e in ranking.entries] == [("a", 1), ("b", 2), ("new", 1)]


def test_another_device_is_another_division(store: Store) -> None:
    """It comes after those of the device that ranks, however many they are."""
    add(store, "a", 20)
    for name in ("a", "b"):
        add(store, name, 40, device="NVIDIA H200")
    ranking = rank(store, "tiny", ranks=lambda device: device == "cpu")
    assert ranking.divisions == (PURE, Division("", "A", "NVIDIA H200"))
    assert places(ranking, PURE) == [("a", 1)]
    assert places(ranking, ranking.divisions[1]) == [("a", 1), ("b", 1)]


def test_a_lower_ceiling_ranks_those_below_it_anew(store: Store) -> None:
    """In the list up to input prompts the second entry is first. The whole list does not change."""
    add(store, "deep", 40, facts={"level": 2})
    add(store, "input", 30)
    add(store, "text", 20, facts={"level": 0})
    ranking = rank(store, "tiny")
    assert ceilings(ranking.entries) == (0, 1, 2)
    low = ranking.standings(PURE, 1)
    assert low is not None
    assert [(name, each.rank) for name, each in low.entries.items()] == [("input", 1), ("text", 2)]
    assert low.entries["input"].average == ranking.standing(ranking.entries[1]).average  # type: ignore[union-attr]
    assert places(ranking, PURE) == [("deep", 1), ("input", 2), ("text", 3)]
    assert ranking.standings(PURE, 2) is not None
    assert [entry.name for entry in ranking.complete(PURE, 0)] == ["text"]


def test_changes_of_weights_are_above_all_other_levels(store: Store) -> None:
    """The lists up to hidden states hold no entry that changed a weight."""
    add(store, "weights", 40, facts={"level": 5})
    add(store, "states", 30, facts={"level": 3})
    add(store, "lora", 40, facts={"level": 4, "sandbox": "none"}, access="white-box")
    ranking = rank(store, "tiny")
    assert ceilings(ranking.entries) == (3, 5)
    low = ranking.standings(PURE, 3)
    assert low is not None
    assert list(low.entries) == ["states"]
    assert places(ranking, PURE) == [("weights", 1), ("states", 2)]
    csv = {record["submission"]: record["access"] for record in records(ranking)}
    assert csv == {"weights": "W", "states": "L3", "lora": "white-box"}


def test_references_make_no_division_unless_alone(store: Store) -> None:
    """They are listed with the main one, and ranked in none."""
    add(store, "lora", 40, facts={"level": 4, "sandbox": "none"}, access="white-box")
    alone = rank(store, "tiny")
    assert [d.sandbox for d in alone.divisions] == ["none"]
    assert alone.standings(alone.divisions[0]) is None
    assert alone.standing(alone.entries[0]) is None
    add(store, "a", 20)
    both = rank(store, "tiny")
    assert both.divisions == (PURE,)
    assert ceilings(both.entries) == (1,)


def test_an_incomplete_entry_has_no_rank(store: Store) -> None:
    """It changes nothing about the others, either."""
    add(store, "a", 30)
    add(store, "part", 40, splits=1)
    ranking = rank(store, "tiny")
    assert places(ranking, PURE) == [("a", 1)]
    assert ranking.standing(ranking.entries[1]) is None
    assert ranking.standings(Division("x", "A", "cpu")) is None


def test_nothing_is_compared_before_it_is_asked_for(store: Store) -> None:
    """And once only."""
    add(store, "a", 30)
    ranking = rank(store, "tiny")
    assert "_standings" not in vars(ranking)
    assert ranking.standings(PURE) is ranking.standings(PURE)


def test_titles_say_what_a_division_is() -> None:
    """Outside data, device, sandbox."""
    assert PURE.title == "pure / cpu / sandbox A"
    assert OUTSIDE.title == "external data p0 of mnli / cpu / sandbox A"
    assert Division().title == "pure"
    assert divisions([]) == ()
    assert len(ACCESS) == 6
    assert [level_name(level) for level in range(6)] == ["L0", "L1", "L2", "L3", "white-box", "W"]
