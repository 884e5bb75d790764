"""AJO: alternating joint optimisation of deep prompts and a local classifier (winner of the competition).

    p(y | x) = (1 - a) softmax(W q) + a softmax(V h + b)        a = 0.5

q are the label-word logits and h the hidden state at [MASK]. W calibrates the logits once, before the search. Then two
steps alternate on the loss -mean log p_y: Adam trains the head (V, b) on hidden states that were already paid for, and
CMA-ES moves the prompts layer by layer from the bottom up, as in BBTv2, with the head frozen.

No code is public, and the report gives its two equations and its algorithm as images. **Reconstructed**, from its text:
the calibration formula, the mixture of probabilities, a linear head that starts at zero, and where in the loop the head
is trained. Known from the text: the three parts, a = 0.5, learning rate 3e-4, 3 epochs per alternation, BBTv2 as base.

Differs from the text: calibration is additive by default (`calibrate`): the multiplicative W = lambda diag(q_mean)^-1
flips a class whose mean logit is negative and explodes one near 0. The learning rate is scaled to the model's width
(`eta`). A layer's prompt is replaced only if the joint loss falls, under the head as it is now. Looks at dev are paid
for, and dev loss breaks ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, TypeAlias

import cma
import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Coordinates,
    Count,
    Examples,
    LinearHead,
    Member,
    NonNegative,
    Outputs,
    Positive,
    Several,
    Share,
    Shots,
    Subspace,
    Task,
    accuracy,
    macro_f1,
    negative_log_likelihood,
    softmax,
)

Standing: TypeAlias = tuple[float, float]
"""What dev thinks of a candidate, metric and minus loss, the deciding one first; the greater wins."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    dim: Count = 500
    """d, length of each z_l."""
    population: Several = 20
    """Candidates per generation, lambda."""
    alpha_input: NonNegative = 1.0
    """Standard deviation of the first prompts at the input, in standard deviations of the first layer's input."""
    alpha_deep: NonNegative = 0.2
    """The same for layers 1 and above."""
    calibrate: Literal["safe", "faithful", "none"] = "safe"
    """``safe`` (additive, see `safe_shift`), ``faithful`` (multiplicative, guarded, see `faithful_scale`), ``none``."""
    head: bool = True
    """Train and mix in the classifier on hidden states. Without it this is calibrated BBTv2."""
    joint: bool = True
    """Search prompts on the mixture's loss; without it on that of the calibrated logits alone."""
    alpha: Share = 0.5
    """Weight of the head in the mixture."""
    eta: Positive = 3e-4
    """Adam's learning rate at a width of 1024; used times 1024 / width, so that a step moves the head's logits as much
    on a narrow model as on the published one (a house choice)."""
    epochs: Count = 3
    """Epochs of head training per alternation."""
    batch: Count = 16
    """Texts per step of head training (reconstructed)."""
    decay: NonNegative = 0.01
    """Decoupled weight decay of the head (a house choice)."""
    head_every: Literal["layer", "round"] = "round"
    """Train the head before every ``round`` through the layers, or before every ``layer`` (faster on few rounds)."""
    dev_every: Count = 5
    """Generations between two looks at dev, at 2 * len(dev) rows each."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published: the earliest stays), or the ``loss``, ties
    by metric (as in the code of early 2022; steadier on few texts)."""


