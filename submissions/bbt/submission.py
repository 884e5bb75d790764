"""BBT: CMA-ES in a random subspace of the soft prompt (Sun et al., ICML 2022, https://arxiv.org/abs/2201.03514).

    z* = argmin over z in R^d of L(lm(p0 + A z), y),  A_ij ~ N(0, (alpha s / sigma)^2 / d)

The model is shown p0 + A z: p0 are fixed vocabulary tokens, A is declared once and lives on the server, CMA-ES moves
z. Since z starts as N(0, sigma^2 I), the first prompts have standard deviation alpha s, whatever sigma is.

Differs from the paper and its code: s is the standard deviation of the first layer's input, not of the word
embeddings (`width_from`); looks at dev are paid for; dev sees the mean of CMA-ES and the best sample, not the last
sample; ties in the dev metric are broken by dev loss; the bare template is the first incumbent (`selection` undoes the
last three).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeAlias

import cma
import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    NonNegative,
    Positive,
    Several,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    hinge,
    macro_f1,
    negative_accuracy,
)

Loss: TypeAlias = Callable[[NDArray[np.floating], NDArray[np.int64]], NDArray[np.floating]]
LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "hinge": hinge,
    "accuracy": negative_accuracy,
}
Standing: TypeAlias = tuple[float, ...]
"""What dev thinks of a candidate; the greater wins."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    dim: Count = 500
    """d, length of z."""
    population: Several = 20
    """Candidates per generation, lambda."""
    sigma: Positive = 1.0
    """First step size, in units of z. Without a `bound` it changes nothing: A is divided by it."""
    alpha: NonNegative = 1.0
    """Standard deviation of the first prompts, in units of `width_from`."""
    width_from: Literal["hidden", "embedding", "unit"] = "hidden"
    """What alpha is measured in: ``hidden`` (the first layer's input), ``embedding`` (word embeddings, as in the
    published code; much smaller on some models), or ``unit`` (1, for the uniform projection of the first code)."""
    projection: Literal["normal", "uniform"] = "normal"
    """Entries of A: ``normal``, or ``uniform`` on +-1/sqrt(d), in units of the width."""
    injection: Literal["add", "prepend"] = "add"
    """``add`` to the embeddings of p0 (the code) or ``prepend`` to the text (the paper)."""
    loss: Literal["ce", "hinge", "accuracy"] = "ce"
    """``ce``, ``hinge`` (the authors' choice for MRPC, RTE and SNLI) or ``accuracy`` (flat: for comparison)."""
    tokens: Count | None = None
    """Length of the prompt in tokens; None is the track's (published: 50)."""
    bound: NonNegative = 0.0
    """Half-width of the box around z = 0 (the paper: 5); 0 is no box."""
    dev_every: Count = 5
    """Generations between two looks at dev (published: 100 calls, which 5 are at a population of 20). One shows 2
    candidates; 1 if ``faithful``."""
    selection: Literal["house", "faithful"] = "house"
    """What dev is shown, and what wins: ``house``, or ``faithful`` to the code: the last sample of the generation,
    which replaces the incumbent if its metric is strictly higher; the first to beat is 0, and the budget's end brings
    no look of its own. Looks are counted in generations (`dev_every`): every 100 calls at a population of 20 only."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published: the earliest stays), or the ``loss``, ties
    by metric (as in the code of early 2022; steadier on few texts)."""
    queries: Literal["population", "serial"] = "population"
    """A generation as one query, or one query per candidate (the published code), at the same price."""

    def __post_init__(self) -> None:
        """Refuse a rule of selection that is neither the house's nor the published one."""
        if self.selection == "faithful" and self.select != "metric":
            raise ValueError(f"select={self.select!r} with selection='faithful', which decides by the metric alone")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    loss = LOSSES[config.loss]
    width = {"hidden": lm.info.hidden_std[0], "embedding": lm.info.embedding_std, "unit": 1.0}[config.width_from]
    space = Subspace(
        dim=config.dim,
        std=(config.alpha * width / config.sigma,),
        tokens=lm.info.prompt_tokens if config.tokens is None else config.tokens,
        seed=int(rng.integers(2**62)),
        distribution=config.projection,
        mode=config.injection,
    )

    yield Answer.of(task)
    selected: Standing = (0.0,)
    if config.selection == "house":
        ((selected, _),) = judge(task, lm.logits(None, dev.texts), dev, config)  # the prompt to beat

    search = evolution(config, rng)
    best_z, best_loss = np.zeros(config.dim), np.inf
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation in count(1):
        zs = np.array(search.ask())  # (population, d)
        losses = loss(forward(lm, space, zs, train, config), train.labels)  # (population,)
        search.tell(list(zs), losses.tolist())
        if losses.min() < best_loss:
            best_z, best_loss = zs[losses.argmin()], float(losses.min())

        last = config.selection == "house" and lm.budget.rows_left < round_rows
        if last or generation % config.dev_every == 0:
            looks = zs[-1:]  # (1, d): the last sample
            if config.selection == "house":
                looks = np.stack([search.result.xfavorite, best_z])  # (2, d): the mean, the best sample
            scores = judge(task, lm.logits(space.at(looks), dev.texts), dev, config)
            for z, (score, metric) in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield Answer.of(task, space.at(z), loss=best_loss, dev=metric)
        if search.stop():
            search = evolution(config, rng)  # converged or degenerate with budget left: start again, keep the best


def forward(
    lm: BlackBox, space: Subspace, zs: NDArray[np.float64], train: Examples, config: Config
) -> NDArray[np.floating]:
    """Label-word logits (candidates, texts, words) of a generation, in one query or in one per candidate."""
    if config.queries == "population" or lm.budget.rows_left < len(zs) * len(train):  # refused as a whole either way
        return lm.logits(space.at(zs), train.texts)
    return np.concatenate([lm.logits(space.at(z), train.texts) for z in zs])


def evolution(config: Config, rng: np.random.Generator) -> Any:
    """A fresh CMA-ES at z = 0. All chance comes from `rng`; flat losses do not stop it."""
    options: dict[str, Any] = {
        "popsize": config.population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,  # do not touch numpy's global generator
        "verbose": -10,  # silent, and no look for a file of signals
        "tolfun": 0,
        "tolfunhist": 0,
        "tolflatfitness": np.inf,
        "tolstagnation": np.inf,
    }
    if config.bound > 0:
        options["bounds"] = [-config.bound, config.bound]
    return cma.CMAEvolutionStrategy(np.zeros(config.dim), config.sigma, options)


def judge(task: Task, logits: NDArray[np.floating], dev: Examples, config: Config) -> list[tuple[Standing, float]]:
    """Standing and metric of each candidate, from its dev logits (candidates, texts, words)."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    loss = cross_entropy(logits, labels)
    return [(standing(m, x, config), m) for m, x in zip(metric.tolist(), loss.tolist(), strict=True)]


def standing(metric: float, loss: float, config: Config) -> Standing:
    """What two candidates are compared by: the deciding number first, then the one that breaks ties."""
    if config.selection == "faithful":
        return (metric,)
    return (metric, -loss) if config.select == "metric" else (-loss, metric)
