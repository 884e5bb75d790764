"""BBTv2: deep prompts, one CMA-ES per layer, divide and conquer (Sun et al., EMNLP 2022, arXiv 2205.11200).

    for l = 0 .. L-1, again and again:  z_l <- argmin over z of CE(lm(h_l + A_l z at layer l, others fixed), y)

Every layer has its own projection A_l, as wide as that layer's input, and its own evolution strategy. One of them
moves at a time, from the bottom up; below the moving layer all candidates are equal, so the server computes that part
once for the whole population.

Differs from the paper and its code: a layer's prompt is replaced only if the training loss falls (`accept`; the code
takes the layer's best ever, whose loss may be stale); the widths are the server's published ones, measured at the zero
prompt; what does not fill a whole round is spent on a last, partial round (`remainder`); dev sees the stack of best
prompts and the stack of means, is paid for, and its loss breaks ties; the bare template is the first incumbent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cma
import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Examples,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    hinge,
    macro_f1,
)

Loss: TypeAlias = Callable[[NDArray[np.floating], NDArray[np.int64]], NDArray[np.floating]]
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "hinge": hinge}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    dim: int = 500
    """d, length of each z_l."""
    population: int = 20
    """Candidates per generation, lambda."""
    sigma: float = 1.0
    """First step size, in units of z. Changes nothing: A is divided by it."""
    alpha: float = 1.0
    """Standard deviation of the first prompts at the input, in standard deviations of the first layer's input.
    Published: 0.2 to 1, but of the word embeddings'."""
    alpha_deep: float = 0.2
    """The same for layers 1 and above."""
    loss: Literal["ce", "hinge"] = "ce"
    """``ce`` or ``hinge``."""
    accept: Literal["improve", "best"] = "improve"
    """What replaces a layer's prompt: the best of the generation if the loss falls (``improve``), or the layer's best
    ever, by the loss it had then (``best``, published)."""
    remainder: bool = True
    """Go on with a partial round when the budget is no whole number of rounds; published: stop there."""
    dev_every: int = 5
    """Generations between two looks at dev (published: 100 calls), at 2 * len(dev) rows each."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published), or the ``loss``, ties by metric (as in the
    code of early 2022; steadier on few texts)."""


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every stack of prompts that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    layers, loss = lm.info.layers, LOSSES[config.loss]
    alphas = [config.alpha] + [config.alpha_deep] * (layers - 1)
    space = Subspace(
        dim=config.dim,
        std=tuple(a * s / config.sigma for a, s in zip(alphas, lm.info.hidden_std, strict=True)),
        tokens=lm.info.prompt_tokens,
        seed=int(rng.integers(2**62)),
    )

    yield Answer.of(task)
    (selected,) = judge(task, lm.logits(None, dev.texts), dev, config.select)  # the prompt to beat

    searches = [evolution(config, rng) for _ in range(layers)]
    best = np.zeros((layers, config.dim))  # the stack z_0 .. z_{L-1}
    best_loss = np.inf
    best_of_layer = np.full(layers, np.inf)
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation, layer in enumerate(schedule(lm.budget.calls_left, layers, config), start=1):
        zs = np.array(searches[layer].ask())  # (population, d)
        stacks = np.repeat(best[None], len(zs), axis=0)  # (population, layers, d)
        stacks[:, layer] = zs  # only the current layer differs
        losses = loss(lm.logits(space.at(stacks), train.texts), train.labels)  # (population,)
        searches[layer].tell(list(zs), losses.tolist())
        bar = best_loss if config.accept == "improve" else best_of_layer[layer]
        if losses.min() < bar:
            best[layer] = zs[losses.argmin()]
            best_loss = best_of_layer[layer] = float(losses.min())
        if searches[layer].stop():
            searches[layer] = evolution(config, rng)

        last = lm.budget.rows_left < round_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([best, [search.mean for search in searches]])  # (2, layers, d)
            scores = judge(task, lm.logits(space.at(looks), dev.texts), dev, config.select)
            for z, score in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield Answer.of(task, space.at(z[None]), loss=best_loss, dev=score[0])


def schedule(calls: float, layers: int, config: Config) -> Iterator[int]:
    """Which layer moves: bottom up, as many rounds as fit; with `remainder`, on until the budget ends."""
    generations = int(calls // (config.population * layers)) * layers
    generation = 0
    while generation < generations or config.remainder:
        yield generation % layers
        generation += 1


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
    return cma.CMAEvolutionStrategy(np.zeros(config.dim), config.sigma, options)


def judge(task: Task, logits: NDArray[np.floating], dev: Examples, select: str) -> list[tuple[float, float]]:
    """Score of each candidate (candidates, texts, words): metric and minus loss, the deciding one first."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    pairs = zip(metric.tolist(), (-cross_entropy(logits, labels)).tolist(), strict=True)
    return [pair if select == "metric" else pair[::-1] for pair in pairs]
