"""House: one ridge-regularised classifier on calibrated label words and hidden states, under two or three prompts.

    p(y | x) = mean over members m of softmax(t q_m + b + V_m h_m),    q_m calibrated, h_m the hidden state at [MASK]

What this project would submit. It takes the champion's parts and asks of each how few texts can pay for it:

1. *Label words are the prior.* A member's logits start at the calibrated label-word logits; V is a correction that
   ridge pulls to 0. Convex, solved to the end in milliseconds (`fit`): no learning rate, no epochs.
2. *All labelled texts train it*, train and dev. What dev is needed for, it can still do: its texts are judged by
   classifiers that were fitted without them (`held_out`), so nothing is chosen on texts that were fitted.
3. *Prompts are searched for what calibration cannot mend.* BBTv2's search, layer by layer; but a candidate's logits are
   calibrated before its loss is taken, so that no prompt wins by moving all texts to one class.
4. *The bare template stays.* Tuned prompts overfit a few dozen texts; averaged with the bare template they do less harm
   where they do not help. Dev's loss, not its metric, says which members are kept: 32 texts have steps of 3 points.

Not from any paper as a whole. Calibration: Zhao et al., ICML 2021. Search: Sun et al., EMNLP 2022 (BBTv2). Sharing h
with the prompts, and the mixture: the competition's winner (see `ajo`). Logits joined before the softmax: Cui et al.,
ACL 2023 (see `dect`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeAlias

import cma
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    LinearHead,
    Member,
    NonNegative,
    Outputs,
    Positive,
    Prompts,
    Several,
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


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. All are house choices; the README says how they were made."""

    ridge: Positive = 0.003
    """Weight of |V|^2 / 2 beside the mean loss of a text, on features of unit variance over sqrt(width)."""
    head: bool = True
    """Correct the label words by hidden states. Without it a member is its calibrated label words."""
    calibrate: bool = True
    """Calibrate label-word logits, in the search, too."""
    texts: Literal["both", "train"] = "both"
    """What calibration and head are fitted on: train and dev, or train alone."""
    search: bool = True
    """Search prompts with what is left of the budget."""
    keep_bare: bool = True
    """Average tuned prompts with the bare template; without it they take its place if dev prefers them."""
    dim: Count = 500
    """d, length of each z_l, as in BBTv2."""
    population: Several = 20
    """Candidates per generation, lambda."""
    alpha_input: NonNegative = 1.0
    """Standard deviation of the first prompts at the input, in standard deviations of the first layer's input."""
    alpha_deep: NonNegative = 0.2
    """The same for layers 1 and above."""
    dev_every: Count = 5
    """Generations between two looks at train and dev under two stacks, at 2 * (len(train) + len(dev)) rows each."""
    folds: Several = 8
    """Parts into which the texts are cut to judge a member on texts it was not fitted on."""


@dataclass(frozen=True)
class View:
    """What the model says of all labelled texts under one prompt; train comes first."""

    prompt: Prompts | None
    q: Floats  # (texts, classes) label-word logits
    h: Floats  # (texts, width)


@dataclass(frozen=True)
class Candidate:
    """A view that may become a member of the answer."""

    view: View
    held_out: Floats  # (texts, classes) probabilities of each text, by the fit on the other folds


@dataclass(frozen=True)
class Fitted:
    """softmax(t q + b + V h)."""

    scale: float  # t
    bias: Floats  # b (classes,)
    weight: Floats  # V (classes, width)

    def probabilities(self, view: View, rows: NDArray[np.int64]) -> Floats:
        """Of some texts: (rows, classes)."""
        return softmax(self.scale * view.q[rows] + self.bias + view.h[rows] @ self.weight.T)


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, its classifier, then every set of members that dev's loss prefers to all before."""
    train, dev = shots.train, shots.dev
    labels = np.concatenate([train.labels, dev.labels])
    judge = Judge(task, labels, len(train), config, rng.permutation(len(labels)))

    yield Answer.of(task)
    bare = judge.member(see(None, lm.outputs(None, train.texts), lm.outputs(None, dev.texts)))
    best_loss, metric = judge.loss([bare])
    yield judge.answer([bare], dev=metric)
    if not config.search:
        return

    for views in search(lm, shots, rng, config):
        tuned = [judge.member(view) for view in views]
        for n in range(1, len(tuned) + 1):
            members = [bare, *tuned[:n]] if config.keep_bare else tuned[:n]
            loss, metric = judge.loss(members)
            if loss < best_loss:
                best_loss = loss
                yield judge.answer(members, dev=metric)


