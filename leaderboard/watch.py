"""What runs at the moment, as the results database tells it: for a look from another terminal. Reads only.

A cell that has begun and not ended is running, or was interrupted: the database cannot tell the two apart, but calls
of one that runs go up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness.tasks import load_task
from leaderboard.rank import score_cell

if TYPE_CHECKING:
    from harness.store import Store
    from harness.track import Track


@dataclass(frozen=True)
class Open:
    """A cell that has begun and not ended."""

    task: str
    split: int
    rows: int
    """Rows answered so far."""
    calls: float
    """The same in calls, where shots are drawn as the track says."""
    budget: int
    """Calls there are."""


@dataclass(frozen=True)
class Progress:
    """The newest run of an entry."""

    entry: str
    finished: int
    planned: int
    """Cells of the track; 0 where its splits are those of a data directory."""
    last: str
    """The cell that ended last, with its score; "" before there is one."""
    open: Open | None
    """The cell that was begun last, if it has not ended."""


def look(store: Store, track: Track) -> list[Progress]:
    """Runs of the track that lack cells or have begun one, oldest first."""
    planned = len(track.planned)
    newest = {
        (identity["entry"], identity.get("access")): run
        for run, identity, _, _ in store.runs()
        if identity["track"] == track.name and identity.get("access") != "predictions"
    }
    found = [_progress(store, track, entry, run, planned) for (entry, _), run in newest.items()]
    return [each for each in found if each.open or each.finished < planned]


def watch_table(found: list[Progress], track: str) -> Table:
    """Readable at 100 columns."""
    table = Table(title=f"track {escape(track)}", title_justify="left", box=None, pad_edge=False)
    for name in ("submission", "cells", "begun", "calls", "ended last"):
        table.add_column(name, justify="right" if name in {"cells", "calls"} else "left", overflow="fold")
    for each in found:
        cell = each.open
        begun = f"{cell.task}/{cell.split}" if cell else "-"
        calls = f"{cell.calls:,.0f}/{cell.budget:,}" if cell else ""
        of = f"{each.finished}/{each.planned}" if each.planned else str(each.finished)
        table.add_row(escape(each.entry), of, begun, calls, each.last)
    return table


def _progress(store: Store, track: Track, entry: str, run: str, planned: int) -> Progress:
    cells = store.cells(run)
    ended = {(cell.task, cell.split) for cell in cells}
    attempts = store.attempts(run)
    begun = None
    if attempts:
        number, task, split = attempts[-1]
        if (task, split) not in ended and task in track.tasks:
            spec = track.tasks[task]
            rows = sum(query["rows"] for query in store.ledger(number))
            begun = Open(task, split, rows, rows / (spec.shots * len(load_task(task).classes)), spec.calls)
    last = max(cells, key=lambda cell: cell.finished, default=None)
    said = f"{last.task}/{last.split} {100 * score_cell(last).score:.1f} {last.status}" if last else ""
    return Progress(entry, len(cells), planned, said, begun)
