"""What a results page is made of: the runs of several databases as one, ranked and compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.rank import rank
from harness.leaderboard.standing import Standings, predictions
from harness.leaderboard.stats import scores_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.stats import FloatArray, Interval
    from harness.leaderboard.ties import Comparison
    from harness.results.records import Run, StoredCell
    from harness.results.rulings import Ruling
    from harness.results.store import Store
    from harness.tracks.track import Track


class Runs:
    """The runs of several databases on one track, read as `rank` reads a store."""

    def __init__(self, stores: Sequence[Store], track: str) -> None:
        """Read all; the cells of a run that is in several databases are united."""
        found: dict[str, Run] = {}
        self._cells: dict[str, list[StoredCell]] = {}
        for store in stores:
            for run in store.runs():
                if run.key.track == track:
                    found[run.id] = run
                    united = {(cell.task, cell.split): cell for cell in (*self.cells(run.id), *store.cells(run.id))}
                    self._cells[run.id] = [united[place] for place in sorted(united)]
        rulings = {each.id: each for store in stores for each in store.rulings()}
        self._rulings = sorted(rulings.values(), key=lambda each: (each.made, each.id))
        self.by_id = dict(sorted(found.items(), key=lambda item: (len(self.cells(item[0])), item[1].started)))

    def runs(self) -> list[Run]:
        """Runs in the order of their number of cells, then of age. The last run of an entry is the one that counts."""
        return list(self.by_id.values())

    def cells(self, run: str) -> list[StoredCell]:
        """Finished cells of a run, in order of task and split."""
        return self._cells.get(run, [])

    def rulings(self) -> list[Ruling]:
        """What was decided in any of the databases, oldest first."""
        return self._rulings

    def rank(self, track: Track) -> Ranking:
        """The leaderboard, by the same rules as `harness leaderboard`."""
        return rank(self, track.name, track.fingerprint, track.planned, track.ranks, prices=track.prices)


@dataclass(frozen=True)
class Measured:
    """The data of a page."""

    track: Track
    ranking: Ranking
    runs: Runs
    complete: tuple[Entry, ...]
    """Entries with all cells, ranked or white-box."""
    found: Standings | None
    """All of them in one list, on the cells that all have; None where no entry is complete."""

    def interval(self, name: str) -> Interval | None:
        """Average of an entry; None where it has no complete run."""
        if self.found is None or name not in self.found.names:
            return None
        return self.found.scores.score(self.found.names.index(name))

    def difference(self, first: str, second: str, task: str | None = None) -> Comparison | None:
        """`first` minus `second` on a task or on average, as one of all pairs; None without complete runs of both."""
        if self.found is None or not {first, second} <= set(self.found.names):
            return None
        return self.found.against(first, task)[second]

    def cells(self, name: str) -> list[StoredCell]:
        """Stored cells of an entry, in order of task and split."""
        return self.runs.cells(next(entry.run for entry in self.ranking.entries if entry.name == name))


def measure(stores: Sequence[Store], track: Track) -> Measured | None:
    """Rank and compare; None where there is no run on the track."""
    runs = Runs(stores, track.name)
    ranking = runs.rank(track)
    if not ranking.entries:
        return None
    complete = tuple(entry for entry in ranking.entries if not entry.missing)
    common = set.intersection(*({(c.task, c.split) for c in entry.cells} for entry in complete)) if complete else set()
    tasks = tuple(sorted({task for task, _ in common}))
    shared = [replace(entry, cells=tuple(c for c in entry.cells if (c.task, c.split) in common)) for entry in complete]
    names = tuple(entry.name for entry in shared)
    found = Standings(names, tasks, scores_of([predictions(task, shared) for task in tasks])) if tasks else None
    return Measured(track, ranking, runs, complete, found)


@dataclass(frozen=True)
class Race:
    """How soon a system reaches the final dev score of a reference: budget shares, an array (splits,) per task."""

    tasks: tuple[str, ...]
    system: tuple[FloatArray, ...]
    reference: tuple[FloatArray, ...]
    without_target: int
    """Number of cells left out because the reference offers no dev score."""


def race(system: Sequence[StoredCell], reference: Sequence[StoredCell]) -> Race | None:
    """Compare cell by cell; the target is the dev score of the last answer that the reference offers with one.

    None where the offers of some cell are not recorded.
    """
    pairs = list(zip(system, reference, strict=True))
    if not all(cell.record.history is not None for pair in pairs for cell in pair):
        return None
    aimed = [(mine, its, target) for mine, its in pairs if (target := _last_dev(its)) is not None]
    tasks = tuple(dict.fromkeys(mine.task for mine, _, _ in aimed))
    shares = [(mine.task, _share(mine, target), _share(its, target)) for mine, its, target in aimed]
    return Race(
        tasks,
        tuple(np.array([a for name, a, _ in shares if name == task]) for task in tasks),
        tuple(np.array([b for name, _, b in shares if name == task]) for task in tasks),
        len(pairs) - len(aimed),
    )


def _last_dev(cell: StoredCell) -> float | None:
    """Dev score of the last answer that was offered with one."""
    return next((note["dev"] for _, note in reversed(cell.record.history or ()) if "dev" in note), None)


def _share(cell: StoredCell, target: float) -> float:
    """Share of the budget spent when the target was first reached, at least one row; inf if it was never reached."""
    offers = cell.record.history or ()
    first = next((rows for rows, note in offers if note.get("dev", -math.inf) >= target), math.inf)
    return float(max(first, 1) / cell.record.rows_total)
