"""BBTv2: deep prompts, one CMA-ES per layer, divide and conquer (Sun et al., EMNLP 2022, arXiv 2205.11200).

    for l = 0 .. L-1, again and again:  z_l <- argmin over z of CE(lm(h_l + A_l z at layer l, others fixed), y)

Every layer has its own projection A_l, as wide as that layer's input, and its own evolution strategy. One of them
moves at a time, from the bottom up; below the moving layer all candidates are equal, so the server computes that part
once for the whole population.

Differs from the paper and its code: a layer's prompt is replaced only if the training loss falls (`accept`; the code
takes the layer's best ever, whose loss may be stale); the widths are the server's published ones, measured at the zero
prompt; what does not fill a whole round is spent on a last, partial round (`remainder`); dev sees the stack of best
prompts and the stack of means, is paid for, and its loss breaks ties; the bare template is the first incumbent
(`selection` undoes that, but for the price). The published behaviour: ``accept=best remainder=false
selection=faithful width_from=embedding``.
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
    Count,
    Examples,
    ModelInfo,
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
)

Loss: TypeAlias = Callable[[NDArray[np.floating], NDArray[np.int64]], NDArray[np.floating]]
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "hinge": hinge}
Standing: TypeAlias = tuple[float, ...]
"""What dev thinks of a candidate; the greater wins."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    dim: Count = 500
    """d, length of each z_l."""
    population: Several = 20
    """Candidates per generation, lambda."""
    sigma: Positive = 1.0
    """First step size, in units of z. Changes nothing: A is divided by it."""
    alpha: NonNegative = 1.0
    """Standard deviation of the first prompts at the input, in units of `width_from`. Published: 0.2 to 1."""
    alpha_deep: NonNegative = 0.2
    """The same for layers 1 and above."""
    width_from: Literal["hidden", "embedding", "unit"] = "hidden"
    """What the alphas are measured in: ``hidden`` (each layer's input), ``embedding`` (word embeddings at the input, as
    published; each layer's input above it), or ``unit`` (1, for the published uniform projection)."""
    projection: Literal["normal", "uniform"] = "normal"
    """Entries of A_l: ``normal``, or ``uniform`` on +-1/sqrt(d), in units of the widths."""
    loss: Literal["ce", "hinge"] = "ce"
    """``ce`` or ``hinge``."""
    accept: Literal["improve", "best"] = "improve"
    """What replaces a layer's prompt: the best of the generation if the loss falls (``improve``), or the layer's best
    ever, by the loss it had then (``best``, published)."""
    remainder: bool = True
    """Go on with a partial round when the budget is no whole number of rounds; published: stop there."""
    dev_every: Count = 5
    """Generations between two looks at dev (published: 100 calls, which 5 are at a population of 20). One shows 2
    candidates; 1 if ``faithful``."""
    selection: Literal["house", "faithful"] = "house"
    """What dev is shown, and what wins: ``house``, or ``faithful`` to the code: the last sample of the generation in
    place, which replaces the incumbent if its metric is strictly higher; the first to beat is 0, and the budget's end
    brings no look of its own. Looks are counted in generations (`dev_every`): every 100 calls at a population of 20
    only."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published: the earliest stays), or the ``loss``, ties
    by metric (as in the code of early 2022; steadier on few texts)."""

    def __post_init__(self) -> None:
        """Refuse a rule of selection that is neither the house's nor the published one."""
        if self.selection == "faithful" and self.select != "metric":
            raise ValueError(f"select={self.select!r} with selection='faithful', which decides by the metric alone")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every stack of prompts that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    layers, loss = lm.info.layers, LOSSES[config.loss]
    space = Subspace(
        dim=config.dim,
        std=widths(lm.info, config),
        tokens=lm.info.prompt_tokens,
        seed=int(rng.integers(2**62)),
        distribution=config.projection,
    )

    yield Answer.of(task)
    selected: Standing = (0.0,)
    if config.selection == "house":
        ((selected, _),) = judge(task, lm.logits(None, dev.texts), dev, config)  # the prompt to beat

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

        last = config.selection == "house" and lm.budget.rows_left < round_rows
        if last or generation % config.dev_every == 0:
            looks = stacks[-1:]  # (1, layers, d): the last sample in place
            if config.selection == "house":
                looks = np.stack([best, [search.mean for search in searches]])  # (2, layers, d)
            scores = judge(task, lm.logits(space.at(looks), dev.texts), dev, config)
            for z, (score, metric) in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield Answer.of(task, space.at(z[None]), loss=best_loss, dev=metric)


def widths(info: ModelInfo, config: Config) -> tuple[float, ...]:
    """Width of each layer's projection, alpha_l s_l / sigma."""
    s = list(info.hidden_std) if config.width_from != "unit" else [1.0] * info.layers
    if config.width_from == "embedding":
        s[0] = info.embedding_std
    alphas = [config.alpha] + [config.alpha_deep] * (info.layers - 1)
    return tuple(a * s_l / config.sigma for a, s_l in zip(alphas, s, strict=True))


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
