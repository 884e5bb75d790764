"""Varies one option of a submission, all else equal: scores with intervals, and differences to the first value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from harness.leaderboard.entries import Entry
from harness.leaderboard.rank import score_cell
from harness.leaderboard.repeats import averaged
from harness.leaderboard.standing import predictions
from harness.leaderboard.stats import scores_of
from harness.leaderboard.ties import Pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.rank import Results
    from harness.leaderboard.stats import Interval


@dataclass(frozen=True)
class Varied:
    """One value of an option, and the runs with it, one for each repeat."""

    option: str
    value: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """The result of one value."""

    option: str
    value: str
    entry: Entry
    average: Interval | None
    """None if cells are missing that other values of the option have."""
    against_first: Interval | None
    """This value's average minus that of the first value, paired by split and item; None for the first value."""


def variants(store: Results, varied: Sequence[Varied]) -> list[Variant]:
    """Score the runs of each value. Intervals of differences are simultaneous for all pairs of values of one option.

    Args:
        store: the database that holds the runs.
        varied: values of one or more options. The other values of an option are compared with its first one.
    """
    found: list[Variant] = []
    for option in dict.fromkeys(each.option for each in varied):
        own = [each for each in varied if each.option == option]
        entries = [_entry(store, each) for each in own]
        cells = {frozenset((cell.task, cell.split) for cell in entry.cells) for entry in entries}
        if len(cells) != 1 or not entries[0].cells:
            found += [Variant(e.option, e.value, entry, None, None) for e, entry in zip(own, entries, strict=True)]
            continue
        tasks = [predictions(task, entries) for task in entries[0].tasks]
        scores = scores_of(tasks)
        pairs = Pairs(scores.differences())
        found += [
            Variant(each.option, each.value, entry, scores.score(n), pairs.compare(n, 0).difference if n else None)
            for n, (each, entry) in enumerate(zip(own, entries, strict=True))
        ]
    return found


def _entry(store: Results, varied: Varied) -> Entry:
    cells = averaged(*(map(score_cell, store.cells(run)) for run in varied.runs))
    return Entry(None, f"{varied.option}={varied.value}", varied.runs[0], cells, 0, {})


def records(found: Sequence[Variant]) -> list[dict[str, Any]]:
    """A flat record for each value, for the CSV file and for JSON. Scores are shares from 0 to 1."""
    tasks = list(dict.fromkeys(task for variant in found for task in variant.entry.tasks))
    rows = []
    for variant in found:
        row: dict[str, Any] = {"option": variant.option, "value": variant.value}
        for task in tasks:
            mean, std, cells = variant.entry.task(task) if task in variant.entry.tasks else (None, None, 0)
            row |= {task: _rounded(mean), f"{task}_std": _rounded(std), f"{task}_splits": cells}
        row["average"] = _rounded(variant.entry.average if variant.entry.cells else None)
        for name, interval in (("average", variant.average), ("against_first", variant.against_first)):
            row |= {f"{name}_low": _rounded(interval.low if interval else None)}
            row |= {f"{name}_high": _rounded(interval.high if interval else None)}
        row["against_first"] = _rounded(variant.against_first.value if variant.against_first else None)
        row |= {
            "calls": round(variant.entry.calls, 2),
            "repeats": _repeats(variant.entry),
            "failed": variant.entry.failed,
        }
        rows.append(row | {"run": variant.entry.run})
    return rows


def table(found: Sequence[Variant], title: str) -> Table:
    """The table for 120 columns, with scores in points."""
    tasks = list(dict.fromkeys(task for variant in found for task in variant.entry.tasks))
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    made.add_column("variant", overflow="fold")
    failed = any(variant.entry.failed for variant in found)
    for column in (*tasks, "average", "minus first", "calls", *["failed"] * failed):
        made.add_column(column, justify="right")
    for variant in found:
        entry = variant.entry
        scores = [f"{100 * entry.task(task)[0]:.1f}" if task in entry.tasks else "-" for task in tasks]
        average = variant.average.points() if variant.average else f"{100 * entry.average:.1f}" if entry.cells else "-"
        difference = variant.against_first.points("+") if variant.against_first else ""
        last = (f"{entry.calls:,.0f}", *[str(entry.failed or "")] * failed)
        made.add_row(escape(entry.name), *scores, average, difference, *last)
    return made


def _repeats(entry: Entry) -> int:
    return min((len(cell.repeats) or 1 for cell in entry.cells), default=1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
