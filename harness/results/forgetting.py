"""Forgetting: what an answer's change of weights does to other tasks and to masked words.

`harness.evaluation.forgetting` measures it. A fact is about the answer that it names, so that it is passed over when
another answer takes that cell's place. Of several facts about one answer, the newest is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the types
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Forgotten:
    """The state of the model before and after an answer's change of its weights. Several changes count as their mean.

    Scores are those of the bare template under the published and under the changed weights, 0 to 1.
    """

    run: str
    task: str
    """The task that was tuned on."""
    split: int
    answer: str
    """SHA-256 of the answer."""
    changes: int
    """Different changes of weights in it."""
    before: Mapping[str, float]
    """By other task."""
    after: Mapping[str, float]
    masked_before: float
    """Mean cross-entropy of a masked word in nats, over passages that were not tuned on."""
    masked_after: float
    texts: int
    """Largest number of test texts of a task."""
    passages: int
    source: str
    """Where the passages are from: ``other tasks``, or the SHA-256 of a file."""
    seed: int
    """By which texts and words were drawn."""
    format: str
    """Number format of the model."""
    made: float = 0.0
    """Unix seconds."""

    @property
    def problems(self) -> list[str]:
        """What cannot be true."""
        found, scores = [], [*self.before.values(), *self.after.values()]
        if self.before.keys() != self.after.keys() or not self.before or self.task in self.before:
            found.append(f"its tasks are {sorted(self.before)} before and {sorted(self.after)} after")
        if not all(0 <= score <= 1 for score in scores):
            found.append("a score is not from 0 to 1")
        if not all(math.isfinite(loss) and loss >= 0 for loss in (self.masked_before, self.masked_after)):
            found.append("a masked loss is not finite")
        return found

    @property
    def lost(self) -> float:
        """Mean change of the other tasks' scores; below 0 they were forgotten."""
        return sum(self.after[task] - self.before[task] for task in self.before) / len(self.before)

    @property
    def masked(self) -> float:
        """Change of the masked loss; above 0 the model became worse at its own trade."""
        return self.masked_after - self.masked_before

    def same(self, other: Forgotten) -> bool:
        """Whether another fact has the same answer and the same texts and words, so that nothing has to be measured."""
        names = ("run", "task", "split", "answer", "texts", "passages", "source", "seed", "format")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def newest(facts: Iterable[Forgotten], standing: Mapping[tuple[str, str, int], str]) -> dict[str, list[Forgotten]]:
    """The newest fact of each cell, by run, about the answers that stand there now.

    Args:
        facts: oldest first.
        standing: the digest of the answer of each run, task and split.
    """
    known = {}
    for fact in facts:
        place = fact.run, fact.task, fact.split
        if standing.get(place) == fact.answer:
            known[place] = fact
    found: dict[str, list[Forgotten]] = {}
    for place in sorted(known):
        found.setdefault(place[0], []).append(known[place])
    return found


def means(facts: Sequence[Forgotten]) -> tuple[float, float]:
    """The means over cells of `Forgotten.lost` and `Forgotten.masked`."""
    return sum(fact.lost for fact in facts) / len(facts), sum(fact.masked for fact in facts) / len(facts)
