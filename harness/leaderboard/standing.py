"""Where each entry of one list stands, as far as the measurements can tell: intervals, shared ranks, resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.repeats import common_repeats, repeated
from harness.leaderboard.stats import Bootstrap, Interval, TaskPredictions, bootstrap
from harness.leaderboard.ties import Comparison, compare, rank_intervals, resamples_for, resolution, shared_ranks
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import Entry

SEED = 0
"""Of the bootstrap's generator: the same facts give the same intervals."""


@dataclass(frozen=True)
class Standing:
    """What can be said of one entry."""

    rank: int
    """Shared with everybody who cannot be told from the best of them; the rule is in `harness.leaderboard.ties`."""
    rank_low: int
    rank_high: int
    """Bootstrap interval of the rank."""
    average: Interval
    behind: Comparison | None
    """The best average minus this one's, as one of the list's family; None for the best."""


@dataclass(frozen=True)
class Standings:
    """One list: the complete entries of a division."""

    names: tuple[str, ...]
    """Best average first: the systems of `scores`, in its order."""
    tasks: tuple[str, ...]
    """The tasks of `scores`, in its order; none in a list of some entries, which keeps averages alone."""
    scores: Bootstrap
    entries: dict[str, Standing]
    resolution: float | None
    """Differences to the best under this usually are ties (`harness.leaderboard.ties.resolution`)."""

    def against(self, name: str, task: str | None = None) -> dict[str, Comparison]:
        """An entry minus each other one, as one family; on a task, or on average."""
        system = self.names.index(name)
        others = [n for n in range(len(self.names)) if n != system]
        found = compare(self.scores, system, others, None if task is None else self.tasks.index(task))
        return {self.names[n]: comparison for n, comparison in zip(others, found, strict=True)}

    def among(self, names: tuple[str, ...]) -> Standings:
        """The list of these entries alone, in the same order, from the same replicates."""
        kept = [n for n, name in enumerate(self.names) if name in names]
        observed, averages = self.scores.on()
        scores = Bootstrap(observed[None, kept], averages[kept].T[:, None])
        return _standings(tuple(self.names[n] for n in kept), (), scores)


def standings(entries: Sequence[Entry]) -> Standings | None:
    """Resample entries that all have the same cells, best average first; None where there is nothing to resample."""
    if not entries or not all(len(cell.predicted) for entry in entries for cell in entry.cells):
        return None
    tasks = tuple(sorted(entries[0].tasks))
    found = [predictions(task, entries) for task in tasks]
    scores = bootstrap(found, np.random.default_rng(SEED), resamples_for(len(entries)))
    return _standings(tuple(entry.name for entry in entries), tasks, scores)


def _standings(names: tuple[str, ...], tasks: tuple[str, ...], scores: Bootstrap) -> Standings:
    ranks, limits = shared_ranks(scores), rank_intervals(scores)
    behind = [None, *compare(scores, 0, range(1, len(names)))]
    found = {
        name: Standing(int(ranks[n]), int(limits[n, 0]), int(limits[n, 1]), scores.score(n), behind[n])
        for n, name in enumerate(names)
    }
    return Standings(names, tasks, scores, found, resolution([each for each in behind if each is not None]))


def predictions(task: str, entries: Sequence[Entry]) -> TaskPredictions:
    """What counts of each entry's cells on a task, in the order of splits."""
    file = load_task(task)
    cells = [sorted((c for c in entry.cells if c.task == task), key=lambda c: c.split) for entry in entries]
    count = common_repeats(cells)
    # (systems, splits x repeats, items), the repeats of a split one after the other
    predicted = np.array([[each for cell in own for each in repeated(cell, count)] for own in cells])
    metric = cells[0][0].metric or file.metric
    return TaskPredictions(predicted, cells[0][0].labels, metric, len(file.classes), count)