# ── the classifier ───────────────────────────────────────────────────────────────────────────────────────────


def see(prompt: Prompts | None, *parts: Outputs, candidate: int = 0) -> View:
    """Put a candidate's outputs on train and on dev together."""
    q, h = ([getattr(part, name)[candidate] for part in parts] for name in ("logits", "features"))
    return View(prompt, np.concatenate(q).astype(np.float64), np.concatenate(h).astype(np.float64))


@dataclass(frozen=True)
class Judge:
    """Fits classifiers to views, and says how good they are on dev texts they were not fitted on."""

    task: Task
    labels: NDArray[np.int64]
    train_rows: int
    config: Config
    order: NDArray[np.int64]
    """Of the texts, for the folds."""

    def loss(self, members: list[Candidate]) -> tuple[float, float]:
        """Dev loss and dev metric of the members' mean probability, every text judged by fits without it."""
        dev = np.arange(self.train_rows, len(self.labels))
        p = np.mean([member.held_out[dev] for member in members], axis=0)
        predicted, labels = p.argmax(axis=-1), self.labels[dev]
        metric = accuracy(predicted, labels)
        if self.task.metric == "macro_f1":
            metric = macro_f1(predicted, labels, len(self.task.classes))
        return float(negative_log_likelihood(p, labels)), float(metric)

    def member(self, view: View) -> Candidate:
        """Fit a view once per fold, for the probabilities of the texts that were left out."""
        p = np.zeros_like(view.q)
        for fold in range(self.config.folds):
            left_out = self.order[fold :: self.config.folds]
            p[left_out] = self.fit(view, np.setdiff1d(self.order, left_out)).probabilities(view, left_out)
        return Candidate(view, p)

    def fit(self, view: View, rows: NDArray[np.int64]) -> Fitted:
        """Calibration and head on some of the texts, dev's among them only if the configuration says so."""
        if self.config.texts == "train":
            rows = rows[rows < self.train_rows]
        return fit(view.q[rows], view.h[rows], self.labels[rows], self.config)

    def answer(self, members: list[Candidate], **note: float) -> Answer:
        """Fit each member on all texts, and pack them."""
        return Answer(tuple(self._packed(member.view) for member in members), note)

    def _packed(self, view: View) -> Member:
        fitted = self.fit(view, self.order)
        classes = len(self.task.classes)
        head = LinearHead(fitted.weight.astype(np.float32), np.zeros(classes, dtype=np.float32))
        return Member(
            self.task.template,
            self.task.words,
            view.prompt,
            scale=(fitted.scale,) * classes,
            shift=tuple(fitted.bias.tolist()),
            head=head if self.config.head else None,
            alpha=float(self.config.head),
            mix="logits",
        )


