"""BBTv2: deep prompts, one CMA-ES per layer, divide and conquer (Sun et al., EMNLP 2022, arXiv 2205.11200).

    for l = 0 .. L-1, again and again:  z_l <- argmin over z of CE(lm(h_l + A_l z at layer l, others fixed), y)

Every layer has its own projection A_l, as wide as that layer's input, and its own evolution strategy. One of them
moves at a time, from the bottom up; below the moving layer all candidates are equal, so the server computes that part
once for the whole population.

Differs from the paper and its code: a layer's prompt is replaced only if the training loss falls (`accept`; the code
takes the layer's best ever, whose loss may be stale); the widths are the server's published ones, measured at the zero
prompt; what does not fill a whole round is spent on a last, partial round (`remainder`); dev sees the stack of best
prompts and the stack of means, is paid for, and its loss breaks ties; the bare template is the first incumbent
(`selection` undoes that, but for the price). `presets.toml` has the published settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness import Answer, BlackBox, Count, NonNegative, Positive, Several, Shots, Subspace, Task, WidthFrom
from harness.solving import CmaEs, Loss, Selection, cross_entropy, hinge

LOSSES: dict[str, Loss] = {"ce": cross_entropy, "hinge": hinge}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; a default is the published value unless its comment says otherwise."""

    dim: Count = 500  # d, length of each z_l
    population: Several = 20  # lambda, candidates per generation
    sigma: Positive = 1.0  # first step size, in units of z; it changes nothing, A is divided by it
    alpha: NonNegative = 1.0  # std of the first prompts at the input, in units of `width_from` (published: 0.2 to 1)
    alpha_deep: NonNegative = 0.2  # the same for layers 1 and above
    # What the alphas are measured in: the std of each layer's input (ours), the same clipped at three stds and of the
    # word embeddings at the input (published), or 1 (for the published uniform projection).
    width_from: WidthFrom = "hidden"
    projection: Literal["normal", "uniform"] = "normal"  # entries of A_l; uniform is on +-1/sqrt(d), times the width
    loss: Literal["ce", "hinge"] = "ce"
    # What replaces a layer's prompt: the best of the generation, if the loss falls (ours), or the layer's best ever, by
    # the loss it had then (published).
    accept: Literal["improve", "best"] = "improve"
    remainder: bool = True  # go on with a partial round at the end of the budget (published: stop before it)
    dev_every: Count = 5  # generations between two looks at dev (published: 100 calls, which are 5 generations of 20)
    # What dev is shown, and what wins: ours; or `faithful` to the code: the last sample of the generation in place,
    # where its metric is strictly higher; then the first to beat is 0, and the budget's end brings no look of its own.
    selection: Literal["house", "faithful"] = "house"
    select: Literal["metric", "loss"] = "metric"  # what dev decides by (early 2022: loss); the other one breaks ties

    def __post_init__(self) -> None:
        """Refuse a rule of selection that is neither ours nor the published one."""
        if self.selection == "faithful" and self.select != "metric":
            raise ValueError(f"select={self.select!r} with selection='faithful', which decides by the metric alone")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every stack of prompts that dev prefers to all before."""
    train, dev, loss, ours = shots.train, shots.dev, LOSSES[config.loss], config.selection == "house"
    layers, alphas = lm.info.layers, (config.alpha / config.sigma, config.alpha_deep / config.sigma)
    space = Subspace.deep(lm.info, config.dim, rng, *alphas, config.width_from, config.projection)
    selection = Selection(task, dev, config.select if ours else "metric-alone")
    yield Answer.of(task)
    if ours:
        q = lm.logits(None, dev.texts)
        selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat

    searches = [CmaEs(config.dim, config.population, rng, config.sigma) for _ in range(layers)]
    best, best_loss = np.zeros((layers, config.dim)), np.inf  # the stack z_0 .. z_{L-1}
    best_of_layer = np.full(layers, np.inf)
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation, layer in enumerate(schedule(lm.budget.calls_left, layers, config), start=1):
        stacks = np.repeat(best[None], config.population, axis=0)  # (population, layers, d)
        stacks[:, layer] = searches[layer].ask()  # only this layer moves
        losses = loss(lm.logits(space.at(stacks), train.texts), train.labels)  # (population,)
        searches[layer].tell(losses)
        lm.log(loss=losses.min(), layer=layer, **searches[layer].state)
        bar = best_loss if config.accept == "improve" else best_of_layer[layer]
        if losses.min() < bar:
            best = stacks[losses.argmin()]
            best_loss = best_of_layer[layer] = float(losses.min())
        searches[layer].restart_if_converged()

        last = ours and lm.budget.rows_left < round_rows
        if last or generation % config.dev_every == 0:
            # (looks, layers, d): the best and the means, or the last sample in place
            looks = np.stack([best, [search.mean for search in searches]]) if ours else stacks[-1:]
            q = lm.logits(space.at(looks), dev.texts)
            for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, space.at(looks[k : k + 1]), loss=best_loss, dev=metric)


def schedule(calls: float, layers: int, config: Config) -> Iterator[int]:
    """Which layer moves: bottom up, as many rounds as fit; with `remainder`, on until the budget ends."""
    generations = int(calls // (config.population * layers)) * layers
    generation = 0
    while generation < generations or config.remainder:
        yield generation % layers
        generation += 1
