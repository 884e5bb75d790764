"""Repeats: averaged within a split, and no splits themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import key as run_key

from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.repeats import averaged, common_repeats, repeated
from harness.leaderboard.standing import predictions
from harness.leaderboard.stats import TaskPredictions, scores_of
from harness.results.records import CellRecord, RunKey, run_id

LABELS = np.array([0, 1] * 50)
RNG = np.random.default_rng(0)


def cell(split: int, right: int) -> CellScore:
    """A cell with so many of 100 items right."""
    said = np.where(np.arange(100) < right, LABELS, 1 - LABELS)
    return CellScore("qqp", split, "ok", right / 100, {1.0: right / 100}, CellRecord(), {}, said, LABELS, "accuracy")


def test_a_split_scores_the_mean_of_its_repeats() -> None:
    """Where a repeat lacks a cell, the others count."""
    first, second = averaged([cell(1, 60), cell(2, 80)], [cell(1, 70)], [cell(1, 80)])
    assert first.score == first.anytime[1.0] == pytest.approx(0.7)
    assert first.accuracy == pytest.approx(0.7)
    assert second == cell(2, 80)
    assert common_repeats([[first, second]]) == 3
    assert [each.score for each in first.repeats] == [0.6, 0.7, 0.8]
    assert [np.array_equal(said, second.predicted) for said in repeated(second, 3)] == [True] * 3


def test_entries_with_different_repeats_are_compared() -> None:
    """Observed scores are those of the entries, whoever has how many repeats."""
    cells = averaged([cell(1, 60), cell(2, 80)], [cell(1, 80), cell(2, 90)])
    three = averaged([cell(1, 50), cell(2, 50)], *([cell(1, n), cell(2, n)] for n in (60, 70)))
    entries = [Entry(None, name, name, each, 0, {}) for name, each in (("two", cells), ("three", three))]
    found = predictions("qqp", entries)
    assert found.predicted.shape == (2, 2 * 6, 100)
    assert found.repeats == 6
    scores = scores_of([found])
    np.testing.assert_allclose(scores.observed[0], [entry.average for entry in entries])


def test_repeats_do_not_pass_for_splits() -> None:
    """The same repeat three times gives the interval of one, not a narrower one."""
    said = np.stack([np.where(RNG.random((5, 100)) < p, LABELS, 1 - LABELS) for p in (0.6, 0.8)])
    one = TaskPredictions(said, LABELS, "accuracy", 2)
    three = TaskPredictions(np.repeat(said, 3, axis=1), LABELS, "accuracy", 2, 3)
    first, second = (scores_of([task]).differences() for task in (one, three))
    np.testing.assert_allclose(first.errors, second.errors)
    assert first.errors[0, 1] > 0


def test_chance_of_the_optimiser_widens_an_interval_and_repeats_narrow_it() -> None:
    """Five splits without any difference of their own; a run's score is off by 5 points either way."""
    widths: dict[int, float] = {}
    for repeats in (1, 8):
        p = 0.7 + 0.05 * np.random.default_rng(3).standard_normal((1, 5 * repeats, 1))
        said = np.where(np.random.default_rng(4).random((1, 5 * repeats, 2000)) < p, 1, 0)
        task = TaskPredictions(said, np.ones(2000, dtype=np.int64), "accuracy", 2, repeats)
        interval = scores_of([task]).score(0)
        widths[repeats] = interval.high - interval.low
    assert widths[8] < 0.7 * widths[1]


def test_before_the_first_answer_of_a_repeat_stands_the_bare_template() -> None:
    """One of two repeats had no answer at a tenth of the budget."""
    early, late = (
        replace(cell(1, 60), anytime={0.1: 0.5, 1.0: 0.6}),
        replace(cell(1, 80), anytime={0.1: None, 1.0: 0.8}),
    )
    (found,) = averaged([early], [late])
    assert found.anytime == {0.1: None, 1.0: pytest.approx(0.7)}
    assert found.before_answers(0.4).anytime == {0.1: pytest.approx(0.45), 1.0: pytest.approx(0.7)}


def test_a_first_repeat_keeps_the_id_it_had() -> None:
    """And further ones have ids of their own."""
    key: RunKey = run_key()
    old: dict[str, Any] = {name: getattr(key, name) for name in key.__dataclass_fields__ if name != "repeat"}
    assert run_id(old) == key.id != replace(key, repeat=1).id


def test_a_failure_in_a_repeat_is_counted_and_an_unisolated_repeat_is_no_isolated_entry() -> None:
    """The score is the mean over repeats, so what happened in any of them is said of the entry."""
    again = [replace(cell(1, 50), status="crash", record=CellRecord(sandbox="0", level=3)), cell(2, 80)]
    isolated = [replace(each, record=CellRecord(sandbox="A", level=1)) for each in (cell(1, 60), cell(2, 80), again[1])]
    entry = Entry(None, "e", "r", averaged(isolated[:2], [again[0], isolated[2]]), 0, {})
    assert entry.statuses == {"crash": 1, "ok": 3}
    assert entry.division.sandbox == "0 A"
    assert entry.division.unsandboxed
    assert entry.access == 3