def fit(q: Floats, h: Floats, labels: NDArray[np.int64], config: Config) -> Fitted:
    """Minimise mean CE(t (q + c) + b + V h', y) + ridge |V|^2 / 2 + 0.005 |b|^2 + 0.05 (log t)^2, by L-BFGS.

    c is the calibration (`shift`), h' are the features minus their mean, over their standard deviation and sqrt(width).
    V is solved for in the span of the texts, which holds its minimum: at most as many unknowns per class as texts.
    """
    texts, classes = q.shape
    c = shift(q) if config.calibrate else np.zeros(classes)
    if not config.head:
        return Fitted(1.0, c, np.zeros((classes, h.shape[1])))
    base, one_hot = q + c, np.eye(classes)[labels]
    mean, unit = h.mean(axis=0), h.std(axis=0).mean() * np.sqrt(h.shape[1])
    u, s, basis = np.linalg.svd((h - mean) / unit, full_matrices=False)  # h' = u s basis
    x = u * s  # (texts, rank)

    def objective(parameters: Floats) -> tuple[float, Floats]:
        v, b, log_t = parameters[: -classes - 1].reshape(classes, -1), parameters[-classes - 1 : -1], parameters[-1]
        t = np.exp(log_t)
        scores = t * base + x @ v.T + b
        e = (softmax(scores) - one_hot) / texts  # gradient of the mean loss in the scores
        value = float(cross_entropy(scores, labels)) + config.ridge * (v**2).sum() / 2
        value += 0.005 * (b**2).sum() + 0.05 * log_t**2
        gradient = [
            (e.T @ x + config.ridge * v).ravel(),
            e.sum(axis=0) + 0.01 * b,
            [t * (e * base).sum() + 0.1 * log_t],
        ]
        return value, np.concatenate(gradient)

    found = minimize(objective, np.zeros(classes * (x.shape[1] + 1) + 1), jac=True, method="L-BFGS-B").x
    t = float(np.exp(found[-1]))
    weight = found[: -classes - 1].reshape(classes, -1) @ basis / unit  # (classes, width), on plain features
    return Fitted(t, t * c + found[-classes - 1 : -1] - weight @ mean, weight)


def shift(q: NDArray[np.floating]) -> Floats:
    """-log of the mean probability of each class, centred: logits (..., texts, classes) -> (..., classes).

    On probabilities that divides by their mean and normalises (Zhao et al., ICML 2021).
    """
    b = np.log(np.maximum(softmax(q).mean(axis=-2), 1e-4))
    return np.asarray(b.mean(axis=-1, keepdims=True) - b, dtype=np.float64)


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────


def search(lm: BlackBox, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[list[View]]:
    """BBTv2's search on calibrated logits; now and then, views under the best stack of prompts and the mean one."""
    train, dev = shots.train, shots.dev
    layers = lm.info.layers
    widths = [config.alpha_input] + [config.alpha_deep] * (layers - 1)
    std = tuple(w * s for w, s in zip(widths, lm.info.hidden_std, strict=True))
    space = Subspace(config.dim, std, lm.info.prompt_tokens, seed=int(rng.integers(2**62)))
    searches = [evolution(config, rng) for _ in range(layers)]
    best, best_loss = np.zeros((layers, config.dim)), np.inf  # the stack z_0 .. z_{L-1}
    look_rows = 2 * (len(train) + len(dev))
    generation_rows = config.population * len(train)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        layer = (generation - 1) % layers
        zs = np.array(searches[layer].ask())  # (population, d)
        stacks = np.repeat(best[None], len(zs), axis=0)  # (population, layers, d)
        stacks[:, layer] = zs  # only the current layer differs
        losses = calibrated_loss(lm.logits(space.at(stacks), train.texts), train, config)  # (population,)
        searches[layer].tell(list(zs), losses.tolist())
        if losses.min() < best_loss:
            best, best_loss = stacks[losses.argmin()], float(losses.min())
        if searches[layer].stop():
            searches[layer] = evolution(config, rng)

        last = lm.budget.rows_left < generation_rows + look_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([best, [each.mean for each in searches]])  # (2, layers, d)
            parts = [lm.outputs(space.at(looks), examples.texts) for examples in (train, dev)]
            yield [see(space.at(z[None]), *parts, candidate=n) for n, z in enumerate(looks)]


def calibrated_loss(q: NDArray[np.floating], train: Examples, config: Config) -> Floats:
    """Cross-entropy of each candidate's logits (candidates, texts, classes) after its own calibration."""
    if config.calibrate:
        q = q + shift(q)[:, None]
    return cross_entropy(q, train.labels)


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
