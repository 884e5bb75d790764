"""Repeats of a cell: the same split, tuned on several times with other chance of the submission's own.

A split's score is the mean over its repeats, so that chance of the optimiser weighs less; what of it is left is part of
what the splits' scores differ by, which the intervals are made of.
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
    """The newest further repeats of each run, by its id: runs that differ from it in nothing but their number."""
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
    """How often each cell of several entries is taken so that each repeat of each counts alike."""
    return math.lcm(*(len(cell.repeats) or 1 for own in cells for cell in own))


def repeated(cell: CellScore, count: int) -> list[IntArray]:
    """What a cell's repeats predict, `count` arrays (items,), each repeat as often as the others."""
    runs = cell.repeats or (cell,)
    return [runs[n % len(runs)].predicted for n in range(count)]


def _identity(run: Run) -> tuple[object, ...]:
    return tuple(getattr(run.key, name) for name in _SAME)
