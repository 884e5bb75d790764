"""Repeats of a cell: the same split, tuned on several times with different seeds of the submission.

A split's score is the mean over its repeats, which reduces the optimiser's noise. The remaining noise is part of the
variance between splits, from which the intervals are computed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.leaderboard.entries import CellScore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.contract import IntArray
    from harness.results.records import Run

_SAME = ("team", "entry", "submission_sha256", "options", "access", "device", "external", "environment_sha256")


def repeats_of(first: Iterable[Run], runs: Iterable[Run]) -> dict[str, list[str]]:
    """The newest further repeats of each run, by its id: runs that differ from it only in the repeat's number."""
    groups: dict[tuple[object, ...], dict[int, str]] = {}
    for run in runs:
        if run.key.repeat:
            groups.setdefault(_identity(run), {})[run.key.repeat] = run.id
    return {run.id: [each for _, each in sorted(groups.get(_identity(run), {}).items())] for run in first}


def averaged(first: Iterable[CellScore], *others: Iterable[CellScore]) -> tuple[CellScore, ...]:
    """The cells of a first repeat, each with the mean scores of all repeats that it has."""
    again = [{(cell.task, cell.split): cell for cell in other} for other in others]
    found = []
    for cell in first:
        place = cell.task, cell.split
        runs = (cell, *(each[place] for each in again if place in each))
        found.append(CellScore.mean(runs) if len(runs) > 1 else cell)
    return tuple(found)


def common_repeats(cells: Sequence[Sequence[CellScore]]) -> int:
    """The number of times to use each cell of several entries, so that all repeats of an entry have equal weight."""
    return math.lcm(*(len(cell.repeats) or 1 for own in cells for cell in own))


def repeated(cell: CellScore, count: int) -> list[IntArray]:
    """Predictions of a cell's repeats: `count` arrays (items,), with each repeat equally often."""
    runs = cell.repeats or (cell,)
    return [runs[n % len(runs)].predicted for n in range(count)]


def _identity(run: Run) -> tuple[object, ...]:
    return tuple(getattr(run.key, name) for name in _SAME)
