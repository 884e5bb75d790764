"""Lists runs, with what came of their cells: every run of a database, or the trials that no ranking shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from harness.errors import HarnessError
from harness.leaderboard.rank import score_cell
from harness.results.status import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.leaderboard.entries import CellScore
    from harness.results.records import Run, RunKey
    from harness.results.store import Store


@dataclass(frozen=True)
class Tried:
    """A run and what came of it."""

    run: Run
    cells: tuple[CellScore, ...]
    """Its finished cells."""
    failed: int
    """Number of these that failed."""
    unfinished: int
    """Number of cells that were begun and have no outcome: they run, or were interrupted."""

    @property
    def average(self) -> float | None:
        """Mean over tasks of the mean score over splits, of the finished cells alone; None without any."""
        by_task: dict[str, list[float]] = {}
        for cell in self.cells:
            by_task.setdefault(cell.task, []).append(cell.score)
        return float(np.mean([np.mean(scores) for scores in by_task.values()])) if by_task else None

    @property
    def calls(self) -> float | None:
        """Mean calls of a finished cell; None without any, and where nothing was metered."""
        spent = [cell.record.calls_spent for cell in self.cells if cell.record.train_rows]
        return float(np.mean(spent)) if spent and self.run.key.access == "black-box" else None


def tried(store: Store, *, track: str | None = None, entry: str | None = None, trials: bool = False) -> list[Tried]:
    """The runs of a database, oldest first.

    Args:
        store: the database.
        track: name of a track; None is any.
        entry: an entry with or without its team and options; None is any.
        trials: only runs in which choices of the track were replaced, which are never ranked.

    Returns:
        The runs with their scores, recomputed from the stored predictions.
    """
    found = []
    for run in store.runs():
        key = run.key
        if track not in {None, key.track} or (trials and not key.modified):
            continue
        if entry not in {None, key.label, key.entry, key.label.partition("[")[0], key.entry.partition("[")[0]}:
            continue
        stored = store.cells(run.id)
        cells = tuple(cell for each in stored if (cell := _scored(each)) is not None)
        failed = sum(each.status not in COUNTS for each in stored)
        found.append(Tried(run, cells, failed, len(store.open_cells(run.id))))
    return found


def _scored(cell: Any) -> CellScore | None:
    """A cell with its score; None if its task is not known here."""
    try:
        return score_cell(cell)
    except HarnessError:
        return None


def replaced(key: RunKey) -> str:
    """The choices of the track that a run replaced, for people: ``calls=40, model``."""
    return ", ".join(f"calls={key.calls}" if name == "calls" and key.calls else name for name in key.modified)


def records(found: Sequence[Tried]) -> list[dict[str, Any]]:
    """A flat record for each run, for files and JSON. Scores are shares from 0 to 1; what there is not is None."""
    return [
        {
            "run": each.run.id,
            "started": datetime.fromtimestamp(each.run.started, UTC).isoformat(timespec="seconds"),
            "track": each.run.key.track,
            "entry": each.run.key.label,
            "replaced": replaced(each.run.key) or None,
            "cells": len(each.cells),
            "failed": each.failed,
            "unfinished": each.unfinished,
            "tasks": ", ".join(dict.fromkeys(cell.task for cell in each.cells)) or None,
            "average": None if each.average is None else round(each.average, 4),
            "calls": None if each.calls is None else round(each.calls, 2),
            "minutes": round(sum(cell.record.tuning_s for cell in each.cells) / 60, 2),
            "access": each.run.key.access,
            "model": each.run.key.model,
            "data": each.run.key.data,
            "device": each.run.key.device,
            "seed": each.run.key.seed,
            "repeat": each.run.key.repeat,
            "submission_sha256": each.run.key.submission_sha256[:12],
        }
        for each in found
    ]


def table(found: Iterable[Tried], title: str, *, tracks: bool = True) -> Table:
    """The runs as a table for the terminal, scores in points."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    made.add_column("run", no_wrap=True)
    made.add_column("started", no_wrap=True)
    if tracks:
        made.add_column("track")
    made.add_column("entry", overflow="fold")
    made.add_column("replaced", overflow="fold")
    for name in ("cells", "failed", "average", "calls", "min"):
        made.add_column(name, justify="right")
    for each in found:
        key, started = each.run.key, datetime.fromtimestamp(each.run.started, UTC)
        average = "-" if each.average is None else f"{100 * each.average:.1f}"
        again = f" (repeat {key.repeat})" if key.repeat else ""
        made.add_row(
            each.run.id[:8],
            f"{started:%Y-%m-%d %H:%M}",
            *[escape(key.track)] * tracks,
            escape(f"{key.label}{again}"),
            escape(replaced(key)),
            f"{len(each.cells)}{f' + {each.unfinished} open' if each.unfinished else ''}",
            str(each.failed or ""),
            average,
            "" if each.calls is None else f"{each.calls:,.0f}",
            f"{sum(cell.record.tuning_s for cell in each.cells) / 60:.1f}",
        )
    return made
