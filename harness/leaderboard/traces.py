"""Scores over calls with intervals: what an entry's answers were worth after so many calls, on a task and on average.

After c calls of a cell, the answer counts that stood then; before the first answer the bare template counts, as in
every list (`harness.leaderboard.anytime`). Where it is not known, nothing is said. At each number of calls the scores
are those of a list by themselves: means over splits, then over tasks, with the intervals of single scores
(`harness.leaderboard.stats.Scores.singles`). At the whole budget they are the ranking's averages with its intervals.

An entry's part of this (`Steps`) depends on its own cells alone. So it can be kept, and only a new entry's is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.anytime import curve
from harness.leaderboard.efficiency import stood
from harness.leaderboard.influence import influences
from harness.leaderboard.stats import Interval, Scores, TaskScores
from harness.results.status import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.stats import FloatArray

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Steps:
    """One entry on one task after certain numbers of calls, with what the intervals need."""

    scores: list[list[float]]
    """(points, splits); NaN where no answer stood and the bare template's score is not known."""
    items: list[float]
    """(points,): variance of the mean over splits from the noise of test items, `TaskScores.items`."""
    rest: list[float]
    """(points,): the part of it that is new in each split, `TaskScores.rest`."""
    size: int
    """Number of test items."""


@dataclass(frozen=True)
class Trace:
    """One entry's scores after certain numbers of calls."""

    calls: tuple[float, ...]
    """Ascending."""
    values: tuple[Interval | None, ...]
    """The score after each number of calls; None where it is not known."""


def grid(entries: Sequence[Entry]) -> tuple[float, ...]:
    """Numbers of calls at which answers are known: one call, and every mark of every budget, ascending."""
    budgets = {float(cell.record.calls_total) for entry in entries for cell in entry.cells}
    return tuple(sorted({1.0, *(mark * budget for mark in MARKS for budget in budgets if mark * budget > 1)}))


def steps(entry: Entry, at: Sequence[float], bare: Mapping[str, float] | None) -> dict[str, Steps]:
    """An entry's part, by task. `at` is a `grid`; `bare` has the bare template's scores, if they are known."""
    found = {}
    for task in sorted(entry.tasks):
        cells = sorted((cell for cell in entry.cells if cell.task == task), key=lambda cell: cell.split)
        before = np.nan if bare is None else bare.get(task, np.nan)
        whole = TaskScores.of(_splits(cells, at, before))
        items, rest = (np.diagonal(each).tolist() for each in (whole.items, whole.rest))
        found[task] = Steps(whole.scores.tolist(), items, rest, whole.size)
    return found


def traces(parts: Sequence[Mapping[str, Steps]], at: Sequence[float], task: str | None = None) -> list[Trace]:
    """The traces of all entries of a list, on a task or on average, from their parts in any order.

    All entries have the same cells. The degrees of freedom of an interval are those of the list, as in the ranking.
    """
    tasks = sorted(parts[0]) if parts else []
    chosen = [task] if task else tasks
    values: list[list[Interval | None]] = [[None] * len(at) for _ in parts]
    for n in range(len(at)):
        known = [k for k, part in enumerate(parts) if not any(np.isnan(part[name].scores[n]).any() for name in chosen)]
        if not known:
            continue
        means, halves = Scores(tuple(_apart([parts[k][name] for k in known], n) for name in chosen)).singles()
        for k, mean, half in zip(known, means.tolist(), halves.tolist(), strict=True):
            values[k][n] = Interval(mean, max(mean - half, 0.0), min(mean + half, 1.0))
    return [Trace(tuple(at), tuple(own)) for own in values]


def envelope(found: Sequence[Trace]) -> list[int | None]:
    """For each number of calls, which trace has the highest score; None where none is known. The first of equals."""
    best: list[int | None] = []
    for n in range(len(found[0].calls) if found else 0):
        known = [(value.value, -k) for k, trace in enumerate(found) if (value := trace.values[n]) is not None]
        best.append(-max(known)[1] if known else None)
    return best


def _apart(own: Sequence[Steps], n: int) -> TaskScores:
    """The systems of a task at one number of calls, without the covariances, which single scores do not need."""
    items, rest = (np.diag([each[n] for each in part]) for part in ([s.items for s in own], [s.rest for s in own]))
    return TaskScores(np.array([each.scores[n] for each in own]), items, rest, own[0].size)


def _splits(cells: Sequence[CellScore], at: Sequence[float], before: float) -> Iterator[tuple[FloatArray, FloatArray]]:
    """For each split, scores (points,) and influences (points, items): the mean over the repeats of the cell."""
    for cell in cells:
        found = [_at(each, at, before) for each in cell.repeats or (cell,)]
        yield np.mean([scores for scores, _ in found], axis=0), np.mean([each for _, each in found], axis=0)


def _at(cell: CellScore, at: Sequence[float], before: float) -> tuple[FloatArray, FloatArray]:
    """One cell: scores (points,) and influences (points, items)."""
    items = len(cell.labels)
    if not cell.record.train_rows:
        return np.full(len(at), np.nan), np.zeros((len(at), items))
    calls, answers = curve(cell).calls, stood(cell)
    if len(calls) != len(answers):  # an older cell, of which only the last answer is kept
        calls, answers, before = calls[-1:], [cell.predicted], np.nan
    scores, each = np.array([before]), np.zeros((1, items))
    if answers:
        metric, classes = cell.scored_by
        own = influences(metric, np.stack(answers), cell.labels, classes)
        scores, each = np.concatenate([scores, own[0]]), np.concatenate([each, own[1]])
    place = np.searchsorted(np.array(calls) - _ROUNDING, np.asarray(at), side="right")
    return scores[place], each[place]
