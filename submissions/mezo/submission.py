"""MeZO: two-point zeroth-order SGD on the weights, whose path is a list of (seed, coefficient) (arXiv 2305.17333).

    g_t = (L(w + eps z_t) - L(w - eps z_t)) / (2 eps),    w <- w - eta g_t z_t,    z_t drawn anew from a seed

Malladi et al., NeurIPS 2023, Algorithm 1. The two candidates of a step are one query: the path so far, and one more
step of +eps or -eps along the stream of noise t. Its result is one number, which is all that is kept. So an answer of
thousands of steps on all weights of the model is some kilobytes.

Differs from the paper: the loss is of the whole training set, not of batches of 64; noise is +-1 (Spall) and not
normal (`noise`), as 128 such numbers are drawn at the cost of 4 normal ones; what moves is chosen by `where`, and
`lora` moves a LoRA's two matrices from their start; the gain falls linearly to 0 (`decay`; MeZO: constant, and linear
for OPT); the coefficient may be clipped (`clip`). Looks at dev are paid for, dev loss breaks ties, and the bare
template is the first incumbent, as in `bbt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness import Answer, BlackBox, Count, Noise, NonNegative, Positive, Shots, Task, WeightSpace
from harness.solving import Selection, cross_entropy


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    where: Literal["all", "attention", "lora", "biases"] = "all"  # all weights (MeZO), or fewer
    eps: Positive = 1e-3  # length of a perturbation of each weight (MeZO: 1e-3)
    eta: Positive = 1e-5  # learning rate (MeZO on RoBERTa-large: 1e-7 to 1e-5)
    decay: bool = True  # let eta fall linearly to 0 over the budget
    clip: NonNegative = 0.0  # largest |g|; 0 means none (MeZO: none)
    noise: Noise = "rademacher"  # entries of z: +-1 (Spall), or normal (MeZO)
    rank: Count = 8  # of a LoRA (MeZO: 8)
    looks: Count = 10  # looks at dev, at len(dev) rows each (MeZO: 10)
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the weights that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the model to beat

    rank = config.rank if config.where == "lora" else 0
    space = WeightSpace(config.where, 0, 1.0, int(rng.integers(2**62)), rank=rank, distribution=config.noise)
    steps = (lm.budget.rows_left - config.looks * len(dev)) // (2 * len(train))
    look_steps = max(1, steps // config.looks)
    path = np.zeros(max(0, steps))  # coefficient of the stream of each step
    for t in range(steps):
        streams, pair = np.arange(t + 1), np.repeat(path[None, : t + 1], 2, axis=0)
        pair[:, t] = config.eps, -config.eps
        losses = cross_entropy(lm.logits(space.walk([streams] * 2, pair), train.texts), train.labels)  # (2,)
        g = float(losses[0] - losses[1]) / (2 * config.eps)
        if config.clip:
            g = float(np.clip(g, -config.clip, config.clip))
        path[t] = -config.eta * (1 - t / steps if config.decay else 1.0) * g
        lm.log(loss=losses.mean(), gradient=abs(g))

        if (t + 1) % look_steps == 0 or t + 1 == steps:
            walk = space.walk(streams, path[: t + 1])
            q = lm.logits(walk, dev.texts)
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, walk, loss=float(losses.mean()), dev=metric)
