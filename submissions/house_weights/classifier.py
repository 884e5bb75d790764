"""The classifier of `house`: calibrated label words, corrected by a ridge-regularised linear head on hidden states."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness import Answer, BlackBox, LinearHead, Member, Outputs, Prompts, Shots, Task
from harness.solving import additive_shift, cross_entropy, negative_log_likelihood, score, softmax

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


def see(lm: BlackBox, prompts: Prompts | None, shots: Shots) -> Outputs:
    """What the model says of all labelled texts; train comes first."""
    parts = [lm.outputs(prompts, examples.texts) for examples in (shots.train, shots.dev)]
    q, h = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("logits", "features"))
    return Outputs(q, h)


def held_out(task: Task, outs: Outputs, labels: Integers, order: Integers, folds: int, ridge: float) -> Floats:
    """Probabilities (texts, classes) of each text, by the fit on the other folds."""
    p = np.zeros(outs.logits.shape[1:])
    for fold in range(folds):
        out = order[fold::folds]
        fitted = fit(task, outs, labels, np.setdiff1d(order, out), ridge)
        p[out] = fitted.probabilities(Outputs(outs.logits[:, out], outs.features[:, out]))[0]
    return p


def judged(task: Task, held: list[Floats], labels: Integers, rows: int) -> tuple[float, float]:
    """Loss and metric of the members' mean probability on dev."""
    p, dev = np.mean(held, axis=0)[rows:], labels[rows:]
    metric = score(task.metric, p.argmax(axis=-1), dev, len(task.classes))
    return float(negative_log_likelihood(p, dev)), float(metric)


def answer(
    task: Task, prompts: list[Prompts | None], outs: list[Outputs], labels: Integers, ridge: float, **note: float
) -> Answer:
    """Fit each member on all texts, and pack them."""
    every = np.arange(len(labels))
    fitted = [fit(task, out, labels, every, ridge) for out in outs]
    return Answer(tuple(replace(m, prompt=prompt) for m, prompt in zip(fitted, prompts, strict=True)), note)


def fit(task: Task, outs: Outputs, labels: Integers, rows: Integers, ridge: float) -> Member:
    """Minimise mean CE(t (q + c) + b + V h', y) + ridge |V|^2 / 2 + 0.005 |b|^2 + 0.05 (log t)^2, as `house` does."""
    q, h = (part[0, rows].astype(np.float64) for part in (outs.logits, outs.features))
    (texts, classes), c, one_hot = q.shape, additive_shift(q), np.eye(q.shape[1])[labels[rows]]
    base, mean, unit = q + c, h.mean(axis=0), h.std(axis=0).mean() * np.sqrt(h.shape[1])
    u, s, basis = np.linalg.svd((h - mean) / unit, full_matrices=False)  # h' = u s basis
    x = u * s  # (texts, rank)

    def objective(parameters: Floats) -> tuple[float, Floats]:
        v, b, log_t = parameters[: -classes - 1].reshape(classes, -1), parameters[-classes - 1 : -1], parameters[-1]
        scores = np.exp(log_t) * base + x @ v.T + b
        e = (softmax(scores) - one_hot) / texts  # gradient of the mean loss in the scores
        value = float(cross_entropy(scores, labels[rows])) + ridge * (v**2).sum() / 2
        value += 0.005 * (b**2).sum() + 0.05 * log_t**2
        of_t = np.exp(log_t) * (e * base).sum() + 0.1 * log_t
        return value, np.concatenate([(e.T @ x + ridge * v).ravel(), e.sum(axis=0) + 0.01 * b, [of_t]])

    found = minimize(objective, np.zeros(classes * (x.shape[1] + 1) + 1), jac=True, method="L-BFGS-B").x
    t, b = float(np.exp(found[-1])), found[-classes - 1 : -1]
    weight = found[: -classes - 1].reshape(classes, -1) @ basis / unit  # (classes, width), on plain features
    member = Member.of(task, None, (t,) * classes, (t * c + b - weight @ mean).tolist())
    return replace(member, head=LinearHead(weight, np.zeros(classes)), alpha=1.0, mix="logits")
