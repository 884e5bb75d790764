"""Who uses a competition, for its organiser: runs, days, calls and time of each team, ranked or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from harness.leaderboard.terminal import day
from harness.tracks.competition import day_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.results.records import Run
    from harness.results.store import Store


@dataclass(frozen=True)
class Usage:
    """What one team has done on a track."""

    team: str
    """Its name, or that of the entry where no team was named."""
    entries: int
    """Names of entries, whatever their options."""
    runs: int
    """All runs, trials and repeats among them."""
    uploads: int
    """Archives of predictions, which are not in `runs`."""
    today: int
    """Runs and archives that began on the present day of UTC."""
    cells: int
    """Finished cells."""
    calls: float
    tokens: int
    tuning_s: float
    last: float
    """When its newest run began, in Unix seconds."""


def usage(store: Store, track: str, now: float | None = None) -> list[Usage]:
    """What each team has done on a track of any version, by the newest run, newest first.

    Args:
        store: the database.
        track: name of the track.
        now: Unix seconds; None is the present.
    """
    teams: dict[str, list[Run]] = {}
    for run in store.runs():
        if run.key.track == track:
            teams.setdefault(run.key.team or run.key.tried[2], []).append(run)
    return sorted((_of(store, team, runs, day_start(now)) for team, runs in teams.items()), key=lambda each: -each.last)


def _of(store: Store, team: str, runs: Sequence[Run], today: float) -> Usage:
    uploads = [run for run in runs if run.key.access == "predictions"]
    records = [cell.record for run in runs for cell in store.cells(run.id)]
    return Usage(
        team=team,
        entries=len({run.key.tried for run in runs}),
        runs=len(runs) - len(uploads),
        uploads=len(uploads),
        today=sum(run.started >= today for run in runs),
        cells=len(records),
        calls=float(sum(each.calls_spent for each in records if each.train_rows)),
        tokens=sum(each.tokens for each in records),
        tuning_s=float(sum(each.tuning_s for each in records)),
        last=max(run.started for run in runs),
    )


def usage_table(found: Sequence[Usage], track: str) -> Table:
    """A line for each team."""
    table = Table(title=f"track {track}: usage", title_justify="left", box=None, pad_edge=False)
    table.add_column("team", overflow="fold")
    for name in ("entries", "runs", "archives", "today", "cells", "calls", "tokens", "min", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        counts = (each.entries, each.runs, each.uploads, each.today, each.cells)
        amounts = f"{each.calls:,.0f}", f"{each.tokens:,}", f"{each.tuning_s / 60:.1f}", day(each.last)
        table.add_row(escape(each.team), *(f"{count:,}" for count in counts), *amounts)
    return table


def usage_records(found: Sequence[Usage]) -> list[dict[str, Any]]:
    """One flat record per team, for machines."""
    return [{name: getattr(each, name) for name in Usage.__dataclass_fields__} for each in found]
