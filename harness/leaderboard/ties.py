"""Decides which differences are significant: simultaneous intervals for all pairs, and the ranks that follow from them.

With D_ab the difference of two systems of k, se_ab its standard error and v_ab the error's degrees of freedom
(`harness.leaderboard.stats`), all intervals

    D_ab -+ q(k, v_ab) / sqrt(2) * se_ab

hold together at `LEVEL`, where q is the quantile of the studentized range of k (Tukey 1953; for unequal variances Games
& Howell 1976, Journal of Educational Statistics 1, 113-125). Two systems are *told apart* where their interval does not
contain 0. The adjusted p-value of a pair is the chance that the range of k equal systems exceeds its sqrt(2) |D| / se:
it is at most `ALPHA` exactly where the pair is told apart. It is the same whichever of the two one begins with, and
whether one asks about one pair or about all. Everything below is read from this one set.

Rank intervals. From 1 + the number of systems shown to be better, to k - the number shown to be worse. All together
hold the true ranks wherever all intervals hold the true differences (Mogstad, Romano, Shaikh & Wilhelm 2024, Review
of Economic Studies 91, 476-518).

Shared ranks. Systems are walked through in the order of their scores. The first has rank 1. A system has the rank of
the one above it, unless somebody of that rank was shown to be better; then its rank is its place. So

- two systems that were told apart have different ranks, the better one the better rank;
- systems that share a rank were not told apart, whichever two of them one takes;
- no system has a better rank than one with a higher score, and every rank lies in its interval.

The converse of the first cannot be had: of three systems the middle one may be told apart from neither. So different
ranks alone show nothing about two neighbours. The walk is this project's rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from harness.leaderboard.stats import LEVEL, Interval
from harness.leaderboard.studentized import exceeds, quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from harness.contract import IntArray
    from harness.leaderboard.stats import Differences, FloatArray

ALPHA = round(1 - LEVEL, 9)
"""Probability that any difference that is truly 0 is called significant."""
_NODES = 9
"""Degrees of freedom at which the studentized range is computed; between them it is interpolated."""
_FEW = 2.0
"""Degrees of freedom below which it is computed each time."""
_MANY = 1e6
"""Degrees of freedom that are as good as infinitely many."""


@dataclass(frozen=True)
class Comparison:
    """A difference, as one of all pairs of its list."""

    difference: Interval
    """Simultaneous for all pairs; excludes 0 exactly where `tied` is false."""
    p: float
    """Adjusted for all pairs: to be compared with `ALPHA`."""
    entries: int
    """Systems whose pairs it is one of."""

    @property
    def tied(self) -> bool:
        """Whether the order of the two is undecided."""
        return self.p > ALPHA


@dataclass(frozen=True)
class Pairs:
    """All pairs of a list's systems."""

    found: Differences

    @property
    def entries(self) -> int:
        """Number of systems."""
        return len(self.found.averages)

    @cached_property
    def halves(self) -> FloatArray:
        """Half-widths of the simultaneous intervals: (systems, systems)."""
        return np.asarray(critical(self.entries, self.found.freedom) * self.found.errors)

    @cached_property
    def better(self) -> npt.NDArray[np.bool_]:
        """Where row was shown to be better than column: (systems, systems)."""
        return np.asarray(self.found.values > self.halves)

    def compare(self, system: int, other: int) -> Comparison:
        """`system` minus `other`."""
        value, half = float(self.found.values[system, other]), float(self.halves[system, other])
        p = float(adjusted_p(self.entries, value, self.found.errors[system, other], self.found.freedom[system, other]))
        apart = self.better[system, other] or self.better[other, system]
        # The interval's quantile is interpolated: at the limit itself, the interval decides
        p = min(p, ALPHA) if apart else max(p, float(np.nextafter(ALPHA, 1)))
        return Comparison(Interval(value, value - half, value + half), p, self.entries)

    def ranks(self) -> IntArray:
        """Shared rank of each system, 1 is best: (systems,)."""
        order = np.argsort(-self.found.averages, kind="stable")
        ranks = np.ones(len(order), dtype=np.int64)
        first = 0
        for place, system in enumerate(order):
            if self.better[order[first:place], system].any():
                first = place
            ranks[system] = first + 1
        return ranks

    def rank_intervals(self) -> IntArray:
        """Lowest and highest rank of each system, all at `LEVEL` together: (systems, 2)."""
        return np.stack([1 + self.better.sum(axis=0), self.entries - self.better.sum(axis=1)], axis=1)

    @cached_property
    def typical(self) -> tuple[float, float]:
        """Standard error and degrees of freedom of a pair in the middle: medians over pairs; of two systems or more."""
        upper = np.triu_indices(self.entries, 1)
        return float(np.median(self.found.errors[upper])), float(np.median(self.found.freedom[upper]))


def critical(entries: int, freedom: FloatArray) -> FloatArray:
    """Quantile at `LEVEL` of the largest |difference| / standard error among all pairs, for each of some freedoms."""
    if entries < 3:  # noqa: PLR2004 - a pair: Student's t
        return np.asarray(stats.t.ppf((1 + LEVEL) / 2, np.minimum(freedom, _MANY)))
    found = np.exp(_curve(entries)(np.minimum(1 / np.maximum(freedom, _FEW), 1 / _FEW)))
    for place in np.argwhere(freedom < _FEW):
        found[tuple(place)] = _range_quantile(entries, float(freedom[tuple(place)]))
    return np.asarray(found)


def adjusted_p(
    entries: int, value: FloatArray | float, error: FloatArray | float, freedom: FloatArray | float
) -> FloatArray:
    """Chance that any pair of so many equal systems differs by so many standard errors."""
    size = np.abs(np.asarray(value, dtype=np.float64))
    t = np.divide(size, error, out=np.where(size > 0, np.inf, 0.0), where=np.asarray(error) > 0)
    many = np.minimum(freedom, _MANY)
    if entries < 3:  # noqa: PLR2004 - a pair: Student's t
        return np.asarray(2 * stats.t.sf(t, many))
    within = np.minimum(t, _MANY) * np.sqrt(2)
    return exceeds(within, entries, np.where(many < _MANY, many, np.inf))


@cache
def _curve(entries: int) -> np.polynomial.Chebyshev:
    """Logarithm of the quantile by 1 / freedom from 0 to 1 / `_FEW`: smooth, so few points give it to 1e-5."""
    domain = [0, 1 / _FEW]
    return np.polynomial.Chebyshev.interpolate(
        lambda shares: np.log([_range_quantile(entries, 1 / share) for share in shares]), _NODES - 1, domain
    )


@cache
def _range_quantile(entries: int, freedom: float) -> float:
    return quantile(LEVEL, entries, freedom) / float(np.sqrt(2))


def resolution(pairs: Pairs, system: int = 0) -> float | None:
    """Differences to a system under this usually are ties: median half-width of its intervals. None if it is alone.

    It is no limit: two versions of one system are told apart by less, since they err on the same items.
    """
    others: Sequence[int] = [n for n in range(pairs.entries) if n != system]
    return float(np.median(pairs.halves[system, others])) if others else None
