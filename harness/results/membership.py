"""Membership: how well the examples that an entry was tuned on are told from others by its stored answers.

`harness.leaks.membership` measures it. A fact is about the answers that it names, so that it is passed over when
another answer takes the place of one of them. Of several facts, the one about the most answers is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003 - msgspec reads the types
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Told:
    """How many members of train are found when one in ten others is accused, and the area under the curve."""

    run: str
    answers: Sequence[str]
    """SHA-256 of the answers that were attacked, sorted."""
    attack: str
    found: float
    """Share of members that are found at 10 % false positives; 0.1 is chance."""
    low: float
    high: float
    auc: float
    """Probability that a member has a higher score than another text; 0.5 is chance."""
    auc_low: float
    auc_high: float
    member_texts: int
    other_texts: int
    seed: int
    made: float = 0.0
    """Unix seconds."""

    @property
    def problems(self) -> list[str]:
        """What cannot be true."""
        shares = (self.found, self.low, self.high, self.auc, self.auc_low, self.auc_high)
        if not all(math.isfinite(share) and 0 <= share <= 1 for share in shares):
            return ["a share is not from 0 to 1"]
        return [] if self.answers else ["it names no answer"]


def newest(facts: Iterable[Told], standing: Mapping[tuple[str, str, int], str]) -> dict[str, Told]:
    """For each run, of the facts whose answers all stand now those about the most answers, and of these the newest.

    Args:
        facts: oldest first.
        standing: the digest of the answer of each run, task and split.
    """
    by_run: dict[str, set[str]] = {}
    for (run, _, _), answer in standing.items():
        by_run.setdefault(run, set()).add(answer)
    now = [fact for fact in facts if set(fact.answers) <= by_run.get(fact.run, set())]
    return {fact.run: fact for fact in sorted(now, key=lambda fact: len(fact.answers))}  # stable: the newest is last
