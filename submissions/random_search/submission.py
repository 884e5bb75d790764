"""Random search: z ~ N(0, I) in the same random subspace as BBT; the best training loss wins.

    z* = argmin over z_1 .. z_n of CE(lm(A z_i), y),  z_i ~ N(0, I_d)

What BBT would be without the evolution strategy: same subspace, same width of prompts, same budget, same looks at
dev. Whatever an optimiser claims, it has to beat this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from harness import Answer, BlackBox, Count, NonNegative, Shots, Subspace, Task
from harness.solving import Selection, cross_entropy


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    dim: Count = 500  # d, length of z
    population: Count = 20  # candidates forwarded together; it changes the speed, not the search
    alpha: NonNegative = 1.0  # standard deviation of the prompts, in standard deviations of the first layer's input
    dev_every: Count = 5  # populations between two looks at dev (len(dev) rows each, only if the best has changed)
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the best sample whenever dev prefers it."""
    train, dev = shots.train, shots.dev
    std = config.alpha * lm.info.hidden_std[0]
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**62)))

    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat
    best_z, best_loss, looked = np.zeros(config.dim), np.inf, True
    round_rows = config.population * len(train) + len(dev)
    for population in count(1):
        zs = rng.standard_normal((config.population, config.dim))
        losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
        lm.log(loss=losses.min())
        if losses.min() < best_loss:
            best_z, best_loss, looked = zs[losses.argmin()], float(losses.min()), False
        last = lm.budget.rows_left < round_rows
        if not looked and (last or population % config.dev_every == 0):
            looked = True
            q = lm.logits(space.at(best_z), dev.texts)
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, space.at(best_z), loss=best_loss, dev=metric)
