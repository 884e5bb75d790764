"""The second official list: ranks entries by their scores over the whole budget, from the first call to the last.

The *efficiency* of an entry is the mean of its test score over log10(calls), from the first call to the budget,
averaged over splits, then over tasks (`harness.leaderboard.anytime`). It is the expected score if the budget ended at
a random point, with each decade of calls equally likely. Before the first answer, the score of the bare template
counts.

In a cell, the efficiency is a weighted sum of the scores of the incumbents. So the influence of a test item on it is
the weighted sum of the influences on these scores. Intervals, differences and shared ranks of efficiencies therefore
follow from the same cells and items, by the same rules as those of averages. The bare template's score is treated as
known exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.anytime import curve
from harness.leaderboard.influence import influences
from harness.leaderboard.standing import Standings
from harness.leaderboard.stats import Scores, TaskScores
from harness.results.status import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.contract import IntArray
    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.stats import FloatArray


def efficiency_standings(entries: Sequence[Entry], bare: Mapping[str, float] | None) -> Standings | None:
    """Rank entries that all have the same cells by efficiency; None if it is not known.

    It is not known if the bare template's score is missing on a task, or if the answers of any cell were not kept.
    """
    if (
        not entries
        or bare is None
        or not all(_whole(each, bare) for entry in entries for cell in entry.cells for each in cell.repeats or (cell,))
    ):
        return None
    tasks = tuple(sorted(entries[0].tasks))
    scores = Scores(tuple(TaskScores.of(_splits(task, entries, bare[task])) for task in tasks))
    order = np.argsort(-scores.observed.mean(axis=0), kind="stable")
    return Standings(tuple(entries[n].name for n in order), tasks, scores.among(order.tolist()))


def _whole(cell: CellScore, bare: Mapping[str, float]) -> bool:
    """Whether a cell has everything needed: a budget, and all the answers that it names."""
    known = bool(len(cell.predicted)) and cell.record.train_rows > 0 and cell.task in bare
    return known and len(curve(cell).calls) <= max(len(cell.incumbents), 1)


def _splits(task: str, entries: Sequence[Entry], before: float) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Efficiencies (entries,) and influences (entries, items) of each split, in order."""
    of_entries = [sorted((c for c in entry.cells if c.task == task), key=lambda c: c.split) for entry in entries]
    for cells in zip(*of_entries, strict=True):
        found = [_mean_area(cell, before) for cell in cells]
        yield np.array([value for value, _ in found]), np.stack([influence for _, influence in found])


def _mean_area(cell: CellScore, before: float) -> tuple[float, FloatArray]:
    """Efficiency and influences of a cell, as means over its repeats."""
    found = [_area(each, before) for each in cell.repeats or (cell,)]
    return float(np.mean([value for value, _ in found])), np.mean([influence for _, influence in found], axis=0)


def _area(cell: CellScore, before: float) -> tuple[float, FloatArray]:
    """A cell's efficiency, and the influence of each item on it."""
    found = curve(cell)
    weights = found.weights()
    answers = stood(cell)
    value, influence = weights[0] * before, np.zeros(len(cell.labels))
    if answers:
        metric, classes = cell.scored_by
        scores, each = influences(metric, np.stack(answers), cell.labels, classes)
        value, influence = value + weights[1:] @ scores, weights[1:] @ each
    return float(value), influence


def stood(cell: CellScore) -> list[IntArray]:
    """Predictions (items,) of each answer of a cell's curve, in its order; none where no answer was offered."""
    found = {cell.rows[mark]: cell.incumbents[mark] for mark in MARKS if mark in cell.incumbents}
    return list((found or {0: cell.predicted}).values()) if curve(cell).calls else []
