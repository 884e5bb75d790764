"""DecT: prototypes on the model's outputs (Cui et al., ACL 2023, https://arxiv.org/abs/2212.08408).

    score_k = -|W h / |W h| - c_k| + lambda s_k + r_k

Nothing is done to the input. Each training text is forwarded once; s are its calibrated label-word logits, h is its
hidden state at [MASK]. A small decoder - projection W, one prototype c_k and one radius r_k per class - is then trained
on cross-entropy, here in plain numpy with gradients written by hand. Read from released code: raw logits, prototypes
drawn once and left alone, radii that start at the mean of |W h - W h_mean| over a class, Adam on the full batch.

Differs from the paper and its code: calibration is additive by default (`calibrate`), because the published
s / (s_cf / mean s_cf) flips a class whose logit on the empty text is negative. One look at dev is paid for, and takes
the decoder back if the bare template is better there. An ensemble over several prompts is an option (`passes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    Member,
    NonNegative,
    Positive,
    Prompts,
    PrototypeHead,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    macro_f1,
    negative_log_likelihood,
    softmax,
)

Floats: TypeAlias = NDArray[np.float64]
MOST_PASSES = 64
"""An answer may have that many members."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the value of the released code is the default unless it says otherwise."""

    projection: Count = 128
    """Length of W h and of a prototype."""
    logit_weight: NonNegative | None = None
    """lambda, weight of the label-word logits beside the prototypes; None is 1 / (training texts per class)."""
    calibrate: Literal["safe", "paper", "none"] = "safe"
    """``safe`` (additive, from the training texts, see `safe_shift`), ``paper`` (multiplicative and guarded, from an
    empty text: one more row, see `paper_scale`), ``none``."""
    prototypes: Literal["frozen", "trained"] = "frozen"
    """Leave the prototypes as they were drawn, as the released code does, or train them, too."""
    eta: Positive = 0.01
    """Adam's learning rate."""
    epochs: Count = 30
    """Steps of Adam, each on all training texts."""
    passes: Count = 1
    """Members of the ensemble: the bare template, then random prompts at the input, each with a decoder of its own.
    Every pass forwards train and dev once. Published: 1."""
    alpha: NonNegative = 0.2
    """Standard deviation of the random prompts, in standard deviations of the first layer's input (a house choice)."""
    dim: Count = 500
    """d, length of the coordinates of a random prompt; only for `passes` > 1."""

    def __post_init__(self) -> None:
        """Refuse an ensemble that does not fit into an answer."""
        if not 1 <= self.passes <= MOST_PASSES:
            raise ValueError(f"passes={self.passes}; 1 to {MOST_PASSES} fit into an answer")


@dataclass
class Decoder:
    """What is trained: as a `PrototypeHead`, in float64."""

    weight: Floats  # W (projection, width)
    prototypes: Floats  # c (classes, projection)
    radius: Floats  # r (classes,)

    @classmethod
    def start(cls, h: Floats, labels: NDArray[np.int64], classes: int, size: int, rng: np.random.Generator) -> Decoder:
        """Draw W as PyTorch's Linear does and c by Xavier's rule; r from the spread of each class."""
        width = h.shape[1]
        weight = rng.uniform(-1, 1, (size, width)) / np.sqrt(width)
        prototypes = rng.uniform(-1, 1, (classes, size)) * np.sqrt(6 / (classes + size))
        return cls(weight, prototypes, first_radius(h @ weight.T, labels, classes))

    def distances(self, h: Floats) -> Floats:
        """|W h / |W h| - c_k|: (texts, width) -> (texts, classes)."""
        x, _ = on_sphere(h @ self.weight.T)
        return np.asarray(np.linalg.norm(x[:, None] - self.prototypes, axis=-1), dtype=np.float64)

    def scores(self, h: Floats, s: Floats) -> Floats:
        """-distance + s + r, where s already holds lambda: (texts, classes)."""
        return np.asarray(s + self.radius - self.distances(h), dtype=np.float64)


