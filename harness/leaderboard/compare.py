"""Where two entries differ: on average, by task, by split and text by text. Differences are first minus second.

Intervals are those of the list both stand in (`harness.leaderboard.stats`), for this one pair: no family, no
adjustment. A pair that is picked because it differs most looks surer than it is; ranks are adjusted for that
(`harness.leaderboard.ties`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from harness.errors import InputError

if TYPE_CHECKING:
    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.stats import Interval


@dataclass(frozen=True)
class SplitDifference:
    """Two entries in one cell."""

    split: int
    first: float
    second: float
    first_alone: int
    """Test texts that only the first gets right."""
    second_alone: int
    """Test texts that only the second gets right."""


@dataclass(frozen=True)
class TaskDifference:
    """Two entries on one task."""

    task: str
    difference: Interval
    splits: tuple[SplitDifference, ...]


@dataclass(frozen=True)
class Difference:
    """Two entries of one division, both complete."""

    first: str
    second: str
    average: Interval
    tasks: tuple[TaskDifference, ...]


def compare(ranking: Ranking, first: str, second: str) -> Difference:
    """Compare two entries of the ranking.

    Raises:
        InputError: one is not there, is not complete, or they stand in different divisions; the message says which.
    """
    a, b = _entry(ranking, first), _entry(ranking, second)
    found = ranking.standings(a.division)
    if found is None or a.division != b.division:
        raise InputError(
            f"{first} ({a.division.title}) and {second} ({b.division.title}) are in different divisions; "
            "nothing is compared across"
        )
    n, m = found.names.index(first), found.names.index(second)
    tasks = tuple(
        TaskDifference(task, found.scores.difference(n, m, k), _splits(a, b, task))
        for k, task in enumerate(found.tasks)
    )
    return Difference(first, second, found.scores.difference(n, m), tasks)


def comparison_record(found: Difference) -> dict[str, Any]:
    """For machines."""
    return dataclasses.asdict(found)


def comparison_table(found: Difference) -> Table:
    """Readable at 100 columns."""
    table = Table(
        title=f"{escape(found.first)} minus {escape(found.second)}, points",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in ("", "difference", "95 % interval", "first", "second", "only first right", "only second right"):
        table.add_column(name, justify="left" if not name else "right")
    for task in found.tasks:
        table.add_row(task.task, *_shown(task.difference), "", "", "", "", style="bold")
        for split in task.splits:
            scores = (split.first - split.second, split.first, split.second)
            difference, one, other = (
                f"{100 * value:+.1f}" if n == 0 else f"{100 * value:.1f}" for n, value in enumerate(scores)
            )
            table.add_row(
                f"  split {split.split}", difference, "", one, other, f"{split.first_alone}", f"{split.second_alone}"
            )
    table.add_row("average", *_shown(found.average), "", "", "", "", style="bold")
    return table


def _entry(ranking: Ranking, name: str) -> Entry:
    """The entry of that name that can be compared."""
    named = [e for e in (*ranking.entries, *ranking.elsewhere) if e.name == name and not e.white_box]
    complete = [entry for entry in named if not entry.missing]
    if complete:
        return complete[0]
    if named:
        raise InputError(f"{name} lacks {named[0].missing} cells; run it to its end before comparing")
    there = ", ".join(e.name for e in ranking.entries if not e.white_box) or "none"
    raise InputError(f"no entry {name!r} on track {ranking.track}; there are {there}")


def _splits(a: Entry, b: Entry, task: str) -> tuple[SplitDifference, ...]:
    of_b = {cell.split: cell for cell in b.cells if cell.task == task}
    return tuple(_split(cell, of_b[cell.split]) for cell in a.cells if cell.task == task and cell.split in of_b)


def _split(a: CellScore, b: CellScore) -> SplitDifference:
    right, other = a.predicted == a.labels, b.predicted == b.labels
    return SplitDifference(a.split, a.score, b.score, int(np.sum(right & ~other)), int(np.sum(other & ~right)))


def _shown(interval: Interval) -> tuple[str, str]:
    return f"{100 * interval.value:+.1f}", f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
