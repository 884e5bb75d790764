"""SPSA: two-point zeroth-order gradients of the prompt, followed by Adam (Spall 1992; MeZO, arXiv 2305.17333).

    g = 1/n sum_j (L(x + eps u_j) - L(x - eps u_j)) / (2 eps) u_j,    E[u u^T] = I

x are the coordinates z of a random subspace of the soft prompt, as in BBT, or the prompt itself. Two evaluations give a
directional derivative whatever the number of coordinates; times its direction it is an unbiased estimate of the
gradient, up to order eps^2. The 2n candidates of a step are one query.

Spall (IEEE Transactions on Automatic Control 37(3)) moves x by a decaying gain times g, MeZO by a constant one; here
Adam moves it. Differs from MeZO also in this: prompts are tuned and not weights; the loss is of the whole training set;
looks at dev are paid for, dev loss breaks ties; the bare template is the first incumbent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import Answer, BlackBox, Count, NonNegative, Positive, Prompt, Prompts, Shots, Subspace, Task
from harness.solving import Adam, Selection, cross_entropy, hinge

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    # What x is: coordinates of a prompt at the input or at all layers, or the input prompt itself (MeZO's prefix).
    where: Literal["input", "deep", "prompt"] = "input"
    dim: Count = 500  # d, coordinates per layer, as in BBT
    alpha: NonNegative = 1.0  # width of the prompt that x ~ N(0, I) gives, in stds of the first layer's input (BBT)
    alpha_deep: NonNegative = 0.2  # the same for layers 1 and above; only for `deep`
    directions: Count = 5  # n, directions per step; a step costs 2n calls (MeZO: 1)
    eps: Positive = 0.1  # length of a perturbation, in units of x (MeZO's prefix: 0.1)
    eta: Positive = 0.1  # Adam's learning rate, in units of x
    distribution: Literal["rademacher", "normal"] = "rademacher"  # entries of u: +-1 (Spall) or normal (MeZO)
    loss: Literal["ce", "hinge"] = "ce"  # as in BBT
    dev_every: Count = 100  # calls between two looks at dev, at 2 * len(dev) rows each (published for BBT)


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before."""
    train, dev, loss = shots.train, shots.dev, {"ce": cross_entropy, "hinge": hinge}[config.loss]
    size, place = search_space(lm, rng, config)
    selection = Selection(task, dev)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat

    x, best_x, best_loss, adam = np.zeros(size), np.zeros(size), np.inf, Adam(config.eta)  # best of all candidates
    step_rows, look_rows = 2 * config.directions * len(train), 2 * len(dev)
    look_steps = max(1, config.dev_every // (2 * config.directions))
    for step in count(1):
        if lm.budget.rows_left < step_rows + look_rows:
            return
        u = draw(rng, config.distribution, (config.directions, size))
        candidates = np.concatenate([x + config.eps * u, x - config.eps * u])  # (2n, size)
        losses = loss(lm.logits(place(candidates), train.texts), train.labels)  # (2n,)
        lm.log(loss=losses.min())
        if losses.min() < best_loss:
            best_x, best_loss = candidates[losses.argmin()], float(losses.min())
        plus, minus = np.split(losses, 2)  # (n,) each
        adam.step([x], [estimate(u, plus, minus, config.eps)])

        if step % look_steps == 0 or lm.budget.rows_left < step_rows + look_rows:
            looks = np.stack([x, best_x])  # (2, size): where the search is, the best candidate
            q = lm.logits(place(looks), dev.texts)
            for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer.of(task, place(looks[k : k + 1]), loss=best_loss, dev=metric)


def search_space(lm: BlackBox, rng: np.random.Generator, config: Config) -> tuple[int, Callable[[Floats], Prompts]]:
    """Length of x, and how candidates x (candidates, size) become prompts as wide as `alpha` says."""
    info, std = lm.info, config.alpha * lm.info.hidden_std[0]
    if config.where == "prompt":
        shape = (-1, 1, info.prompt_tokens, info.width)
        return info.prompt_tokens * info.width, lambda x: Prompt((std * x).reshape(shape).astype(np.float32))
    if config.where == "deep":
        space = Subspace.deep(info, config.dim, rng, config.alpha, config.alpha_deep)
    else:
        space = Subspace(config.dim, (std,), info.prompt_tokens, seed=int(rng.integers(2**62)))
    return space.layers * config.dim, lambda x: space.at(x.reshape(-1, space.layers, config.dim))


def draw(rng: np.random.Generator, distribution: Literal["rademacher", "normal"], shape: tuple[int, int]) -> Floats:
    """Directions u with E[u u^T] = I: (directions, size)."""
    if distribution == "normal":
        return rng.standard_normal(shape)
    return np.asarray(2.0 * rng.integers(2, size=shape) - 1.0, dtype=np.float64)


def estimate(u: Floats, plus: Floats, minus: Floats, eps: float) -> Floats:
    """G (size,) from directions u (n, size) and the losses (n,) at x + eps u_j and at x - eps u_j."""
    return np.asarray((plus - minus) @ u / (2 * eps * len(u)), dtype=np.float64)
