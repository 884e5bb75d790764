"""Compares two entries: on average, by task, by split and by text. A difference is the first minus the second.

The ranks come from the same set of differences of averages (`harness.leaderboard.ties`). The interval and the p-value
are adjusted for all pairs of the list. So a pair may be chosen because it differs most, and the comparison cannot
contradict the ranks. Differences on a task are adjusted in the same way for all pairs on that task. They are not
adjusted for the number of tasks.
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

from harness.errors import InputError, did_you_mean
from harness.leaderboard.ties import ALPHA
from harness.solving.metrics import is_text

if TYPE_CHECKING:
    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.standing import Standings
    from harness.leaderboard.ties import Comparison


@dataclass(frozen=True)
class SplitDifference:
    """Two entries in one cell."""

    split: int
    first: float
    second: float
    first_alone: int
    """Number of test texts that only the first entry predicts correctly; of a text task, those where its output has the
    higher score."""
    second_alone: int
    """The same of the second entry."""


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
    """Shared ranks of both in their list; None if the data do not allow ranks."""
    by_text: bool = False
    """Whether the tasks are answered by text, so that of two outputs one is better and none is right."""


def compare(ranking: Ranking, first: str, second: str) -> Difference:
    """Compare two entries of the ranking, in the main division if both are there, else in one where both are.

    Raises:
        InputError: an entry does not exist, is a reference or is not complete, or the two are in no list together. The
            message says which.
    """
    ones, others = _entries(ranking, first), _entries(ranking, second)
    together = [(a, b) for a in ones for b in others if a.division == b.division]
    if not together:
        raise InputError(
            f"{first} ({ones[0].division.title}) and {second} ({others[0].division.title}) are in different divisions; "
            "nothing is compared across"
        )
    a, b = together[0]
    found = ranking.standings(a.division)
    if found is None:
        raise InputError(
            f"{first} and {second} ran without isolation ({a.division.title}), so they have no ranks and are not "
            "compared; --allow-unsandboxed compares such entries among themselves"
        )
    return between(found, a, b)


def between(found: Standings, a: Entry, b: Entry) -> Difference:
    """Compare two entries of a list."""
    n, m = found.names.index(a.name), found.names.index(b.name)
    tasks = tuple(TaskDifference(task, found.on(task).compare(n, m), _splits(a, b, task)) for task in found.tasks)
    ranks = (found.entries[a.name].rank, found.entries[b.name].rank)
    by_text = any(is_text(cell.metric) for cell in a.cells if cell.metric)
    return Difference(a.name, b.name, found.pairs.compare(n, m), tasks, ranks, by_text)


def comparison_record(found: Difference) -> dict[str, Any]:
    """The comparison and its adjustment as a record for JSON."""
    return dataclasses.asdict(found) | {"adjustment": adjustment(found)}


def comparison_rows(found: Difference) -> list[dict[str, Any]]:
    """A flat record for the average and for each task: the difference, its interval and its p-value."""
    pairs = [("average", found.average), *((each.task, each.found) for each in found.tasks)]
    return [
        {
            "task": name,
            "first": found.first,
            "second": found.second,
            "difference": round(each.difference.value, 6),
            "low": round(each.difference.low, 6),
            "high": round(each.difference.high, 6),
            "p": round(each.p, 6),
            "told_apart": not each.tied,
        }
        for name, each in pairs
    ]


def adjustment(found: Difference) -> str:
    """The adjustment of the p-values and intervals, in words."""
    entries = found.average.entries
    return f"Tukey's range for all {entries * (entries - 1) // 2:,} pairs of {entries:,} entries"


def verdict(found: Difference) -> str:
    """The consequence for the ranks, in words."""
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
    """A p-value as text, rounded so that it stays on the same side of 0.05."""
    if p < 0.001:  # noqa: PLR2004 - as fine as the tables go
        return "< 0.001"
    text = f"{p:.3f}"
    return "> 0.05" if p > ALPHA and float(text) <= ALPHA else text


def comparison_table(found: Difference) -> Group:
    """The table for 100 columns, with the conclusion below it."""
    table = Table(
        title=f"{escape(found.first)} minus {escape(found.second)}, points",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    texts = ("first better", "second better") if found.by_text else ("only first right", "only second right")
    columns = ("", "difference", "95 % interval", "p", "first", "second", *texts)
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


def _entries(ranking: Ranking, name: str) -> list[Entry]:
    """The complete entries with this name, that of the main division first; one on each device, for example."""
    every = (*ranking.entries, *ranking.elsewhere)
    named = [e for e in every if e.name == name and not e.white_box]
    complete = [entry for entry in named if not entry.missing]
    if complete:
        return complete
    if named:
        raise InputError(f"{name} lacks {named[0].missing} cells; run it to its end before comparing")
    there = list(dict.fromkeys(e.name for e in every if not e.white_box))
    listed = f"there are {', '.join(there) or 'none'}"
    if any(e.name == name for e in every):
        raise InputError(f"{name} is a white-box reference, which is never ranked and not compared; {listed}")
    raise InputError(f"no entry {name!r}{did_you_mean(name, there)} on track {ranking.track}; {listed}")


def _splits(a: Entry, b: Entry, task: str) -> tuple[SplitDifference, ...]:
    of_b = {cell.split: cell for cell in b.cells if cell.task == task}
    return tuple(_split(cell, of_b[cell.split]) for cell in a.cells if cell.task == task and cell.split in of_b)


def _split(a: CellScore, b: CellScore) -> SplitDifference:
    metric, _ = a.scored_by
    if is_text(metric):
        one, other = a.predicted, b.predicted
    else:
        one, other = a.predicted == a.labels, b.predicted == b.labels
    return SplitDifference(a.split, a.score, b.score, int(np.sum(one > other)), int(np.sum(other > one)))


def _shown(comparison: Comparison) -> tuple[str, str, str]:
    interval = comparison.difference
    limits = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.value:+.1f}", limits, shown_p(comparison.p)
