"""Uploaded predictions: scored like cells, but listed apart from the ranking, because their cost is not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from harness.leaderboard.rank import score_cell
from harness.results.rulings import in_force
from harness.results.uploads import PLANNED

if TYPE_CHECKING:
    from collections.abc import Collection

    from harness.leaderboard.entries import CellScore
    from harness.results.store import Store


@dataclass(frozen=True)
class Upload:
    """One archive of predictions."""

    name: str
    run: str
    cells: tuple[CellScore, ...]
    missing: int
    """Cells that it has no predictions for, of those that the track or, where it leaves them open, the data have."""

    def task(self, name: str) -> float | None:
        """Mean over splits; None where it has none of this task."""
        scores = [cell.score for cell in self.cells if cell.task == name]
        return float(np.mean(scores)) if scores else None

    @property
    def tasks(self) -> list[str]:
        """Tasks it has predictions for."""
        return sorted({cell.task for cell in self.cells})

    @property
    def average(self) -> float:
        """Mean over its tasks of the mean over splits."""
        return float(np.mean([self.task(name) for name in self.tasks]))


def uploads(store: Store, track: str, fingerprint: str, planned: Collection[tuple[str, int]]) -> list[Upload]:
    """The newest archive under each name on one version of a track, best average first, incomplete ones last.

    Those that an organiser has withdrawn are left out.
    """
    rulings = store.rulings()
    newest = {
        run.key.label: run
        for run in store.runs()
        if run.key.access == "predictions" and (run.key.track, run.key.track_fingerprint) == (track, fingerprint)
        if in_force(rulings, "withdraw", track, run.key.label) is None
    }
    found = []
    for name, run in newest.items():
        cells = tuple(map(score_cell, store.cells(run.id)))
        wanted = {(str(task), int(split)) for task, split in run.environment.get(PLANNED, planned)}
        missing = len(wanted - {(cell.task, cell.split) for cell in cells})
        if cells:
            found.append(Upload(name, run.id, cells, missing))
    return sorted(found, key=lambda upload: (upload.missing, -upload.average, upload.name))


def upload_records(found: list[Upload]) -> list[dict[str, Any]]:
    """One flat record per archive, for machines."""
    return [
        {"name": upload.name, "run": upload.run, "missing_cells": upload.missing, "average": round(upload.average, 4)}
        | {name: round(upload.task(name) or 0.0, 4) for name in upload.tasks}
        for upload in found
    ]


def upload_table(found: list[Upload]) -> Table:
    """A line per archive."""
    tasks = sorted({name for upload in found for name in upload.tasks})
    table = Table(
        title="uploaded predictions, without a budget: not ranked", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("archive", overflow="fold")
    for name in (*tasks, "average", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    for upload in found:
        scores = [upload.task(name) for name in tasks]
        shown = ["-" if value is None else f"{value * 100:.1f}" for value in scores]
        table.add_row(escape(upload.name), *shown, f"{upload.average * 100:.1f}", str(upload.missing))
    return table
