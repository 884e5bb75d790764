"""Every run of a track, and which entry led when.

A run is dated by the end of its last cell. The leader at a time is the entry with the highest average among those that
were complete by then, each with its newest complete run. An entry that was withdrawn led until its withdrawal. This
says who stood on top of the list and not who was shown to be better: that is in the ranking alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from harness.leaderboard.rank import score_cell
from harness.results import tables
from harness.results.status import COUNTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harness.leaderboard.entries import CellScore, Division
    from harness.leaderboard.rank import Ranking, Withdrawn
    from harness.results.records import Run
    from harness.results.store import Store


@dataclass(frozen=True)
class Outcome:
    """How a run ended, from its own cells alone."""

    places: tuple[tuple[str, int], ...]
    """Finished cells: task and split."""
    failed: int
    """Cells that count as failures."""
    average: float | None
    """Mean over tasks of the mean over splits, of the cells that there are; None without a cell."""
    calls: float | None
    """Sum over cells; None for references and uploads."""
    sandbox: str

    @classmethod
    def of(cls, cells: Iterable[CellScore]) -> Outcome:
        """Sum up the cells of a run."""
        own = list(cells)
        by_task: dict[str, list[float]] = {}
        for cell in own:
            by_task.setdefault(cell.task, []).append(cell.score)
        return cls(
            tuple((cell.task, cell.split) for cell in own),
            sum(cell.status not in COUNTS for cell in own),
            float(np.mean([np.mean(scores) for scores in by_task.values()])) if own else None,
            sum(c.record.calls_spent for c in own) if own and all(c.record.train_rows for c in own) else None,
            " ".join(sorted({cell.record.sandbox for cell in own})),
        )


@dataclass(frozen=True)
class Tried:
    """One run in the history."""

    run: Run
    outcome: Outcome
    ended: float | None
    """Unix seconds; None before the first cell ended."""
    comparable: bool
    """Whether it may be compared with the main division: the same data, model, seed, device and isolation."""
    complete: bool
    """Whether it has all cells of the main division."""
    withdrawn: Withdrawn | None
    """The withdrawal of its entry, if that is in force."""
    counts: bool
    """Whether it is the run with which its entry stands in the ranking."""


@dataclass(frozen=True)
class Lead:
    """A time in which one entry led."""

    tried: Tried
    since: float
    until: float | None
    """None for the entry that leads now."""


@dataclass(frozen=True)
class History:
    """All runs of a track, and the leaders."""

    runs: tuple[Tried, ...]
    """Oldest first."""
    leads: tuple[Lead, ...]
    """Oldest first."""


def history(store: Store, ranking: Ranking, outcome: Callable[[Run], Outcome] | None = None) -> History:
    """The history of a ranking's track.

    `outcome` sums a run up; by default its cells are read and scored.
    """
    runs = [run for run in store.runs() if run.key.track == ranking.track]
    ended = _ends(store)
    found = outcome or (lambda run: Outcome.of(score_cell(cell) for cell in store.cells(run.id)))
    main = next(iter(ranking.divisions), None)
    complete = ranking.complete(main) if main else ()
    needed = {(cell.task, cell.split) for entry in complete[:1] for cell in entry.cells}
    withdrawn = {each.name: each for each in ranking.withdrawn}
    standing = {entry.run for entry in (*ranking.entries, *ranking.elsewhere)}
    listed = []
    for run in runs:
        own = found(run)
        alike = main is not None and _alike(run, own, ranking, main)
        whole = bool(needed) and needed <= set(own.places)
        out = withdrawn.get(run.key.label)
        listed.append(Tried(run, own, ended.get(run.id), alike, whole, out, run.id in standing))
    return History(tuple(listed), tuple(_leads(listed)))


def _alike(run: Run, outcome: Outcome, ranking: Ranking, main: Division) -> bool:
    """Whether a run may be compared with the main division."""
    key = run.key
    same = all(getattr(key, name) == value for name, value in ranking.identity.items())
    plain = key.access == "black-box" and not key.modified and not key.external and not key.repeat
    return same and plain and outcome.sandbox == main.sandbox


def _leads(listed: list[Tried]) -> list[Lead]:
    """Walk through the ends of complete runs and through withdrawals, oldest first."""
    taken = {each.withdrawn.name: each.withdrawn.made for each in listed if each.withdrawn}
    events: list[tuple[float, int, str, Tried | None]] = [(made, -1, name, None) for name, made in taken.items()]
    for n, each in enumerate(listed):
        if each.ended and each.complete and each.comparable:
            events.append((each.ended, n, each.run.key.label, each))
    current: dict[str, Tried] = {}
    leads: list[Lead] = []
    for at, _, label, tried in sorted(events, key=lambda each: each[:2]):
        if tried is not None and not (label in taken and at > taken[label]):
            current[label] = tried
        elif tried is None:
            current.pop(label, None)
        best = max(current.values(), key=lambda each: each.outcome.average or 0.0, default=None)
        if leads and leads[-1].until is None and (best is None or leads[-1].tried is not best):
            leads[-1] = Lead(leads[-1].tried, leads[-1].since, at)
        if best is not None and (not leads or leads[-1].until is not None):
            leads.append(Lead(best, at, None))
    return leads


def _ends(store: Store) -> Mapping[str, float]:
    """When the last finished cell of each run ended, in Unix seconds."""
    columns = tables.outcomes.c
    query = sa.select(columns.run, sa.func.max(columns.finished)).group_by(columns.run)
    with store.snapshot() as connection:
        return {run: float(at) for run, at in connection.execute(query)}
