"""BBT: CMA-ES in a random subspace of the soft prompt (Sun et al., ICML 2022, https://arxiv.org/abs/2201.03514).

    z* = argmin over z in R^d of L(lm(p0 + A z), y),  A_ij ~ N(0, (alpha s / sigma)^2 / d)

The model is shown p0 + A z: p0 are fixed vocabulary tokens, A is declared once and lives on the server, CMA-ES moves
z. Since z starts as N(0, sigma^2 I), the first prompts have standard deviation alpha s, whatever sigma is.

Differs from the paper and its code: s is the standard deviation of the first layer's input, not of the word
embeddings (`width_from`); looks at dev are paid for; dev sees the mean of CMA-ES and the best sample, not the last
sample; ties in the dev metric are broken by dev loss; the bare template is the first incumbent (`selection` undoes the
last three). `presets.toml` has the published settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness import Answer, BlackBox, Count, Examples, NonNegative, Positive, Several, Shots, Subspace, Task, WidthFrom
from harness.solving import CmaEs, Loss, Selection, cross_entropy, hinge, negative_accuracy

LOSSES: dict[str, Loss] = {"ce": cross_entropy, "hinge": hinge, "accuracy": negative_accuracy}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; a default is the published value unless its comment says otherwise."""

    dim: Count = 500  # d, length of z
    population: Several = 20  # lambda, candidates per generation
    sigma: Positive = 1.0  # first step size, in units of z; without a `bound` it changes nothing, A is divided by it
    alpha: NonNegative = 1.0  # standard deviation of the first prompts, in units of `width_from`
    # What alpha is measured in: the std of the first layer's input (ours), of the word embeddings (the published code;
    # much smaller on some models), or 1 (for the uniform projection of the first code).
    width_from: WidthFrom = "hidden"
    projection: Literal["normal", "uniform"] = "normal"  # entries of A; uniform is on +-1/sqrt(d), times the width
    injection: Literal["add", "prepend"] = "add"  # add to the embeddings of p0 (the code) or prepend (the paper)
    loss: Literal["ce", "hinge", "accuracy"] = "ce"  # the authors' for MRPC, RTE and SNLI: hinge; accuracy is flat
    tokens: Count | None = None  # length of the prompt; None is the track's (published: 50)
    bound: NonNegative = 0.0  # half-width of the box around z = 0 (the paper: 5); 0 is no box
    dev_every: Count = 5  # generations between two looks at dev (published: 100 calls, which are 5 generations of 20)
    # What dev is shown, and what wins: ours; or `faithful` to the code: the last sample of the generation, where its
    # metric is strictly higher; then the first to beat is 0, and the budget's end brings no look of its own.
    selection: Literal["house", "faithful"] = "house"
    select: Literal["metric", "loss"] = "metric"  # what dev decides by (early 2022: loss); the other one breaks ties
    queries: Literal["population", "serial"] = "population"  # a query per generation, or (the code) per candidate

    def __post_init__(self) -> None:
        """Refuse a rule of selection that is neither ours nor the published one."""
        if self.selection == "faithful" and self.select != "metric":
            raise ValueError(f"select={self.select!r} with selection='faithful', which decides by the metric alone")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before."""
    train, dev, loss, ours = shots.train, shots.dev, LOSSES[config.loss], config.selection == "house"
    space = Subspace(
        config.dim,
        (config.alpha * lm.info.widths(config.width_from)[0] / config.sigma,),
        lm.info.prompt_tokens if config.tokens is None else config.tokens,
        seed=int(rng.integers(2**62)),
        distribution=config.projection,
        mode=config.injection,
    )
    selection = Selection(task, dev, config.select if ours else "metric-alone")
    yield Answer.of(task)
    if ours:
        q = lm.logits(None, dev.texts)
        selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat

    search = CmaEs(config.dim, config.population, rng, config.sigma, config.bound)
    best_z, best_loss = np.zeros(config.dim), np.inf
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation in count(1):
        zs = search.ask()  # (population, d)
        losses = loss(forward(lm, space, zs, train, config), train.labels)  # (population,)
        search.tell(losses)
        lm.log(loss=losses.min(), **search.state)
        if losses.min() < best_loss:
            best_z, best_loss = zs[losses.argmin()], float(losses.min())

        last = ours and lm.budget.rows_left < round_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([search.mean, best_z]) if ours else zs[-1:]  # (looks, d)
            q = lm.logits(space.at(looks), dev.texts)
            for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, space.at(looks[k]), loss=best_loss, dev=metric)
        search.restart_if_converged()


def forward(
    lm: BlackBox, space: Subspace, zs: NDArray[np.float64], train: Examples, config: Config
) -> NDArray[np.floating]:
    """Label-word logits (candidates, texts, words) of a generation, in one query or in one per candidate."""
    if config.queries == "population" or lm.budget.rows_left < len(zs) * len(train):  # refused as a whole either way
        return lm.logits(space.at(zs), train.texts)
    return np.concatenate([lm.logits(space.at(z), train.texts) for z in zs])