@dataclass
class Head:
    """A linear classifier and the state of its Adam."""

    weight: NDArray[np.float64]  # V (classes, width)
    bias: NDArray[np.float64]  # b (classes,)
    moments: list[tuple[Any, Any]] = field(default_factory=lambda: [(0.0, 0.0), (0.0, 0.0)])
    steps: int = 0

    def probabilities(self, h: NDArray[np.floating]) -> NDArray[np.float64]:
        """softmax(V h + b): (..., width) -> (..., classes)."""
        return softmax(h @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Calibration:
    """W: q' = scale * q + shift, per class."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    fallback: bool = False
    """The multiplicative form was asked for, and refused by its guard."""


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, the calibrated one, then every (prompts, head) that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    layers, classes = lm.info.layers, len(task.classes)
    widths = [config.alpha_input] + [config.alpha_deep] * (layers - 1)
    std = tuple(w * s for w, s in zip(widths, lm.info.hidden_std, strict=True))
    space = Subspace(config.dim, std, lm.info.prompt_tokens, seed=int(rng.integers(2**62)))
    alpha = config.alpha if config.head else 0.0

    yield Answer.of(task)
    zero = np.zeros((1, layers, config.dim))
    current = lm.outputs(space.at(zero), train.texts)  # q (1, texts, words), h (1, texts, width): one call
    bare = Calibration(np.ones(classes), np.zeros(classes))
    w = bare if config.calibrate == "none" else calibrate(current.logits[0], config.calibrate == "faithful")
    head = Head(np.zeros((classes, lm.info.width)), np.zeros(classes))

    best = zero[0]  # the stack z_0 .. z_{L-1}
    selected = (-np.inf, -np.inf)
    outs = lm.outputs(None, dev.texts)
    for how in (bare, w):  # the bare template, then calibrated: the same forward pass
        ((score, metric),) = judge(task, mixture(outs, how, head, 0.0), dev, config.select)
        if score > selected:
            selected = score
            yield answer(task, None, how, head, 0.0, dev=metric)

    searches = [evolution(config, rng) for _ in range(layers)]
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation in count():
        layer = generation % layers
        if config.head and (layer == 0 or config.head_every == "layer"):
            train_head(head, current, w, train, rng, config, lm.info.width)  # on outputs already paid for
        search_alpha = alpha if config.joint else 0.0

        zs = np.array(searches[layer].ask())  # (population, d)
        stacks = np.repeat(best[None], len(zs), axis=0)  # (population, layers, d)
        stacks[:, layer] = zs  # only the current layer differs
        outs = lm.outputs(space.at(stacks), train.texts)
        losses = negative_log_likelihood(mixture(outs, w, head, search_alpha), train.labels)  # (population,)
        searches[layer].tell(list(zs), losses.tolist())
        # The head has moved since the current stack was accepted: score that again, from what is kept.
        (loss,) = negative_log_likelihood(mixture(current, w, head, search_alpha), train.labels)
        if losses.min() < loss:
            k = int(losses.argmin())
            best, loss = stacks[k], losses[k]
            current = Outputs(outs.logits[k : k + 1], outs.features[k : k + 1])
        if searches[layer].stop():
            searches[layer] = evolution(config, rng)

        last = lm.budget.rows_left < round_rows
        if last or (generation + 1) % config.dev_every == 0:
            looks = np.stack([best, [search.mean for search in searches]])  # (2, layers, d)
            scores = judge(task, mixture(lm.outputs(space.at(looks), dev.texts), w, head, alpha), dev, config.select)
            for z, (score, metric) in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield answer(task, space.at(z[None]), w, head, alpha, loss=float(loss), dev=metric)


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────


def calibrate(q: NDArray[np.floating], faithful: bool) -> Calibration:
    """W from the label-word logits (texts, classes) of the training texts at the zero prompt."""
    classes = q.shape[-1]
    mean = q.mean(axis=0, dtype=np.float64)
    if not faithful:
        return Calibration(np.ones(classes), safe_shift(q))
    scale = faithful_scale(mean)
    if scale is not None:
        return Calibration(scale, np.zeros(classes))
    return Calibration(np.ones(classes), mean.mean() - mean, fallback=True)  # move the means together instead


def safe_shift(q: NDArray[np.floating]) -> NDArray[np.float64]:
    """-log of the mean probability of each class, centred.

    On probabilities this is W = diag(p_mean)^-1, then normalised (Zhao et al., ICML 2021), with p_mean from the
    training texts in place of content-free ones.
    """
    b = np.log(np.maximum(softmax(q).mean(axis=0), 1e-4))
    return np.asarray(b.mean() - b, dtype=np.float64)


def faithful_scale(mean: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """W = lambda diag(q_mean)^-1 with lambda = mean_k q_mean_k, so that W q_mean = lambda 1; None if unsafe.

    Safe is: no class mean below a tenth of the mean magnitude, and none more than five times another.
    """
    if mean.min() < 0.1 * np.abs(mean).mean() or mean.max() > 5 * mean.min():
        return None
    return np.asarray(mean.mean() / mean, dtype=np.float64)


# ── the mixture and its head ─────────────────────────────────────────────────────────────────────────────────


def mixture(outs: Outputs, w: Calibration, head: Head, alpha: float) -> NDArray[np.float64]:
    """Mix p = (1 - alpha) softmax(W q) + alpha softmax(V h + b): (candidates, texts, classes)."""
    p1 = softmax(w.scale * outs.logits.astype(np.float64) + w.shift)
    return p1 if alpha == 0 else (1 - alpha) * p1 + alpha * head.probabilities(outs.features)


def train_head(
    head: Head, outs: Outputs, w: Calibration, train: Examples, rng: np.random.Generator, config: Config, width: int
) -> None:
    """A few epochs of Adam on the head, on -mean log p_y of the mixture (`joint`) or of the head alone."""
    alpha = config.alpha if config.joint else 1.0
    p1 = mixture(outs, w, head, 0.0)[0]  # (texts, classes), constant
    h = outs.features[0].astype(np.float64)  # (texts, width)
    eta = config.eta * 1024 / width
    for _ in range(config.epochs):
        order = rng.permutation(len(train))
        for start in range(0, len(order), config.batch):
            rows = order[start : start + config.batch]
            gradient = head_gradient(head, h[rows], p1[rows], train.labels[rows], alpha)
            adam(head, gradient, eta, config.decay)


def head_gradient(
    head: Head, h: NDArray[np.float64], p1: NDArray[np.float64], labels: NDArray[np.int64], alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient of -mean log((1 - alpha) p1_y + alpha p2_y) in V and b.

    d/ds_k = r (p2_k - [k = y]),  r = alpha p2_y / p_y: how much of a text's probability is the head's.
    """
    rows = np.arange(len(labels))
    p2 = head.probabilities(h)
    own = alpha * p2[rows, labels]
    r = own / np.maximum((1 - alpha) * p1[rows, labels] + own, 1e-12)
    error = p2.copy()
    error[rows, labels] -= 1
    error *= r[:, None] / len(labels)  # (texts, classes)
    return error.T @ h, error.sum(axis=0)


def adam(head: Head, gradient: tuple[NDArray[np.float64], NDArray[np.float64]], eta: float, decay: float) -> None:
    """One step of Adam (beta 0.9, 0.999) with decoupled weight decay on V."""
    head.steps += 1
    head.weight *= 1 - eta * decay
    for n, (parameter, g) in enumerate(zip((head.weight, head.bias), gradient, strict=True)):
        m, v = head.moments[n]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        head.moments[n] = (m, v)
        step = (m / (1 - 0.9**head.steps)) / (np.sqrt(v / (1 - 0.999**head.steps)) + 1e-8)
        np.subtract(parameter, eta * step, out=parameter)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def answer(task: Task, prompt: Coordinates | None, w: Calibration, head: Head, alpha: float, **note: float) -> Answer:
    """Pack a snapshot; the head is copied, since training goes on. The note tells a calibration that fell back."""
    member = Member(
        task.template,
        task.words,
        prompt,
        scale=tuple(w.scale.tolist()),
        shift=tuple(w.shift.tolist()),
        head=LinearHead(head.weight.astype(np.float32), head.bias.astype(np.float32)) if alpha > 0 else None,
        alpha=alpha,
    )
    return Answer((member,), {**note, "calibration_fallback": 1.0} if w.fallback else note)


def evolution(config: Config, rng: np.random.Generator) -> Any:
    """A fresh CMA-ES at z = 0 with step 1. All chance comes from `rng`; flat losses do not stop it."""
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
    return cma.CMAEvolutionStrategy(np.zeros(config.dim), 1.0, options)


def judge(task: Task, p: NDArray[np.floating], dev: Examples, select: str) -> list[tuple[Standing, float]]:
    """Standing and metric of each candidate, from its dev probabilities (candidates, texts, classes)."""
    predicted, labels, classes = p.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    pairs = zip(metric.tolist(), (-negative_log_likelihood(p, labels)).tolist(), strict=True)
    return [(pair if select == "metric" else pair[::-1], pair[0]) for pair in pairs]
