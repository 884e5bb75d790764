"""DFO-LoRA: a LoRA beside queries and keys of each layer, searched layer by layer without gradients (Jin et al., 2024).

    for l = 0 .. L-1, again and again:   z_l <- argmin over z of CE(lm with W_Q + B_Q A_Q, W_K + B_K A_K), others fixed
    (A_Q, B_Q, A_K, B_K) at layer l  =  (A_0, 0, A_0, 0) + std_l / sqrt(d) R_l z_l,     std_l = alpha s_l

Each layer has low-rank modules, a random projection R_l to them and an optimizer of its own, CMA-ES or fireworks. One
layer moves at a time, from the bottom up; the others stay at their best. Below the moving layer all candidates are
equal, so the server computes that part once for the whole population.

Differs from the paper (arXiv 2403.01754; of it the abstract and summaries were at hand and neither its tables nor its
code, so what is unspecified below may be specified there): its fireworks algorithm may be another variant, here it is
the bare bones one (Li and Tan, Applied Soft Computing 62, 2018); A starts at noise over sqrt(width) and B at 0, so that
z = 0 is the published model; a change of A is measured in 1 / sqrt(width), and s_l is the published width of layer l's
input, as a stand-in for the paper's initialisation of the projections from the distribution of hidden states; a layer's
module is replaced only if the training loss falls; population, d and rank are of other sources (README). Looks at dev
are paid for, dev loss breaks ties, and the bare template is the first incumbent, as in `bbt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import count
from operator import add
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import Answer, Beside, BlackBox, Count, Positive, Several, Shots, Task, Weights, WeightSpace
from harness.solving import CmaEs, Selection, cross_entropy

Floats: TypeAlias = NDArray[np.float64]
BESIDE: dict[str, tuple[Beside, ...]] = {"query-key": ("query", "key"), "query-value": ("query", "value")}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    dim: Count = 100  # d, length of each z_l
    population: Several = 20  # lambda, candidates per generation (BBTv2)
    search: Literal["cma", "fireworks"] = "cma"  # the optimizer of each layer (DFO-LoRA has both)
    sigma: Positive = 1.0  # first step size, in units of z
    alpha: Positive = 0.3  # std of the entries of B, and of A in units of 1 / sqrt(width), over the input's width s_l
    rank: Count = 4  # r (LoRA: 4 on GPT-3, 8 on RoBERTa)
    beside: Literal["query-key", "query-value"] = "query-key"  # the matrices with a LoRA (DFO-LoRA: query and key)
    layers: Literal["all", "upper"] = "all"  # all layers (DFO-LoRA), or the upper half
    turn: Count = 1  # generations of a layer before the next one moves (BBTv2)
    dev_every: Count = 5  # generations between two looks at dev, at 2 * len(dev) rows each (BBT: 100 calls)
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every stack of modules that dev prefers to all before."""
    train, dev, population = shots.train, shots.dev, config.population
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the model to beat

    moving = range(lm.info.layers // 2 if config.layers == "upper" else 0, lm.info.layers)
    spaces = [
        WeightSpace("lora", config.dim, config.alpha * lm.info.hidden_std[layer], int(rng.integers(2**62)), (layer,),
                    config.rank, BESIDE[config.beside])
        for layer in moving
    ]  # fmt: skip
    kind: type[CmaEs | Fireworks] = CmaEs if config.search == "cma" else Fireworks
    searches = [kind(config.dim, population, rng, config.sigma) for _ in spaces]
    best, best_loss = np.zeros((len(spaces), config.dim)), np.inf  # z_0 .. z_{L-1}
    generation_rows, look_rows = population * len(train), 2 * len(dev)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        layer = (generation - 1) // config.turn % len(spaces)
        zs = searches[layer].ask()  # (population, d)
        fixed = [space.at(z) for n, (space, z) in enumerate(zip(spaces, best, strict=True)) if n != layer and z.any()]
        losses = cross_entropy(lm.logits(together([spaces[layer].at(zs), *fixed]), train.texts), train.labels)
        searches[layer].tell(losses)
        lm.log(loss=losses.min(), layer=layer, **searches[layer].state)
        if losses.min() < best_loss:
            best[layer], best_loss = zs[losses.argmin()], float(losses.min())
        searches[layer].restart_if_converged()

        last = lm.budget.rows_left < generation_rows + look_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([best, [search.mean for search in searches]], axis=1)  # (L, looks, d)
            q = lm.logits(stack(spaces, looks), dev.texts)
            for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, stack(spaces, looks[:, k : k + 1]), loss=best_loss, dev=metric)


class Fireworks:
    """Bare bones fireworks (Li and Tan, 2018): sparks in a box around the best, which grows if one is better."""

    def __init__(self, dim: int, population: int, rng: np.random.Generator, sigma: float) -> None:
        """Begin at 0 with sparks of standard deviation sigma."""
        self.mean, self._loss, self._amplitude = np.zeros(dim), np.inf, sigma * np.sqrt(3)
        self._population, self._rng, self._sparks = population, rng, np.zeros((0, dim))

    @property
    def state(self) -> dict[str, float]:
        """The sparks' standard deviation."""
        return {"sigma": float(self._amplitude / np.sqrt(3))}

    def ask(self) -> Floats:
        """Sparks (population, d)."""
        box = self._rng.uniform(-1, 1, (self._population, len(self.mean)))
        self._sparks = self.mean + self._amplitude * box
        return self._sparks

    def tell(self, losses: Floats) -> None:
        """Move to the best spark if it is better: amplification 1.2, else reduction 0.9 (their values)."""
        better = losses.min() < self._loss
        self._amplitude *= 1.2 if better else 0.9
        if better:
            self.mean, self._loss = self._sparks[losses.argmin()], float(losses.min())

    def restart_if_converged(self) -> bool:
        """Its box never closes within a budget."""
        return False


def stack(spaces: list[WeightSpace], zs: Floats) -> Weights:
    """Candidates that change every layer, of coordinates (L, candidates, d); a layer at z = 0 has no change."""
    moved = [space.at(z) for space, z in zip(spaces, zs, strict=True) if z.any()]
    return together(moved or [spaces[0].at(zs[0])])


def together(changes: list[Weights]) -> Weights:
    """Candidates that make all changes."""
    return reduce(add, changes)
