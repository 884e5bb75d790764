"""Shows the running cells from the results database, for another terminal.

It only reads, and it counts in the database, so the time of a look does not depend on the number of stored cells. A
cell that has begun and not ended is running or was interrupted. The database cannot distinguish the two, but the calls
of a running cell increase from one look to the next.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.leaderboard.rank import score_cell
from harness.tracks.tasks import find_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.results.records import OpenCell
    from harness.results.store import Store
    from harness.tracks.track import Track

_BAR = 24
"""Characters."""


@dataclass(frozen=True)
class Open:
    """A cell that has begun and not ended."""

    task: str
    split: int
    attempt: int
    calls: float
    """Calls answered so far, if the shots are drawn as the track says."""
    budget: int
    """The budget in calls."""
    calls_per_s: float
    """Since the last look, or since the cell began where there was none."""

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the budget at this rate; None if the rate is 0, or nothing is left."""
        left = self.budget - self.calls
        return left / self.calls_per_s if self.calls_per_s > 0 and left > 0 else None


@dataclass(frozen=True)
class Progress:
    """The newest run of an entry."""

    entry: str
    finished: int
    planned: int
    """Cells of the track; 0 where its splits are those of a data directory."""
    last: str
    """The cell that ended last, with its score; "" before there is one."""
    open: tuple[Open, ...]
    """Cells that have begun and not ended."""
    left_s: float | None
    """Seconds that the cells to come take, if each takes as long as the finished ones did on average; None before
    there is one, or where none is running."""


@dataclass(frozen=True)
class Look:
    """What was seen, and when."""

    at: float
    """Unix seconds."""
    runs: tuple[Progress, ...]


def look(store: Store, track: Track, before: Look | None = None, now: float | None = None) -> Look:
    """Runs of the track that have begun a cell and lack some, oldest first; rates are since the look `before`."""
    at = time.time() if now is None else now
    planned = len(track.planned)
    newest = {
        (run.key.label, run.key.access): run.id
        for run in store.runs()
        if run.key.track == track.name and run.key.access != "predictions"
    }
    earlier = {cell.attempt: cell.calls for each in (before.runs if before else ()) for cell in each.open}
    since = before.at if before else at
    found = [_progress(store, track, entry, run, planned, (earlier, since, at)) for (entry, _), run in newest.items()]
    return Look(at, tuple(each for each in found if each.open or 0 < each.finished < planned))


def watch_view(found: Sequence[Progress], track: str) -> Group | Text:
    """A line per run and a bar per open cell, readable at 100 columns."""
    if not found:
        return Text(f"track {track}: nothing is running, and no run lacks cells")
    table = Table(title=f"track {escape(track)}", title_justify="left", box=None, pad_edge=False)
    for name in ("submission", "cells", "", "calls", "calls/s", "left", "ended last"):
        right = name in {"cells", "calls", "calls/s", "left"}
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for each in found:
        of = f"{each.finished}/{each.planned}" if each.planned else str(each.finished)
        bar = _bar(each.finished, each.planned) if each.planned else ""
        table.add_row(escape(each.entry), of, bar, "", "", shown_seconds(each.left_s), each.last)
        for cell in each.open:
            calls = f"{cell.calls:,.0f}/{cell.budget:,}"
            name = f"  {cell.task}/{cell.split}"
            rate = f"{cell.calls_per_s:,.1f}"
            table.add_row(name, "", _bar(cell.calls, cell.budget), calls, rate, shown_seconds(cell.left_s), "")
    return Group(table)


def _progress(
    store: Store,
    track: Track,
    entry: str,
    run: str,
    planned: int,
    seen: tuple[Mapping[int, float], float, float],
) -> Progress:
    pace, last = store.pace(run), store.newest_cell(run)
    cells = tuple(_open(cell, track, *seen) for cell in store.open_cells(run) if cell.task in track.tasks)
    said = f"{last.task}/{last.split} {100 * score_cell(last).score:.1f} {last.status}" if last else ""
    to_come = max(planned - pace.finished, 0)
    moving = any(cell.calls_per_s for cell in cells)
    left_s = to_come * pace.cell_s if pace.cell_s is not None and to_come and moving else None
    return Progress(entry, pace.finished, planned, said, cells, left_s)


def _open(cell: OpenCell, track: Track, earlier: Mapping[int, float], since: float, at: float) -> Open:
    spec = track.tasks[cell.task]
    calls = cell.rows / (spec.shots * max(1, len(find_task(cell.task, track.tasks_folder).classes)))
    before, began = (earlier[cell.attempt], since) if cell.attempt in earlier else (0.0, cell.started)
    rate = (calls - before) / max(at - began, 1e-3)
    return Open(cell.task, cell.split, cell.attempt, calls, spec.calls, rate)


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(total=total, completed=min(done, total), width=_BAR)


def shown_seconds(seconds: float | None) -> str:
    """``mm:ss``, or hours; ``-`` where it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
