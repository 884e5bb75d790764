"""Where two entries differ: on average, by task, by split and text by text. Differences are first minus second.

The difference of averages is one of the set that the ranks come from (`harness.leaderboard.ties`): its interval and its
p-value are adjusted for all pairs of the list that both stand in, so that a pair may be picked because it differs most,
and what is said here cannot contradict the ranks. Differences on a task are adjusted for all pairs on that task in the
same way; they are not adjusted for the number of tasks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.errors import InputError
from harness.leaderboard.ties import ALPHA

if TYPE_CHECKING:
    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.ties import Comparison


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
    found: Comparison
    splits: tuple[SplitDifference, ...]


@dataclass(frozen=True)
class Difference:
    """Two entries of one division, both complete."""

    first: str
    second: str
    average: Comparison
    tasks: tuple[TaskDifference, ...]
    ranks: tuple[int | None, int | None]
    """Shared ranks in the list of both; None where the design carries none."""


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
    tasks = tuple(TaskDifference(task, found.on(task).compare(n, m), _splits(a, b, task)) for task in found.tasks)
    ranks = (found.entries[first].rank, found.entries[second].rank)
    return Difference(first, second, found.pairs.compare(n, m), tasks, ranks)


def comparison_record(found: Difference) -> dict[str, Any]:
    """For machines: what was found, and by which adjustment."""
    return dataclasses.asdict(found) | {"adjustment": adjustment(found)}


def adjustment(found: Difference) -> str:
    """What the p-values and intervals are adjusted for, in words."""
    entries = found.average.entries
    return f"Tukey's range for all {entries * (entries - 1) // 2:,} pairs of {entries:,} entries"


def verdict(found: Difference) -> str:
    """What follows for the ranks, in words."""
    if None in found.ranks:
        return "no order is stated: this design carries no ranks (see below the leaderboard), only intervals"
    better, worse = (found.first, found.second) if found.average.difference.value > 0 else (found.second, found.first)
    p = shown_p(found.average.p)
    if found.average.tied:
        said = f"cannot be told apart on average (adjusted p {p}): the order of {better} and {worse} is open"
        one, two = found.ranks
        if one != two:
            said += f"; their ranks, {one} and {two}, differ because one of them was told apart from somebody else"
        return said
    return f"{better} is better than {worse} on average (adjusted p {p})"


def shown_p(p: float) -> str:
    """A p-value as people read it, rounded so that it stays on its side of 0.05."""
    if p < 0.001:  # noqa: PLR2004 - as fine as the tables go
        return "< 0.001"
    text = f"{p:.3f}"
    return "> 0.05" if p > ALPHA and float(text) <= ALPHA else text


def comparison_table(found: Difference) -> Group:
    """Readable at 100 columns, with what follows below it."""
    table = Table(
        title=f"{escape(found.first)} minus {escape(found.second)}, points",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    columns = ("", "difference", "95 % interval", "p", "first", "second", "only first right", "only second right")
    for name in columns:
        table.add_column(name, justify="left" if not name else "right")
    for task in found.tasks:
        table.add_row(task.task, *_shown(task.found), "", "", "", "", style="bold")
        for split in task.splits:
            scores = (split.first - split.second, split.first, split.second)
            difference, one, other = (
                f"{100 * value:+.1f}" if n == 0 else f"{100 * value:.1f}" for n, value in enumerate(scores)
            )
            table.add_row(
                f"  split {split.split}",
                difference,
                "",
                "",
                one,
                other,
                f"{split.first_alone}",
                f"{split.second_alone}",
            )
    table.add_row("average", *_shown(found.average), "", "", "", "", style="bold")
    notes = (verdict(found), f"intervals and p: simultaneous, by {adjustment(found)}; by task in the same way")
    return Group(table, *(Text(line) for line in notes))


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


def _shown(comparison: Comparison) -> tuple[str, str, str]:
    interval = comparison.difference
    limits = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.value:+.1f}", limits, shown_p(comparison.p)
