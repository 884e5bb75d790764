"""The contents of the pages about pairs: the matrix of all differences, and a page for two entries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.leaderboard.compare import adjustment, between, shown_p, verdict
from harness.leaderboard.pareto import COSTS, cost
from harness.leaderboard.report import plots
from harness.leaderboard.report.written import has_classes
from harness.results.status import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.leaderboard.entries import Entry
    from harness.leaderboard.report.curves import Curves
    from harness.leaderboard.report.facts import Compared, Facts, System, TaskFacts
    from harness.leaderboard.standing import Standings
    from harness.leaderboard.ties import Comparison

MOST = 20
"""Largest number of entries of a list that are compared pair by pair: each two have a page."""
LONGEST_LIST = 8
"""Number of texts that a page lists for a task, in each direction."""


@dataclass(frozen=True)
class Field:
    """A cell of the matrix: row minus column."""

    found: Comparison
    p: str
    path: str
    """The page of the two."""


@dataclass(frozen=True)
class Disagreement:
    """A test text that one entry gets right in more splits than the other."""

    number: int
    """Its place in the test set, from 1."""
    texts: tuple[str, ...]
    """Empty where the text is not shown."""
    label: str
    right: tuple[int, int]
    """Splits in which the first and the second entry are right."""
    splits: int
    said: tuple[str, str]
    """What each predicts most often."""


def compared(facts: Facts) -> Iterator[tuple[Compared, tuple[System, ...]]]:
    """The lists with pairs, and their entries that are compared pair by pair, best first."""
    for each in facts.lists:
        systems = tuple(system for system in each.systems if system.standing)[:MOST]
        if len(systems) > 1:
            yield each, systems


def page_of(first: System, second: System) -> str:
    """Path of the page of two entries; the better one is named first."""
    return f"pairs/{first.slug}-{second.slug}.html"


def others(facts: Facts, system: System) -> list[tuple[System, str]]:
    """The entries with which an entry is compared on a page, with the page."""
    for _, systems in compared(facts):
        if system in systems:
            n = systems.index(system)
            return [(s, page_of(*((s, system) if m < n else (system, s)))) for m, s in enumerate(systems) if m != n]
    return []


def matrix(facts: Facts) -> dict[str, Any]:
    """All pairs of each list."""
    lists = []
    for each, systems in compared(facts):
        rows = [(row, [_field(each, row, column, n, m) for m, column in enumerate(systems)])
                for n, row in enumerate(systems)]  # fmt: skip
        complete = len([system for system in each.systems if system.standing])
        lists.append({
            "title": each.division.title,
            "systems": systems,
            "rows": rows,
            "left_out": complete - len(systems),
            "adjusted": f"{complete * (complete - 1) // 2:,} pairs of {complete:,} entries",
        })  # fmt: skip
    return {"lists": lists, "several": len(lists) > 1, "track": facts.track.name}


def _field(each: Compared, row: System, column: System, n: int, m: int) -> Field | None:
    if row is column or each.standings is None:
        return None
    found = each.standings.pairs.compare(n, m)
    return Field(found, shown_p(found.p), page_of(*((row, column) if n < m else (column, row))))


def pages(facts: Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    """The page of each two entries: its path and its content."""
    for each, systems in compared(facts):
        for n, first in enumerate(systems):
            for second in systems[n + 1 :]:
                if each.standings:
                    yield page_of(first, second), pair(facts, each.standings, each.curves, first, second)


def pair(facts: Facts, standings: Standings, curves: Curves, first: System, second: System) -> dict[str, Any]:
    """Two entries: differences by task and split, curves, costs, and texts on which they disagree."""
    found = between(standings, first.entry, second.entry)
    both = (first, second)
    tasks = [
        (task, shown_p(task.found.p), *(disagreements(facts.tasks[task.task], first.entry, second.entry)))
        for task in found.tasks
    ]
    return {
        "first": first,
        "second": second,
        "average": found.average,
        "p": shown_p(found.average.p),
        "verdict": verdict(found),
        "by_text": found.by_text,
        "adjustment": adjustment(found),
        "tasks": tasks,
        "spec": plots.progress(both, curves),
        "small": [(task.task, facts.tasks[task.task].file.title,
                   plots.progress(both, curves, task.task, small=True)) for task in found.tasks],
        "costs": [(kind, [None if s.entry.white_box else cost(s.entry, kind) for s in both]) for kind in COSTS],
        "money": [s.record["money"] for s in both],
        "currency": facts.ranking.prices.currency if facts.ranking.prices else None,
        "hidden": facts.hidden,
        "limit": LONGEST_LIST,
    }  # fmt: skip


def disagreements(task: TaskFacts, first: Entry, second: Entry) -> tuple[list[Disagreement], list[Disagreement]]:
    """Texts that the first entry gets right in more splits than the second, most of them first, and the other way."""
    if not has_classes(task):
        return [], []  # no output is right or wrong; the pages of the entries show them
    name = task.file.name
    of_first, of_second = (
        {cell.split: cell.predicted for cell in entry.cells if cell.task == name and cell.status in COUNTS}
        for entry in (first, second)
    )
    common = sorted(set(of_first) & set(of_second))
    if not common:
        return [], []
    said = [np.stack([own[split] for split in common]) for own in (of_first, of_second)]  # (splits, items) each
    right = [(each == task.labels).sum(axis=0) for each in said]
    more = right[0].astype(np.int64) - right[1].astype(np.int64)
    lists: list[list[Disagreement]] = []
    for sign in (1, -1):
        order = [int(n) for n in np.argsort(-sign * more, kind="stable")[:LONGEST_LIST] if sign * more[n] > 0]
        lists.append([_disagreement(task, n, said, right, len(common)) for n in order])
    return lists[0], lists[1]


def _disagreement(task: TaskFacts, n: int, said: Sequence[Any], right: Sequence[Any], splits: int) -> Disagreement:
    usual = [task.file.classes[Counter(each[:, n].tolist()).most_common(1)[0][0]] for each in said]
    texts = tuple(task.test.texts[n]) if task.test else ()
    counts = int(right[0][n]), int(right[1][n])
    return Disagreement(n + 1, texts, task.file.classes[task.labels[n]], counts, splits, (usual[0], usual[1]))
