"""Intervals of shares: how sure a counted share is."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import beta

COVERAGE = 0.95


@dataclass(frozen=True)
class Share:
    """A share of cases with its interval, from 0 to 1."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """In per cent, as people read it."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share(hits: int, cases: int) -> Share:
    """The share of cases that were hits, with the interval of Clopper and Pearson (Biometrika 26, 1934).

    Args:
        hits: cases that count.
        cases: all cases, independent of each other.

    Returns:
        The share. Of no cases it is 0 to 1.
    """
    if not cases:
        return Share(0.0, 0.0, 1.0)
    tail = (1 - COVERAGE) / 2
    low = float(beta.ppf(tail, hits, cases - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, cases - hits)) if hits < cases else 1.0
    return Share(hits / cases, low, high)
