"""House on searched weights: `house`'s classifier on calibrated label words and states, under changed biases.

    p(y | x) = mean over members m of softmax(t q_m + b + V_m h_m),    m: the bare model, and models with other biases

The classifier is `house`'s: label words calibrated by an additive shift, corrected by a ridge-regularised linear head
on the hidden state at the mask, fitted on train and dev, judged by fits that left the judged text out. What is searched
is another thing: not deep prompts but the biases of the model's upper half, by CMA-ES in a random subspace, as in
`bitfit_es`, on the loss of calibrated logits.

Differs from `house`: weights in place of prompts, or with `where=both` weights and a prompt at the input together; no
options that take parts away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from classifier import answer, held_out, judged, see
from numpy.typing import NDArray

from harness import Answer, BlackBox, Count, Positive, Prompts, Several, Shots, Subspace, Task, WeightSpace
from harness.solving import CmaEs, additive_shift, cross_entropy

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; those of `house` and `bitfit_es`."""

    where: Literal["weights", "both"] = "weights"  # what is searched: biases, or biases and a prompt at the input
    dim: Count = 100  # d, coordinates of the biases, and as many of the prompt
    population: Several = 20  # lambda, candidates per generation
    std: Positive = 0.5  # of the change where z ~ N(0, I), in units of the biases' root mean square
    ridge: Positive = 0.003  # weight of |V|^2 / 2 beside the mean loss of a text
    dev_every: Count = 5  # generations between two looks, at 2 * (len(train) + len(dev)) rows each
    folds: Several = 8  # parts into which the texts are cut, to judge a member on texts it was not fitted on


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, its classifier, then every set of members that held-out dev loss prefers."""
    train, rows = shots.train, len(shots.train)
    labels = np.concatenate([train.labels, shots.dev.labels])
    order, fitting = rng.permutation(len(labels)), (config.folds, config.ridge)
    yield Answer.of(task)
    bare = see(lm, None, shots)
    held = held_out(task, bare, labels, order, *fitting)
    best_loss, metric = judged(task, [held], labels, rows)
    yield answer(task, [None], [bare], labels, config.ridge, dev=metric)

    half = lm.info.layers // 2
    layers = tuple(range(half, lm.info.layers))
    std = config.std * lm.info.weight_rms("biases", layers)
    space = WeightSpace("biases", config.dim, std, int(rng.integers(2**62)), layers)
    prompts = Subspace(config.dim, (lm.info.hidden_std[0],), lm.info.prompt_tokens, int(rng.integers(2**62)))
    both = config.where == "both"
    search = CmaEs(config.dim * (1 + both), config.population, rng)
    best, lowest = search.mean, np.inf

    def at(z: Floats) -> Prompts:
        return space.at(z[:, : config.dim], prompts.at(z[:, config.dim :]) if both else None)

    needed, generation = config.population * rows + 2 * len(labels), 0
    while lm.budget.rows_left >= needed:
        zs, generation = search.ask(), generation + 1
        q = lm.logits(at(zs), train.texts)  # (population, texts, classes)
        losses = cross_entropy(q + additive_shift(q)[:, None], train.labels)
        search.tell(losses)
        lm.log(loss=losses.min(), **search.state)
        if losses.min() < lowest:
            best, lowest = zs[losses.argmin()], float(losses.min())
        if generation % config.dev_every and lm.budget.rows_left >= needed:
            continue
        looks = np.stack([best, search.mean])
        seen = see(lm, at(looks), shots)
        tuned = [held_out(task, seen[k], labels, order, *fitting) for k in range(2)]
        for n in (1, 2):
            loss, metric = judged(task, [held, *tuned[:n]], labels, rows)
            if loss < best_loss:
                best_loss, members = loss, [at(looks[k : k + 1]) for k in range(n)]
                outs = [bare, *(seen[k] for k in range(n))]
                yield answer(task, [None, *members], outs, labels, config.ridge, dev=metric)
