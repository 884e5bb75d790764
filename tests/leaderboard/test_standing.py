"""Where entries of one list stand: ranks, intervals, what a shorter list says, and designs that carry no ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.standing import Standings, standings
from harness.results.records import CellRecord

LABELS = np.random.default_rng(0).integers(2, size=60)


def entry(name: str, chance: float, seed: int, splits: int = 4) -> Entry:
    """Two tasks, right with this chance."""
    rng = np.random.default_rng(seed)
    cells = []
    for task in ("sst2", "qqp"):
        for split in range(1, splits + 1):
            predicted = np.where(rng.random(60) < chance, LABELS, 1 - LABELS)
            score = float((predicted == LABELS).mean())
            record = CellRecord(sandbox="A")
            cells.append(CellScore(task, split, "ok", score, {}, record, {}, predicted, LABELS))
    return Entry(1, name, name, tuple(cells), 0, {})


def made(*entries: Entry) -> Standings:
    """Their standings."""
    found = standings(sorted(entries, key=lambda e: -e.average))
    assert found is not None
    return found


GOOD, FAIR, POOR = entry("good", 0.95, 1), entry("fair", 0.8, 2), entry("poor", 0.5, 3)


def test_everything_said_of_an_entry_is_about_its_average() -> None:
    """The interval is around it; `behind` is the best one's minus it; the best is behind nobody."""
    found = made(GOOD, FAIR, POOR)
    assert found.names == ("good", "fair", "poor")
    assert found.tasks == ("qqp", "sst2")
    for each in (GOOD, FAIR, POOR):
        standing = found.entries[each.name]
        assert standing.average.value == pytest.approx(each.average)
        assert standing.average.low < each.average < standing.average.high
    assert found.entries["good"].behind is None
    behind = found.entries["poor"].behind
    assert behind is not None
    assert behind.difference.value == pytest.approx(GOOD.average - POOR.average)
    assert [found.entries[name].rank for name in found.names] == [1, 2, 3]
    assert [(each.rank_low, each.rank_high) for each in found.entries.values()] == [(1, 1), (2, 2), (3, 3)]
    assert found.first == ("good",)


def test_against_all_others_turns_around() -> None:
    """An entry minus each other; the same difference and the same p from the other side."""
    found = made(GOOD, FAIR, POOR)
    forth, back = found.against("good")["poor"], found.against("poor")["good"]
    assert forth.p == back.p
    assert forth.difference.low == pytest.approx(-back.difference.high)
    assert list(found.against("fair")) == ["good", "poor"]
    assert found.entries["poor"].behind == forth


def test_against_on_a_task() -> None:
    """Values are of that task alone."""
    found = made(GOOD, POOR)
    expected = GOOD.task("qqp")[0] - POOR.task("qqp")[0]
    assert found.against("good", "qqp")["poor"].difference.value == pytest.approx(expected)


def test_a_shorter_list_is_what_it_would_be_alone() -> None:
    """Ranks, intervals, resolution and power are those of the list without the others."""
    short, alone = made(GOOD, FAIR, POOR).among(("fair", "poor")), made(FAIR, POOR)
    assert short.names == alone.names
    for name in alone.names:
        one, other = short.entries[name], alone.entries[name]
        assert (one.rank, one.rank_low, one.rank_high) == (other.rank, other.rank_low, other.rank_high)
        assert one.average.low == pytest.approx(other.average.low)
    assert short.resolution == pytest.approx(alone.resolution)
    assert short.power is not None
    assert alone.power is not None
    assert short.power.error == pytest.approx(alone.power.error)


def test_one_entry_is_first_with_nothing_to_compare() -> None:
    """No difference, no resolution, no power, but an interval."""
    found = made(GOOD)
    assert (found.entries["good"].rank, found.entries["good"].behind, found.resolution) == (1, None, None)
    assert found.against("good") == {}
    assert found.power is None


def test_a_design_that_shows_too_little_gives_intervals_alone() -> None:
    """Three splits of two tasks are four degrees of freedom; with four splits there are six, and ranks."""
    few = [entry("good", 0.95, 1, splits=3), entry("poor", 0.5, 3, splits=3)]
    found = made(*few)
    assert not found.ranked
    assert [(each.rank, each.rank_low, each.rank_high) for each in found.entries.values()] == [(None, None, None)] * 2
    assert found.first == ()
    assert found.power is not None
    assert not found.power.ranked
    assert found.entries["poor"].average.low < found.entries["poor"].average.high
    assert made(GOOD, POOR).ranked


def test_without_predictions_there_are_no_standings() -> None:
    """Nor without entries."""
    assert standings([]) is None
    assert standings([Entry(1, "a", "a", (CellScore("sst2", 1, "ok", 0.5, {}, CellRecord()),), 0, {})]) is None


def test_the_order_of_cells_does_not_matter() -> None:
    """Splits are paired by number, not by position."""
    turned = Entry(1, "fair", "fair", tuple(reversed(FAIR.cells)), 0, {})
    assert made(GOOD, turned).entries == made(GOOD, FAIR).entries


def test_copies_of_one_entry_tell_nothing_of_leads() -> None:
    """Two teams with the same entry tie, and no lead is said to be seen."""
    found = made(GOOD, replace(GOOD, name="copy"))
    assert found.pairs.ranks().tolist() == [1, 1]
    assert found.pairs.compare(0, 1).p == 1
    assert found.power is None
    assert made(GOOD, FAIR).power is not None
