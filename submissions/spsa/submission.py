"""SPSA: two-point zeroth-order gradients of the prompt, followed by Adam (Spall 1992; MeZO, arXiv 2305.17333).

    g = 1/n sum_j (L(x + eps u_j) - L(x - eps u_j)) / (2 eps) u_j,    E[u u^T] = I

x are the coordinates z of a random subspace of the soft prompt, as in BBT, or the prompt itself. Two evaluations give a
directional derivative whatever the number of coordinates; times its direction it is an unbiased estimate of the
gradient, up to order eps^2. The 2n candidates of a step are one query.

Spall (IEEE Transactions on Automatic Control 37(3), 1992) moves x by a decaying gain times g, MeZO by a constant one;
here Adam moves it. Differs from MeZO also in this: prompts are tuned and not weights; the loss is that of the whole
training set, not of a batch; looks at dev are paid for, and dev loss breaks ties; the bare template is the first
incumbent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    NonNegative,
    Positive,
    Prompt,
    Prompts,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    hinge,
    macro_f1,
)

Floats: TypeAlias = NDArray[np.float64]
Place: TypeAlias = Callable[[Floats], Prompts]
"""Candidates x (candidates, size) as prompts."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; house choices unless a source is named."""

    where: Literal["input", "deep", "prompt"] = "input"
    """What x is: coordinates of a prompt at the ``input``, of prompts at all layers (``deep``), or the values of the
    input ``prompt`` themselves, without a subspace (MeZO's prefix)."""
    dim: Count = 500
    """d, coordinates per layer, as in BBT."""
    alpha: NonNegative = 1.0
    """Width of the prompt that x ~ N(0, I) would give, in standard deviations of the first layer's input, as in BBT."""
    alpha_deep: NonNegative = 0.2
    """The same for layers 1 and above; only for ``deep``."""
    directions: Count = 5
    """n, directions per step; a step costs 2n calls. MeZO: 1."""
    eps: Positive = 0.1
    """Length of a perturbation, in units of x. MeZO's prefix: 0.1."""
    eta: Positive = 0.1
    """Adam's learning rate, in units of x."""
    distribution: Literal["rademacher", "normal"] = "rademacher"
    """Entries of u: +-1 (Spall) or ``normal`` (MeZO)."""
    loss: Literal["ce", "hinge"] = "ce"
    """``ce`` or ``hinge``, as in BBT."""
    dev_every: Count = 100
    """Calls between two looks at dev, as published for BBT, at 2 * len(dev) rows each."""


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    loss = {"ce": cross_entropy, "hinge": hinge}[config.loss]
    size, place = search_space(lm, rng, config)

    yield Answer.of(task)
    (selected,) = judge(task, lm.logits(None, dev.texts), dev)  # the prompt to beat

    x, adam = np.zeros(size), Adam(size, config.eta)
    best_x, best_loss = x, np.inf  # of all candidates
    step_rows, look_rows = 2 * config.directions * len(train), 2 * len(dev)
    look_steps = max(1, config.dev_every // (2 * config.directions))
    for step in count(1):
        if lm.budget.rows_left < step_rows + look_rows:
            return
        u = draw(rng, config.distribution, (config.directions, size))
        candidates = np.concatenate([x + config.eps * u, x - config.eps * u])  # (2n, size)
        losses = loss(lm.logits(place(candidates), train.texts), train.labels)  # (2n,)
        if losses.min() < best_loss:
            best_x, best_loss = candidates[losses.argmin()], float(losses.min())
        plus, minus = np.split(losses, 2)
        x = x - adam.step(estimate(u, plus, minus, config.eps))

        last = lm.budget.rows_left < step_rows + look_rows
        if last or step % look_steps == 0:
            looks = np.stack([x, best_x])  # (2, size): where the search is, the best candidate
            scores = judge(task, lm.logits(place(looks), dev.texts), dev)
            for look, score in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield Answer.of(task, place(look[None]), loss=best_loss, dev=score[0])


def search_space(lm: BlackBox, rng: np.random.Generator, config: Config) -> tuple[int, Place]:
    """Length of x, and how x becomes a prompt. In each case x ~ N(0, I) is as wide as `alpha` says."""
    info = lm.info
    if config.where == "prompt":
        shape, std = (1, info.prompt_tokens, info.width), config.alpha * info.hidden_std[0]
        return info.prompt_tokens * info.width, lambda x: Prompt((std * x).reshape(-1, *shape).astype(np.float32))
    layers = info.layers if config.where == "deep" else 1
    widths = [config.alpha] + [config.alpha_deep] * (layers - 1)
    stds = tuple(w * s for w, s in zip(widths, info.hidden_std, strict=False))
    space = Subspace(config.dim, stds, info.prompt_tokens, seed=int(rng.integers(2**62)))
    return layers * config.dim, lambda x: space.at(x.reshape(-1, layers, config.dim))


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────


def draw(rng: np.random.Generator, distribution: Literal["rademacher", "normal"], shape: tuple[int, int]) -> Floats:
    """Directions u with E[u u^T] = I: (directions, size)."""
    if distribution == "normal":
        return rng.standard_normal(shape)
    return np.asarray(2.0 * rng.integers(2, size=shape) - 1.0, dtype=np.float64)


def estimate(u: Floats, plus: Floats, minus: Floats, eps: float) -> Floats:
    """Mean over j of (plus_j - minus_j) / (2 eps) u_j: (size,).

    u  # (n, size);  plus, minus  # (n,) losses at x + eps u_j and x - eps u_j
    """
    return np.asarray((plus - minus) @ u / (2 * eps * len(u)), dtype=np.float64)


class Adam:
    """Adam (beta 0.9, 0.999) on one vector."""

    def __init__(self, size: int, eta: float) -> None:
        """Start with zero moments."""
        self.first, self.second, self.eta, self.steps = np.zeros(size), np.zeros(size), eta, 0

    def step(self, g: Floats) -> Floats:
        """What to subtract: eta m_hat / (sqrt(v_hat) + 1e-8)."""
        self.steps += 1
        self.first += 0.1 * (g - self.first)
        self.second += 0.001 * (g**2 - self.second)
        m, v = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        return np.asarray(self.eta * m / (np.sqrt(v) + 1e-8), dtype=np.float64)


def judge(task: Task, logits: NDArray[np.floating], dev: Examples) -> list[tuple[float, float]]:
    """Score of each candidate (candidates, texts, words): the task's metric, then minus the loss to break ties."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    return list(zip(metric.tolist(), (-cross_entropy(logits, labels)).tolist(), strict=True))
