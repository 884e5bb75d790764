"""The standing of each entry of a list, with its uncertainty: intervals, shared ranks, power."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.power import Power
from harness.leaderboard.repeats import common_repeats, repeated
from harness.leaderboard.stats import Interval, Scores, TaskPredictions, scores_of
from harness.leaderboard.ties import Comparison, Pairs, resolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import Entry

_ROUNDING = 1e-8
"""Standard error that is 0 but for rounding."""


@dataclass(frozen=True)
class Standing:
    """The standing of one entry."""

    rank: int | None
    """Rank, shared with neighbours if no entry of this rank was shown to be better. The rule is in
    `harness.leaderboard.ties`. None if there are too few splits for ranks."""
    rank_low: int | None
    """Interval of the rank, simultaneous for all entries."""
    rank_high: int | None
    average: Interval
    behind: Comparison | None
    """The best average minus this one's, adjusted for all pairs; None for the best entry."""


@dataclass(frozen=True)
class Standings:
    """One list: the complete entries of a division."""

    names: tuple[str, ...]
    """Best first: the systems of `scores`, in its order."""
    tasks: tuple[str, ...]
    """The tasks of `scores`, in its order."""
    scores: Scores

    @property
    def ranked(self) -> bool:
        """Whether there are enough splits for ranks. If not, there are only intervals."""
        return self.scores.carries_ranks or len(self.names) == 1

    @cached_property
    def pairs(self) -> Pairs:
        """All differences of averages."""
        return Pairs(self.scores.differences())

    @cached_property
    def entries(self) -> dict[str, Standing]:
        """By name."""
        ranks, limits = self.pairs.ranks().tolist(), self.pairs.rank_intervals().tolist()
        found = {}
        for n, name in enumerate(self.names):
            rank, (low, high) = (ranks[n], limits[n]) if self.ranked else (None, (None, None))
            found[name] = Standing(rank, low, high, self.scores.score(n), self.pairs.compare(0, n) if n else None)
        return found

    @property
    def resolution(self) -> float | None:
        """Smaller differences to the best entry usually are ties (`harness.leaderboard.ties.resolution`)."""
        return resolution(self.pairs)

    @cached_property
    def power(self) -> Power | None:
        """The power of the list; None where no noise is seen: of a single entry, and where most are copies of one."""
        noisy = len(self.names) > 1 and self.pairs.typical[0] > _ROUNDING
        return Power.of(self.pairs, self.ranked) if noisy else None

    @property
    def first(self) -> tuple[str, ...]:
        """The entries with rank 1: several if they tie, none if there are no ranks."""
        return tuple(name for name in self.names if self.entries[name].rank == 1)

    def against(self, name: str, task: str | None = None) -> dict[str, Comparison]:
        """An entry minus each other one, adjusted for all pairs of the list; on a task, or on average."""
        system = self.names.index(name)
        pairs = self.pairs if task is None else self.on(task)
        return {other: pairs.compare(system, n) for n, other in enumerate(self.names) if n != system}

    @cached_property
    def _on(self) -> dict[str, Pairs]:
        """Cache of all differences by task: each of a list's pairs asks for them."""
        return {}

    def on(self, task: str) -> Pairs:
        """All differences on one task."""
        if task not in self._on:
            self._on[task] = Pairs(self.scores.differences(self.tasks.index(task)))
        return self._on[task]

    def among(self, names: tuple[str, ...]) -> Standings:
        """The list of these entries alone, in the same order, ranked again."""
        kept = [n for n, name in enumerate(self.names) if name in names]
        return Standings(tuple(self.names[n] for n in kept), self.tasks, self.scores.among(kept))


def standings(entries: Sequence[Entry]) -> Standings | None:
    """Compare entries that all have the same cells, best average first; None if there are no entries."""
    if not entries or not all(len(cell.predicted) for entry in entries for cell in entry.cells):
        return None
    tasks = tuple(sorted(entries[0].tasks))
    scores = scores_of([predictions(task, entries) for task in tasks])
    return Standings(tuple(entry.name for entry in entries), tasks, scores)


def predictions(task: str, entries: Sequence[Entry]) -> TaskPredictions:
    """The scored predictions of each entry's cells on a task, in the order of splits."""
    cells = [sorted((c for c in entry.cells if c.task == task), key=lambda c: c.split) for entry in entries]
    count = common_repeats(cells)
    # (systems, splits x repeats, items), the repeats of a split one after the other
    predicted = np.array([[each for cell in own for each in repeated(cell, count)] for own in cells])
    first = cells[0][0]
    return TaskPredictions(predicted, first.labels, *first.scored_by, count)
