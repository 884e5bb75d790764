"""Random search: z ~ N(0, I) in the same random subspace as BBT; the best training loss wins.

    z* = argmin over z_1 .. z_n of CE(lm(A z_i), y),  z_i ~ N(0, I_d)

What BBT would be without the evolution strategy: same subspace, same width of prompts, same budget, same looks at
dev. Whatever an optimiser claims, it has to beat this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    NonNegative,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    macro_f1,
)

Standing: TypeAlias = tuple[float, float]
"""What dev thinks of a candidate, metric and minus loss, the deciding one first; the greater wins."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    dim: Count = 500
    """d, length of z."""
    population: Count = 20
    """Candidates forwarded together; it changes the speed, not the search."""
    alpha: NonNegative = 1.0
    """Standard deviation of the prompts, in standard deviations of the first layer's input."""
    dev_every: Count = 5
    """Populations between two looks at dev (len(dev) rows each, and only if the best has changed)."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published: the earliest stays), or the ``loss``, ties
    by metric (as in the code of early 2022; steadier on few texts)."""


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the best sample whenever dev prefers it."""
    train, dev = shots.train, shots.dev
    std = config.alpha * lm.info.hidden_std[0]
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**62)))

    yield Answer.of(task)
    selected, _ = judge(task, lm.logits(None, dev.texts)[0], dev, config.select)  # the prompt to beat
    best_z, best_loss, looked = np.zeros(config.dim), np.inf, True
    round_rows = config.population * len(train) + len(dev)
    for population in count(1):
        zs = rng.standard_normal((config.population, config.dim))
        losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
        if losses.min() < best_loss:
            best_z, best_loss, looked = zs[losses.argmin()], float(losses.min()), False
        last = lm.budget.rows_left < round_rows
        if not looked and (last or population % config.dev_every == 0):
            looked = True
            score, metric = judge(task, lm.logits(space.at(best_z), dev.texts)[0], dev, config.select)
            if score > selected:
                selected = score
                yield Answer.of(task, space.at(best_z), loss=best_loss, dev=metric)


def judge(task: Task, logits: NDArray[np.floating], dev: Examples, select: str) -> tuple[Standing, float]:
    """Standing and metric of one candidate, from its dev logits (texts, words)."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    pair = (float(metric), -float(cross_entropy(logits, labels)))
    return pair if select == "metric" else pair[::-1], pair[0]
