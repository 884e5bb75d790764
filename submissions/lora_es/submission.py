"""LoRA by an evolution strategy: CMA-ES in a random subspace of the two thin matrices beside queries and values.

    W x  ->  W x + B (A x),    (A, B) = (A_0, 0) + std/sqrt(d) R z,    min over z of the training loss

LoRA (Hu et al., ICLR 2022) trains A and B with gradients. Here both are moved along d random directions R that the
server draws, by CMA-ES on z, as BBT moves a prompt. At z = 0 the product is 0 and the model is the published one.

Differs from LoRA: no gradients; a subspace of (A, B); no dropout and no alpha / rank, whose part `std` plays; the
upper half of the layers alone (`layers`). Looks at dev are paid for, dev loss breaks ties, and the bare template is the
first incumbent, as in `bbt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from harness import Answer, Beside, BlackBox, Count, Positive, Several, Shots, Task, WeightSpace
from harness.solving import CmaEs, Selection, cross_entropy

BESIDE: dict[str, tuple[Beside, ...]] = {
    "query-value": ("query", "value"), "query-key": ("query", "key"), "all": ("query", "key", "value", "output"),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    dim: Count = 100  # d, length of z
    population: Several = 20  # lambda, candidates per generation (BBT)
    sigma: Positive = 1.0  # first step size, in units of z
    std: Positive = 0.3  # of the entries of B, and of A in units of 1 / sqrt(width), where z ~ N(0, I)
    rank: Count = 4  # r (LoRA: 4 on GPT-3, 8 on RoBERTa)
    beside: Literal["query-value", "query-key", "all"] = "query-value"  # the matrices with a LoRA (LoRA: query, value)
    layers: Literal["upper", "all"] = "upper"  # the upper half of the layers, or all of them
    dev_every: Count = 5  # generations between two looks at dev, at 2 * len(dev) rows each (BBT: 100 calls)
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every LoRA that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the model to beat

    half = lm.info.layers // 2
    layers = tuple(range(half, lm.info.layers)) if config.layers == "upper" else ()
    seed, beside = int(rng.integers(2**62)), BESIDE[config.beside]
    space = WeightSpace("lora", config.dim, config.std, seed, layers, config.rank, beside)
    search = CmaEs(config.dim, config.population, rng, config.sigma)
    best, best_loss = np.zeros(config.dim), np.inf
    generation_rows, look_rows = config.population * len(train), 2 * len(dev)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        zs = search.ask()  # (population, d)
        losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
        search.tell(losses)
        lm.log(loss=losses.min(), **search.state)
        if losses.min() < best_loss:
            best, best_loss = zs[losses.argmin()], float(losses.min())
        search.restart_if_converged()

        last = lm.budget.rows_left < generation_rows + look_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([search.mean, best])  # (2, d)
            q = lm.logits(space.at(looks), dev.texts)
            for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, space.at(looks[k]), loss=best_loss, dev=metric)