@dataclass(frozen=True)
class Calibration:
    """s = scale * q + shift, per class."""

    scale: Floats
    shift: Floats


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the decoder; then what dev prefers to both, if anything."""
    train, dev = shots.train, shots.dev
    std = config.alpha * lm.info.hidden_std[0]
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**62)))

    yield Answer.of(task)
    members: list[Member] = []
    p_dev: list[Floats] = []  # each member's probabilities (texts, classes)
    selected = (-np.inf, -np.inf)
    for n in range(config.passes):
        prompt = space.at(rng.standard_normal(config.dim)) if n else None
        member, decoder, loss = fit(lm, task, train, prompt, rng, config)
        members.append(member)
        if n == 0:
            yield Answer((member,), {"loss": loss})  # as published: without a look at dev

        outs = lm.outputs(prompt, dev.texts)
        s = np.asarray(member.scale) * outs.logits[0] + np.asarray(member.shift)
        p_dev.append(softmax(decoder.scores(outs.features[0].astype(np.float64), s)))
        score = judge(task, np.mean(p_dev, axis=0), dev)
        if n == 0:
            selected, bare = score, judge(task, softmax(outs.logits[0]), dev)
            if bare > score:
                selected = bare
                yield Answer.of(task, dev=bare[0])
        elif score > selected:
            selected = score
            yield Answer(tuple(members), {"loss": loss, "dev": score[0]})


def fit(
    lm: BlackBox, task: Task, train: Examples, prompt: Prompts | None, rng: np.random.Generator, config: Config
) -> tuple[Member, Decoder, float]:
    """Forward the training texts once under `prompt`, calibrate, train a decoder; also its training loss."""
    classes = len(task.classes)
    outs = lm.outputs(prompt, train.texts)
    q, h = outs.logits[0].astype(np.float64), outs.features[0].astype(np.float64)
    w = Calibration(np.ones(classes), np.zeros(classes))
    if config.calibrate == "safe":
        w = Calibration(np.ones(classes), safe_shift(q))
    elif config.calibrate == "paper":
        w = paper_scale(lm.logits(prompt, [("",) * task.fields])[0, 0])

    weight = classes / len(train) if config.logit_weight is None else config.logit_weight  # lambda = 1 / shots
    s = weight * (w.scale * q + w.shift)  # (texts, classes)
    decoder = Decoder.start(h, train.labels, classes, config.projection, rng)
    train_decoder(decoder, h, s, train.labels, config)
    head = PrototypeHead(
        decoder.weight.astype(np.float32), decoder.prototypes.astype(np.float32), decoder.radius.astype(np.float32)
    )
    scale, shift = tuple((weight * w.scale).tolist()), tuple((weight * w.shift).tolist())
    member = Member(task.template, task.words, prompt, scale, shift, head, alpha=1.0, mix="logits")
    return member, decoder, float(cross_entropy(decoder.scores(h, s), train.labels))


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────


def safe_shift(q: Floats) -> Floats:
    """-log of the mean probability of each class over the training texts (texts, classes), centred.

    On probabilities this divides by their mean and normalises (Zhao et al., ICML 2021). It costs nothing more, and a
    constant added to all logits changes nothing.
    """
    b = np.log(np.maximum(softmax(q).mean(axis=0), 1e-4))
    return np.asarray(b.mean() - b, dtype=np.float64)


def paper_scale(empty: NDArray[np.floating]) -> Calibration:
    """The published s = q / (s_cf / mean s_cf), s_cf being the logits (classes,) of an empty text.

    A logit near zero or below would explode or flip its class: then q - s_cf + mean s_cf is used.
    """
    empty = empty.astype(np.float64)
    if empty.min() <= 0.1 * np.abs(empty).mean():
        return Calibration(np.ones(len(empty)), empty.mean() - empty)
    return Calibration(empty.mean() / empty, np.zeros(len(empty)))


# ── the decoder ──────────────────────────────────────────────────────────────────────────────────────────────


def on_sphere(v: Floats) -> tuple[Floats, Floats]:
    """Unit vectors v / |v| (texts, projection), and the lengths (texts, 1)."""
    length = np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    return v / length, length


def first_radius(v: Floats, labels: NDArray[np.int64], classes: int) -> Floats:
    """r_k = mean of |v - v_mean| over class k; v = W h is not normalised here. Zero for a class without texts."""
    radius = np.zeros(classes)
    for k in set(labels.tolist()):
        own = v[labels == k]
        radius[k] = np.linalg.norm(own - own.mean(axis=0), axis=-1).mean()
    return radius


def train_decoder(decoder: Decoder, h: Floats, s: Floats, labels: NDArray[np.int64], config: Config) -> None:
    """Adam (beta 0.9, 0.999) on W, r and, if asked for, c."""
    trained = [decoder.weight, decoder.radius] + ([decoder.prototypes] if config.prototypes == "trained" else [])
    first, second = [np.zeros_like(p) for p in trained], [np.zeros_like(p) for p in trained]
    for step in range(1, config.epochs + 1):
        gradients = gradient(decoder, h, s, labels)[: len(trained)]
        for n, (p, g) in enumerate(zip(trained, gradients, strict=True)):
            first[n] += 0.1 * (g - first[n])
            second[n] += 0.001 * (g**2 - second[n])
            m, v = first[n] / (1 - 0.9**step), second[n] / (1 - 0.999**step)
            np.subtract(p, config.eta * m / (np.sqrt(v) + 1e-8), out=p)


def gradient(decoder: Decoder, h: Floats, s: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Gradient of the mean cross-entropy in W, r and c.

    With v = W h, x = v / |v|, u_k = (x - c_k) / |x - c_k| and e = (softmax(score) - onehot(y)) / texts:
    dL/dr_k = sum e_k,  dL/dc_k = sum e_k u_k,  dL/dx = -sum_k e_k u_k,  dL/dv = (dL/dx - x (x . dL/dx)) / |v|.
    """
    x, length = on_sphere(h @ decoder.weight.T)
    apart = x[:, None] - decoder.prototypes  # (texts, classes, projection)
    distances = np.linalg.norm(apart, axis=-1)
    u = apart / np.maximum(distances, 1e-12)[..., None]
    e = softmax(s + decoder.radius - distances)
    e[np.arange(len(labels)), labels] -= 1
    e /= len(labels)  # (texts, classes)
    dx = -np.einsum("nk,nkp->np", e, u)
    dv = (dx - x * (x * dx).sum(axis=-1, keepdims=True)) / length
    return dv.T @ h, e.sum(axis=0), np.einsum("nk,nkp->kp", e, u)


def judge(task: Task, p: Floats, dev: Examples) -> tuple[float, float]:
    """Score of one candidate's probabilities (texts, classes): the task's metric, then minus the loss."""
    predicted, labels, classes = p.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    return float(metric), -float(negative_log_likelihood(p, labels))
