"""The second list: areas as scores, with intervals and ranks by the same rule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.leaderboard.anytime import curve
from harness.leaderboard.efficiency import efficiency_standings
from harness.leaderboard.entries import CellScore, Entry
from harness.results.records import CellRecord

LABELS = np.random.default_rng(0).integers(2, size=80)
BARE = {"sst2": 0.5, "qqp": 0.6}
RECORD = CellRecord(calls_total=100, train_rows=32, rows_total=3_200, rows_spent=3_200, sandbox="A")


def cell(
    task: str, split: int, answers: list[tuple[float, int, float]], seed: int = 0, status: str = "ok"
) -> CellScore:
    """Answers as (mark, rows, chance to be right)."""
    rng = np.random.default_rng([seed, split, len(task)])
    said = {mark: np.where(rng.random(80) < chance, LABELS, 1 - LABELS) for mark, _, chance in answers}
    scores = {mark: float((each == LABELS).mean()) for mark, each in said.items()}
    rows = {mark: spent for mark, spent, _ in answers}
    final = said[1.0]
    return CellScore(task, split, status, scores[1.0], dict(scores), RECORD, rows, final, LABELS, said)


def entry(name: str, answers: list[tuple[float, int, float]], seed: int) -> Entry:
    """Five splits of two tasks."""
    cells = [cell(task, split, answers, seed) for task in BARE for split in range(1, 6)]
    return Entry(1, name, name, tuple(cells), 0, {})


QUICK = entry("quick", [(1 / 16, 64, 0.8), (1.0, 64, 0.8)], 1)
SLOW = entry("slow", [(1 / 16, 64, 0.55), (1.0, 3_000, 0.95)], 2)


def test_a_cells_efficiency_is_its_area() -> None:
    """Two calls of a hundred at the bare template's score, the rest at that of the only answer."""
    found = efficiency_standings([QUICK], BARE)
    assert found is not None
    by_task = [np.mean([curve(c).area(BARE[t]) for c in QUICK.cells if c.task == t]) for t in ("qqp", "sst2")]
    assert found.scores.score(0).value == pytest.approx(np.mean(by_task))
    before = np.log10(2) / 2
    score = QUICK.task("sst2")[0]
    assert found.scores.score(0, 1).value == pytest.approx(before * 0.5 + (1 - before) * score)


def test_who_is_soon_good_is_ahead_of_who_is_better_in_the_end() -> None:
    """By average the other way round; both ranks are told apart."""
    assert SLOW.average > QUICK.average
    found = efficiency_standings([SLOW, QUICK], BARE)
    assert found is not None
    assert found.names == ("quick", "slow")
    assert [each.rank for each in found.entries.values()] == [1, 2]


def test_the_bare_template_alone_has_its_score_without_any_doubt() -> None:
    """No answer came before the end of the budget: what is taken as known has no noise."""
    late = entry("late", [(1.0, 3_200, 0.9)], 3)
    found = efficiency_standings([late], BARE)
    assert found is not None
    assert found.scores.score(0).value == pytest.approx(0.55)
    assert found.scores.score(0).high - found.scores.score(0).low == pytest.approx(0)


def test_the_noise_of_items_is_that_of_the_area() -> None:
    """Of one cell: the sum of squared influences of the weighted answers."""
    (task,) = efficiency_standings([Entry(1, "a", "a", SLOW.cells[:1], 0, {})], BARE).scores.tasks  # type: ignore[union-attr]
    weights, first = curve(SLOW.cells[0]).weights(), SLOW.cells[0]
    right = np.stack([first.incumbents[mark] == LABELS for mark in (1 / 16, 1.0)]).astype(float)
    area = weights[1:] @ right
    assert task.items[0, 0] == pytest.approx(((area - area.mean()) ** 2).sum() / (80 * 79))


def test_a_failed_cell_has_its_score_throughout() -> None:
    failed = dataclasses.replace(QUICK.cells[0], status="crashed", rows={}, incumbents={})
    found = efficiency_standings([Entry(1, "a", "a", (failed,), 0, {})], BARE)
    assert found is not None
    assert found.scores.score(0).value == pytest.approx(failed.score)


def test_no_list_without_the_bare_template_or_the_answers() -> None:
    assert efficiency_standings([QUICK], None) is None
    assert efficiency_standings([], BARE) is None
    assert efficiency_standings([QUICK], {"sst2": 0.5}) is None
    lost = dataclasses.replace(SLOW.cells[0], incumbents={})
    assert efficiency_standings([Entry(1, "a", "a", (lost,), 0, {})], BARE) is None
