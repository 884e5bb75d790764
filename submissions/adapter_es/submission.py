"""An adapter by an evolution strategy: CMA-ES in a random subspace of a bottleneck behind each feed-forward part.

    h  ->  h + U gelu(D h + d) + u,    (D, d, U, u) = (D_0, 0, 0, 0) + std/sqrt(k) R z,    min over z of the loss

Houlsby et al. (ICML 2019) train such bottlenecks with gradients. Here all four tensors are moved along k random
directions R that the server draws, by CMA-ES on z. At z = 0 the adapter adds 0 and the model is the published one.

Differs from the paper: no gradients; a subspace; one adapter a layer and not two, at the place of Pfeiffer et al. (EACL
2021); the norms stay; the upper half of the layers alone (`layers`). Looks at dev are paid for, dev loss breaks ties,
and the bare template is the first incumbent, as in `bbt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from harness import Answer, BlackBox, Count, Positive, Several, Shots, Task, WeightSpace
from harness.solving import CmaEs, Selection, cross_entropy


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    dim: Count = 100  # k, length of z
    population: Several = 20  # lambda, candidates per generation (BBT)
    sigma: Positive = 1.0  # first step size, in units of z
    std: Positive = 0.1  # of the entries of U, u, d, and of D in units of 1 / sqrt(width), where z ~ N(0, I)
    inner: Count = 8  # m, width of the bottleneck (Houlsby: 8, 64 or 256)
    layers: Literal["upper", "all"] = "upper"  # the upper half of the layers, or all of them (Houlsby: all)
    dev_every: Count = 5  # generations between two looks at dev, at 2 * len(dev) rows each (BBT: 100 calls)
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every adapter that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the model to beat

    half = lm.info.layers // 2
    layers = tuple(range(half, lm.info.layers)) if config.layers == "upper" else ()
    space = WeightSpace("adapter", config.dim, config.std, int(rng.integers(2**62)), layers, config.inner)
    search = CmaEs(config.dim, config.population, rng, config.sigma)
    best, best_loss = np.zeros(config.dim), np.inf
    generation_rows, look_rows = config.population * len(train), 2 * len(dev)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        zs = search.ask()  # (population, k)
        losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
        search.tell(losses)
        lm.log(loss=losses.min(), **search.state)
        if losses.min() < best_loss:
            best, best_loss = zs[losses.argmin()], float(losses.min())
        search.restart_if_converged()

        last = lm.budget.rows_left < generation_rows + look_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([search.mean, best])  # (2, k)
            q = lm.logits(space.at(looks), dev.texts)
            for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, space.at(looks[k]), loss=best_loss, dev=metric)
