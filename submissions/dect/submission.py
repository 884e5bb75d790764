"""DecT: prototypes on the model's outputs (Cui et al., ACL 2023, https://arxiv.org/abs/2212.08408).

    score_k = -|W h / |W h| - c_k| + lambda s_k + r_k

Nothing is done to the input. Each training text is forwarded once; s are its calibrated label-word logits, h is its
hidden state at [MASK]. A small decoder - projection W, one prototype c_k and one radius r_k per class - is then trained
on cross-entropy. Read from released code: raw logits, prototypes drawn once and left alone, radii that start at the
mean of |W h - W h_mean| over a class, Adam on the full batch.

Differs from the paper and its code: calibration is additive by default (`calibrate`), because the published
s / (s_cf / mean s_cf) flips a class whose logit on the empty text is negative. One look at dev is paid for, and takes
the decoder back if the bare template is better there. An ensemble over several prompts is an option (`passes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    Outputs,
    Positive,
    Prompts,
    PrototypeHead,
    Shots,
    Subspace,
    Task,
)
from harness.solving import Adam, Calibration, Selection, negative_log_likelihood, softmax

Floats: TypeAlias = NDArray[np.float64]
MOST_PASSES = 64  # an answer may have that many members


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the value of the released code is the default unless it says otherwise."""

    projection: Count = 128  # length of W h and of a prototype
    logit_weight: NonNegative | None = None  # lambda; None is 1 / (training texts per class)
    # Additive, from the training texts (ours); or as published: multiplicative, from an empty text, which is one more
    # row, but additive where that is unsafe.
    calibrate: Literal["safe", "paper", "none"] = "safe"
    prototypes: Literal["frozen", "trained"] = "frozen"  # as they were drawn (the code), or trained, too
    eta: Positive = 0.01  # Adam's learning rate
    epochs: Count = 30  # steps of Adam, each on all training texts
    # Members of the ensemble (published: 1): the bare template, then random prompts at the input, each with a decoder
    # of its own. Every pass forwards train and dev once.
    passes: Count = 1
    alpha: NonNegative = 0.2  # std of the random prompts, in stds of the first layer's input (ours)
    dim: Count = 500  # d, length of the coordinates of a random prompt; only for `passes` > 1

    def __post_init__(self) -> None:
        """Refuse an ensemble that does not fit into an answer."""
        if not 1 <= self.passes <= MOST_PASSES:
            raise ValueError(f"passes={self.passes}; 1 to {MOST_PASSES} fit into an answer")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the decoder; then what dev prefers to both, if anything."""
    train, dev = shots.train, shots.dev
    std = config.alpha * lm.info.hidden_std[0]
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**62)))
    selection = Selection(task, dev)
    yield Answer.of(task)
    members: list[Member] = []
    p_dev: list[Floats] = []  # each member's probabilities (1, texts, classes)
    for n in range(config.passes):
        prompt = space.at(rng.standard_normal(config.dim)) if n else None
        member, loss = fit(lm, task, train, prompt, rng, config)
        members.append(member)
        if n == 0:
            yield Answer((member,), {"loss": loss})  # as published: without a look at dev

        outs = lm.outputs(prompt, dev.texts)
        p_dev.append(member.probabilities(outs))
        p = np.mean(p_dev, axis=0)
        for _, metric in selection.better(p, negative_log_likelihood(p, dev.labels)):
            if n:
                yield Answer(tuple(members), {"loss": loss, "dev": metric})
        if n == 0:
            p = softmax(outs.logits)
            for _, metric in selection.better(p, negative_log_likelihood(p, dev.labels)):
                yield Answer.of(task, dev=metric)  # the bare template comes back


def fit(
    lm: BlackBox, task: Task, train: Examples, prompt: Prompts | None, rng: np.random.Generator, config: Config
) -> tuple[Member, float]:
    """Forward the training texts once under `prompt`, calibrate, train a decoder; also its training loss."""
    classes = len(task.classes)
    outs = lm.outputs(prompt, train.texts)
    if config.calibrate == "paper":
        w = Calibration.multiplicative(lm.logits(prompt, [("",) * task.fields])[0], most=np.inf)
    else:
        w = (Calibration.additive if config.calibrate == "safe" else Calibration.identity)(outs.logits[0])
    w = w.times(classes / len(train) if config.logit_weight is None else config.logit_weight)  # lambda = 1 / shots
    head = first_decoder(outs.features[0].astype(np.float64), train.labels, classes, config.projection, rng)
    member = replace(Member.of(task, prompt, w.scale, w.shift), head=head, alpha=1.0, mix="logits")
    train_decoder(head, member, outs, train.labels, config)
    return member, float(negative_log_likelihood(member.probabilities(outs), train.labels)[0])


def first_decoder(
    h: Floats, labels: NDArray[np.int64], classes: int, size: int, rng: np.random.Generator
) -> PrototypeHead:
    """Draw W as PyTorch's Linear does and c by Xavier's rule; r from the spread of each class."""
    width = h.shape[1]
    weight = rng.uniform(-1, 1, (size, width)) / np.sqrt(width)
    prototypes = rng.uniform(-1, 1, (classes, size)) * np.sqrt(6 / (classes + size))
    return PrototypeHead(weight, prototypes, first_radius(h @ weight.T, labels, classes))


def first_radius(v: Floats, labels: NDArray[np.int64], classes: int) -> Floats:
    """r_k = mean of |v - v_mean| over class k; v = W h is not normalised here. Zero for a class without texts."""
    radius = np.zeros(classes)
    for k in set(labels.tolist()):
        own = v[labels == k]
        radius[k] = np.linalg.norm(own - own.mean(axis=0), axis=-1).mean()
    return radius


def train_decoder(
    head: PrototypeHead, member: Member, outs: Outputs, labels: NDArray[np.int64], config: Config
) -> None:
    """Adam on W, r and, if asked for, c, in place. No library has this classifier: its gradient is written here."""
    adam, h = Adam(config.eta), outs.features[0].astype(np.float64)
    trained = [head.weight, head.radius] + ([head.prototypes] if config.prototypes == "trained" else [])
    for _ in range(config.epochs):
        p = member.probabilities(outs)[0]  # (texts, classes)
        adam.step(trained, gradient(head, h, p, labels)[: len(trained)])


def gradient(head: PrototypeHead, h: Floats, p: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Gradient of the mean cross-entropy in W, r and c, from the probabilities p (texts, classes).

    With v = W h, x = v / |v|, u_k = (x - c_k) / |x - c_k| and e = (p - onehot(y)) / texts:
    dL/dr_k = sum e_k,  dL/dc_k = sum e_k u_k,  dL/dx = -sum_k e_k u_k,  dL/dv = (dL/dx - x (x . dL/dx)) / |v|.
    """
    v = h @ head.weight.T  # (texts, projection)
    length = np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    x = v / length
    apart = x[:, None] - head.prototypes  # (texts, classes, projection)
    u = apart / np.maximum(np.linalg.norm(apart, axis=-1, keepdims=True), 1e-12)
    e = (p - np.eye(p.shape[1])[labels]) / len(labels)
    dx = -np.einsum("nk,nkp->np", e, u)
    dv = (dx - x * (x * dx).sum(axis=-1, keepdims=True)) / length
    return dv.T @ h, e.sum(axis=0), np.einsum("nk,nkp->kp", e, u)
