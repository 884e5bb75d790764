"""Compares public and private test sets: the same submission, tuned on the same shots, scored on unseen texts.

A run with ``--test-data`` has a partner run that differs only in the test set. The *gap* is the public average minus
the private one, over the cells that both have. Only the gap reveals answers that were hard-coded for the public test
set. A private set may be harder for all entries, so an entry's gap must be compared with the gaps of the others.

Of an entry with repeats, the first one is compared: a repeat is another answer.

The intervals are those of `harness.leaderboard.stats` for one score, here a difference: the answers of a split are the
same on both sides, and the items of the two test sets are drawn independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from harness.leaderboard.rank import score_cell
from harness.leaderboard.stats import Interval, Scores, TaskPredictions, TaskScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import CellScore
    from harness.leaderboard.rank import Ranking
    from harness.results.records import RunKey
    from harness.results.store import Store

_SAME = (
    "team", "entry", "submission_sha256", "options", "model_sha256", "device", "seed", "environment_sha256", "track",
    "track_fingerprint", "rules", "access", "external", "calls", "repeat",
)  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """A ranked entry, and its run on private test sets."""

    entry: str
    run: str
    """Id of the private run."""
    data: str
    """The source of its data, with the name of the private directory."""
    public: float
    """Average over the cells that both runs have."""
    private: float
    difference: Interval
    """Public minus private."""
    cells: int


def gaps(store: Store, ranking: Ranking) -> list[Gap]:
    """The gaps of all listed entries with a run on private test sets, the largest first. The newest run counts."""
    runs = store.runs()
    keys = {run.id: run.key for run in runs}
    found: dict[tuple[str, str], Gap] = {}
    for entry in (*ranking.entries, *ranking.elsewhere):
        for run in runs:  # oldest first: the newest stands
            if run.key.modified != ("test_data",) or not _partners(keys[entry.run], run.key):
                continue
            private = [score_cell(cell) for cell in store.cells(run.id)]
            gap = _gap(entry.name, run.id, run.key.data, entry.cells, private)
            if gap is not None:
                found[entry.run, gap.data] = gap
    return sorted(found.values(), key=lambda gap: (gap.data, -gap.difference.value, gap.entry))


def _partners(public: RunKey, private: RunKey) -> bool:
    """Whether two runs differ in their test sets alone."""
    return all(getattr(public, name) == getattr(private, name) for name in _SAME)


def _gap(entry: str, run: str, data: str, public: Sequence[CellScore], private: Sequence[CellScore]) -> Gap | None:
    """The gap over common cells; None if there are none."""
    common = {(c.task, c.split) for c in public} & {(c.task, c.split) for c in private}
    if not common:
        return None
    seen, unseen = (_by_task([c for c in cells if (c.task, c.split) in common]) for cells in (public, private))
    values, halves = Scores(tuple(seen[name].minus(unseen[name]) for name in seen)).singles()
    value, half = float(values[0]), float(halves[0])
    difference = Interval(value, value - half, value + half)
    averages = [float(Scores(tuple(each.values())).observed.mean()) for each in (seen, unseen)]
    return Gap(entry, run, data, averages[0], averages[1], difference, len(common))


def _by_task(cells: Sequence[CellScore]) -> dict[str, TaskScores]:
    """Scores of one system, by task and in the order of splits."""
    found = {}
    for name in sorted({cell.task for cell in cells}):
        own = sorted((cell for cell in cells if cell.task == name), key=lambda cell: cell.split)
        predicted = np.array([[cell.predicted for cell in own]])  # (1, splits, items)
        task = TaskPredictions(predicted, own[0].labels, *own[0].scored_by)
        found[name] = TaskScores.of_predictions(task)
    return found


def gap_records(found: Sequence[Gap]) -> list[dict[str, Any]]:
    """One flat record per private run, for machines."""
    return [
        {"entry": gap.entry, "run": gap.run, "data": gap.data, "cells": gap.cells}
        | {"public": round(gap.public, 4), "private": round(gap.private, 4), "gap": round(gap.difference.value, 4)}
        | {"gap_low": round(gap.difference.low, 4), "gap_high": round(gap.difference.high, 4)}
        for gap in found
    ]


def gap_table(found: Sequence[Gap]) -> Table:
    """A line per private run."""
    table = Table(
        title="public against private test sets: whose gap is larger than the others' knows the public texts",
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    table.add_column("submission", overflow="fold")
    table.add_column("data", overflow="fold")
    for name in ("cells", "public", "private", "gap"):
        table.add_column(name, justify="right", no_wrap=True)
    for gap in found:
        numbers = (str(gap.cells), f"{100 * gap.public:.1f}", f"{100 * gap.private:.1f}", gap.difference.points("+"))
        table.add_row(escape(gap.entry), escape(gap.data), *numbers)
    return table
