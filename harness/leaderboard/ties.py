"""Which differences count: p-values, Holm's adjustment, shared ranks, rank intervals. Pure numpy.

With d the observed difference of two systems and d* its B bootstrap replicates (`harness.leaderboard.stats`), the
p-value inverts the percentile interval:

    p = min(1, 2 (1 + min(#{d* <= 0}, #{d* >= 0})) / (B + 1))        (Davison & Hinkley 1997, chapter 4)

so that p <= a exactly where the interval at level 1 - a, from the r-th smallest to the r-th largest d* with
r = floor(a (B + 1) / 2), does not contain 0. A family of m comparisons is adjusted step-down (Holm 1979): the i-th
smallest p is held against a / (m - i + 1), until one fails. The interval shown with a comparison is at the level its
p was held against (for those after the first failure: the level that failed), so it excludes 0 exactly where Holm
rejects.

Shared ranks. Systems are walked through in the order of their scores. The first is the leader of a group, and everybody
after it is compared with it, as one family. The group ends before the first system whose interval excludes 0; that
system leads the next group, and is compared with everybody after it. All of a group have the rank of their leader, its
place. So ranks are an order with ties (every system is in one group, and no system has a better rank than one with a
higher score), and each step from one rank to the next stands for a difference that was shown. Being noisy does not
help: who cannot be told from the leader, but stands below somebody who can, is not taken along. The comparison with
the best is Hsu's (1984, Annals of Statistics 12, 1136-1144), Holm's adjustment against the leader and the repetition
below each leader are choices of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.stats import LEVEL, RESAMPLES, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import IntArray
    from harness.leaderboard.stats import Bootstrap, FloatArray

ALPHA = round(1 - LEVEL, 9)
"""Chance that any of a family of differences that are 0 is called one."""
_BLOCK = 1_000
"""Replicates ranked at once."""
_PER_SYSTEM = 60
"""Replicates for each system: Holm's first step among m comparisons needs 2 m / ALPHA = 40 m of them at least."""


@dataclass(frozen=True)
class Comparison:
    """A difference, as one of a family."""

    difference: Interval
    """At the level of Holm's step; excludes 0 exactly where `tied` is false."""
    p: float
    p_holm: float
    """Adjusted for the family: to be compared with `ALPHA`."""

    @property
    def tied(self) -> bool:
        """Whether the order is open."""
        return self.p_holm > ALPHA


def resamples_for(systems: int) -> int:
    """Replicates that let each system be compared with all others in one family."""
    return max(RESAMPLES, _PER_SYSTEM * systems)


def p_values(replicates: FloatArray) -> FloatArray:
    """Two-sided bootstrap p-values of no difference: replicates of differences (..., resamples) -> (...)."""
    below, above = (replicates <= 0).sum(axis=-1), (replicates >= 0).sum(axis=-1)
    return np.asarray(np.minimum(2 * (1 + np.minimum(below, above)) / (replicates.shape[-1] + 1), 1.0))


def holm(p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Holm's adjusted p-values of a family, and the levels of alpha that each was held against: (m,) -> (m,), (m,)."""
    order = np.argsort(p, kind="stable")
    left = np.arange(len(p), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(left * p[order]), 1.0)
    rejected = int((adjusted <= ALPHA).sum())  # adjusted ascends: they come first
    levels = ALPHA / np.maximum(left, len(p) - rejected)
    back = np.argsort(order)
    return adjusted[back], levels[back]


def compare(scores: Bootstrap, system: int, others: Sequence[int], task: int | None = None) -> list[Comparison]:
    """`system` minus each of the others, as one family; on a task, or on average.

    Raises:
        ValueError: too few replicates for so many comparisons.
    """
    observed, replicates = scores.on(task)
    p = _family(replicates, system, others)
    adjusted, levels = holm(p)
    found = []
    for n, other in enumerate(others):
        low, high = _limits(replicates[system] - replicates[other], float(levels[n]))
        interval = Interval(float(observed[system] - observed[other]), low, high)
        found.append(Comparison(interval, float(p[n]), float(adjusted[n])))
    return found


def _family(replicates: FloatArray, system: int, others: Sequence[int]) -> FloatArray:
    """p-values of `system` against each of the others, from replicates (systems, resamples): (others,).

    Raises:
        ValueError: too few replicates for so many comparisons.
    """
    resamples, needed = replicates.shape[-1], int(np.ceil(2 * len(others) / ALPHA))
    if resamples < needed:
        raise ValueError(
            f"{resamples:,} replicates for {len(others)} comparisons, {needed:,} needed; take resamples_for(systems)"
        )
    return np.array([float(p_values(replicates[system] - replicates[other])) for other in others])


def shared_ranks(scores: Bootstrap) -> IntArray:
    """Rank of each system by its average over tasks, 1 is best: (systems,). The rule stands at the top."""
    observed, replicates = scores.on()
    order = np.argsort(-observed, kind="stable")
    ranks = np.ones(len(order), dtype=np.int64)
    leader = 0
    while leader < len(order):
        after = [int(n) for n in order[leader + 1 :]]
        open_ = (holm(_family(replicates, int(order[leader]), after))[0] > ALPHA).tolist()
        group = 1 + (open_.index(False) if False in open_ else len(open_))
        ranks[order[leader : leader + group]] = leader + 1
        leader += group
    return ranks


def rank_intervals(scores: Bootstrap) -> IntArray:
    """Percentile intervals at `LEVEL` of each system's rank by average: (systems, 2), lowest and highest.

    In a replicate, the rank of a system is 1 + the number of systems with a higher average.
    """
    resamples = scores.averages.shape[1]
    blocks = (scores.averages[:, n : n + _BLOCK] for n in range(0, resamples, _BLOCK))
    ranks = np.concatenate([_ranks(block).astype(np.int32) for block in blocks], axis=1)  # (systems, resamples)
    limits = [np.quantile(own, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf") for own in ranks]
    return np.array(limits, dtype=np.int64)


def _ranks(averages: FloatArray) -> IntArray:
    """Rank of each system in each replicate: (systems, resamples), 1 is the highest, equals have the same."""
    falling = -averages.T  # (resamples, systems)
    order = np.argsort(falling, axis=1, kind="stable")
    ascending = np.take_along_axis(falling, order, axis=1)
    new = np.diff(ascending, axis=1, prepend=-np.inf) > 0  # worse than the one before
    places = np.maximum.accumulate(np.where(new, np.arange(1, len(averages) + 1), 0), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, places, axis=1)
    return np.asarray(ranks.T)


def resolution(comparisons: Sequence[Comparison]) -> float | None:
    """Differences under this usually are ties: the median of half the intervals' widths. None without comparisons.

    It is no limit: two versions of one system are told apart by less, since they err on the same items.
    """
    halves = [(each.difference.high - each.difference.low) / 2 for each in comparisons]
    return float(np.median(halves)) if halves else None


def _limits(replicates: FloatArray, alpha: float) -> tuple[float, float]:
    """The r-th smallest and the r-th largest replicate: the interval that p inverts."""
    size = len(replicates)
    r = int(alpha * (size + 1) / 2 + 1e-9)  # a hair up: 250 must not become 249 by rounding
    low, high = np.partition(replicates, [r - 1, size - r])[[r - 1, size - r]]
    return float(low), float(high)
