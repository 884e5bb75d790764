"""An evolution strategy on the weights themselves: mirrored seeds, shaped by rank, added to a path.

    w <- w + eta / (2 n sigma) sum_j (u(+j) - u(-j)) e_j,    e_j of unit noise,  u centred ranks of -L(w +- sigma e_j)

Salimans et al., arXiv 1703.03864: a generation draws n directions, tries each forth and back, and moves along all of
them by the ranks of their losses, which do not depend on the loss's scale. As in their code, only seeds and numbers are
exchanged: a candidate is the path so far and one step of +sigma or -sigma, and a generation adds n steps to the path.

The noise of a matrix has low rank, as in EGGROLL (Sarkar et al., arXiv 2511.16652):  E = A B^T / sqrt(r),  A and B of
unit noise. The server computes the population's own steps as thin products, together; the path, a sum of many such
steps, has full rank.

Differs from the papers: one machine; the loss is of the whole training set; a fixed gain without Adam and weight decay;
by default only the attention matrices of the upper half of the layers move; EGGROLL's populations are far larger, and
its integer formats are not taken over. Looks at dev are paid for, dev loss breaks ties, and the bare template is the
first incumbent, as in `bbt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import Answer, BlackBox, Count, Noise, Positive, Shots, Task, WeightSpace
from harness.solving import Selection, cross_entropy

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    where: Literal["attention", "feed_forward", "biases", "all"] = "attention"  # what moves
    layers: Literal["upper", "all"] = "upper"  # the upper half of the layers, or all; for `all` weights, all of them
    pairs: Count = 10  # n, directions per generation; a generation costs 2n calls
    sigma: Positive = 0.1  # length of a perturbation, in units of the weights' root mean square
    eta: Positive = 0.05  # gain, in the same units
    rank: Count | None = 1  # r, of a matrix's noise, at most 64 (EGGROLL: 1); None: in every entry (Salimans)
    noise: Noise = "normal"  # entries of e, or of its factors A and B: normal (both papers), or +-1
    dev_every: Count = 5  # generations between two looks at dev, at len(dev) rows each
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the weights that dev prefers to all before."""
    train, dev, n = shots.train, shots.dev, config.pairs
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the model to beat

    half = lm.info.layers // 2
    layers = tuple(range(half, lm.info.layers)) if config.layers == "upper" and config.where != "all" else ()
    std = lm.info.weight_rms(config.where, layers)
    rank = 0 if config.where == "biases" else config.rank or 0
    space = WeightSpace(config.where, 0, std, int(rng.integers(2**62)), layers, rank, distribution=config.noise)
    path = np.zeros(0)  # coefficient of each stream of noise
    generation_rows = 2 * n * len(train)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + len(dev):
            return
        streams, z = mirrored(path, n, config.sigma)
        losses = cross_entropy(lm.logits(space.walk(streams, z), train.texts), train.labels)  # (2n,), forth then back
        u = centred_ranks(-losses).reshape(2, n)
        path = np.concatenate([path, config.eta / (2 * n * config.sigma) * (u[0] - u[1])])
        lm.log(loss=losses.min(), mean=losses.mean())

        if lm.budget.rows_left < generation_rows + len(dev) or generation % config.dev_every == 0:
            walk = space.walk(np.arange(len(path)), path)
            q = lm.logits(walk, dev.texts)
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, walk, loss=float(losses.mean()), dev=metric)


def mirrored(path: Floats, pairs: int, sigma: float) -> tuple[NDArray[np.int64], Floats]:
    """Streams and coefficients (2n, steps + 1): the path and one step more, forth along n new streams and back."""
    new = np.tile(np.arange(len(path), len(path) + pairs), 2)
    streams = np.column_stack([np.tile(np.arange(len(path)), (2 * pairs, 1)), new])
    return streams, np.column_stack([np.tile(path, (2 * pairs, 1)), np.repeat([sigma, -sigma], pairs)])


def centred_ranks(values: Floats) -> Floats:
    """Ranks from -1/2 to 1/2, the largest value's being 1/2 (Salimans et al., their code)."""
    ranks = np.empty(len(values))
    ranks[values.argsort(kind="stable")] = np.arange(len(values))
    return ranks / (len(values) - 1) - 0.5
