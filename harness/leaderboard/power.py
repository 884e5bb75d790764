"""The power of a list: how large a lead must be to be detected, computed from the measured noise. Pure functions.

A lead of d points of one entry over another is detected if |D| > q se (`harness.leaderboard.ties`). If D varies around
d with standard error se and v degrees of freedom, the probability follows from Student's noncentral t,

    P( T > q ),   T ~ t(v, d / se)

(Johnson, Kotz & Balakrishnan 1995, *Continuous Univariate Distributions* 2, chapter 31). se and v are medians over all
pairs. Entries that vary more than others need a larger lead, and two versions of one method a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, stats

from harness.leaderboard.ties import critical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.leaderboard.ties import Pairs

CHANCES = (0.9, 0.5, 0.1)
"""Probabilities with which a lead is detected."""


@dataclass(frozen=True)
class Power:
    """The power of a list with a given number of entries."""

    entries: int
    error: float
    """Standard error of the difference of two averages, as a share: the median over pairs."""
    freedom: float
    """Its degrees of freedom."""
    ranked: bool
    """Whether there are enough splits for ranks."""

    @classmethod
    def of(cls, pairs: Pairs, ranked: bool) -> Power:
        """The power of a list with two entries or more."""
        return cls(pairs.entries, *pairs.typical, ranked)

    def chance(self, lead: float) -> float:
        """Probability that a lead, given as a share, is detected."""
        if not self.error:
            return float(lead > 0)
        q = float(critical(self.entries, np.array([self.freedom]))[0])
        return float(stats.nct.sf(q, self.freedom, lead / self.error))

    def lead(self, chance: float) -> float:
        """The lead, as a share, that is detected with this probability."""
        if not self.error:
            return 0.0
        q = float(critical(self.entries, np.array([self.freedom]))[0])
        top = self.error * (3 * q + 20)
        return float(optimize.brentq(lambda lead: self.chance(lead) - chance, 0.0, top, xtol=1e-7))

    def sentence(self) -> str:
        """In words: the leads that are detected in 9, 5 and 1 of 10 cases."""
        often, half, rarely = (100 * self.lead(chance) for chance in CHANCES)
        return (
            f"with {self.entries} entries, a lead of {often:.1f} points over one of them is seen in 9 of 10 cases, "
            f"one of {half:.1f} in 5 of 10, one of {rarely:.1f} in 1 of 10"
        )

    def record(self) -> dict[str, Any]:
        """The record for JSON: shares, and the leads by the probability of their detection."""
        seen = {f"{chance:g}": round(self.lead(chance), 4) for chance in CHANCES}
        return {
            "entries": self.entries,
            "standard_error": round(self.error, 5),
            "degrees_of_freedom": round(min(self.freedom, 1e6), 1),
            "ranked": self.ranked,
            "lead_seen": seen,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Power:
        """Read what `record` wrote."""
        return cls(record["entries"], record["standard_error"], record["degrees_of_freedom"], record["ranked"])
