"""What a list can tell: how large a lead must be to be seen, from the noise that was measured. Pure.

A lead of d points of one entry over one other is told apart where |D| > q se (`harness.leaderboard.ties`). For D
around d with standard error se and v degrees of freedom that happens with the chance that Student's noncentral t

    P( T > q ),   T ~ t(v, d / se)

has (Johnson, Kotz & Balakrishnan 1995, *Continuous Univariate Distributions* 2, chapter 31). se and v are those of the
pair in the middle of all pairs; entries that vary more than others need more, and two versions of one method less.
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
"""How often a lead is to be seen."""


@dataclass(frozen=True)
class Power:
    """What a list of so many entries can tell."""

    entries: int
    error: float
    """Standard error of the difference of two averages, a share: that of the pair in the middle."""
    freedom: float
    """Its degrees of freedom."""
    ranked: bool
    """Whether the design carries ranks at all."""

    @classmethod
    def of(cls, pairs: Pairs, ranked: bool) -> Power:
        """Of two entries or more."""
        return cls(pairs.entries, *pairs.typical, ranked)

    def chance(self, lead: float) -> float:
        """How often a lead, a share, is seen."""
        if not self.error:
            return float(lead > 0)
        q = float(critical(self.entries, np.array([self.freedom]))[0])
        return float(stats.nct.sf(q, self.freedom, lead / self.error))

    def lead(self, chance: float) -> float:
        """The lead, a share, that is seen so often."""
        if not self.error:
            return 0.0
        q = float(critical(self.entries, np.array([self.freedom]))[0])
        top = self.error * (3 * q + 20)
        return float(optimize.brentq(lambda lead: self.chance(lead) - chance, 0.0, top, xtol=1e-7))

    def sentence(self) -> str:
        """In words: the leads that are seen in 9, 5 and 1 of 10 cases."""
        often, half, rarely = (100 * self.lead(chance) for chance in CHANCES)
        return (
            f"with {self.entries} entries, a lead of {often:.1f} points over one of them is seen in 9 of 10 cases, "
            f"one of {half:.1f} in 5 of 10, one of {rarely:.1f} in 1 of 10"
        )

    def record(self) -> dict[str, Any]:
        """For machines: shares, and the leads by how often they are seen."""
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
        """As `record` wrote it."""
        return cls(record["entries"], record["standard_error"], record["degrees_of_freedom"], record["ranked"])
