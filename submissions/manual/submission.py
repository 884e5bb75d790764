"""Manual prompt: the task's template and label words as they are, zero-shot.

    p(y | x) = softmax over label words of the logits at [MASK] in template(x)

The floor that every tuned prompt is measured against ("Manual Prompt" in Sun et al., ICML 2022, Table 3). Nothing is
learned and nothing is asked: it costs 0 calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Answer, BlackBox, Shots, Task


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template."""
    del lm, shots, rng, config  # zero-shot: no data, no chance, no queries
    yield Answer.of(task)
