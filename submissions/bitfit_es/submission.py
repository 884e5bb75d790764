"""BitFit by an evolution strategy: CMA-ES in a random subspace of the model's biases.

    min over z of CE(f(x; b + std/sqrt(d) A z), y),    z in R^d,  A of unit noise

BitFit (Ben Zaken et al., ACL 2022) trains the biases alone, with gradients; BBT (Sun et al., ICML 2022) searches a
random subspace without them. Here the subspace is one of biases. The server adds A z to them, so no weight is ever
seen, and the candidates of a generation are computed together: a bias is a vector.

Differs from both: the biases of the upper half of the layers alone (`layers`); no prompt; a subspace. Looks at dev are
paid for, dev loss breaks ties, and the bare template is the first incumbent, as in `bbt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from harness import Answer, BlackBox, Count, Positive, Several, Shots, Task, WeightSpace
from harness.solving import CmaEs, Loss, Selection, cross_entropy, hinge

LOSSES: dict[str, Loss] = {"ce": cross_entropy, "hinge": hinge}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    dim: Count = 100  # d, length of z
    population: Several = 20  # lambda, candidates per generation (BBT)
    sigma: Positive = 1.0  # first step size, in units of z
    std: Positive = 0.5  # of the change that z ~ N(0, I) makes, in units of the biases' root mean square
    group: Literal["biases", "norms"] = "biases"  # what moves: all biases (BitFit), or the norms' weights and biases
    layers: Literal["upper", "all"] = "upper"  # the upper half of the layers, or all of them
    loss: Literal["ce", "hinge"] = "ce"  # as in BBT
    dev_every: Count = 5  # generations between two looks at dev, at 2 * len(dev) rows each (BBT: 100 calls)
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then all biases that dev prefers to all before."""
    train, dev, loss = shots.train, shots.dev, LOSSES[config.loss]
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the model to beat

    half = lm.info.layers // 2
    layers = tuple(range(half, lm.info.layers)) if config.layers == "upper" else ()
    std = config.std * lm.info.weight_rms(config.group, layers)
    space = WeightSpace(config.group, config.dim, std, int(rng.integers(2**62)), layers)
    search = CmaEs(config.dim, config.population, rng, config.sigma)
    best, best_loss = np.zeros(config.dim), np.inf
    generation_rows, look_rows = config.population * len(train), 2 * len(dev)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        zs = search.ask()  # (population, d)
        losses = loss(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
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
