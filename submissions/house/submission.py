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
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness import (
    Answer,
    BlackBox,
    Count,
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
)
from harness.solving import LayerwiseCmaEs, additive_shift, cross_entropy, negative_log_likelihood, score, softmax

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. All are choices of ours; the README says how they were made."""

    ridge: Positive = 0.003  # weight of |V|^2 / 2 beside the mean loss of a text; features have variance 1 / width
    head: bool = True  # correct the label words by hidden states; without it a member is its calibrated label words
    calibrate: bool = True  # calibrate label-word logits, in the search, too
    texts: Literal["both", "train"] = "both"  # what calibration and head are fitted on: train and dev, or train alone
    search: bool = True  # search prompts with what is left of the budget
    keep_bare: bool = True  # average tuned prompts with the bare template; without it they replace it if dev says so
    dim: Count = 500  # d, length of each z_l, as in BBTv2
    population: Several = 20  # lambda, candidates per generation
    alpha_input: NonNegative = 1.0  # std of the first prompts at the input, in stds of the first layer's input
    alpha_deep: NonNegative = 0.2  # the same for layers 1 and above
    dev_every: Count = 5  # generations between two looks at 2 stacks, at 2 * (len(train) + len(dev)) rows each
    folds: Several = 8  # parts into which the texts are cut, to judge a member on texts it was not fitted on


@dataclass(frozen=True)
class Candidate:
    """A prompt that may become a member of the answer."""

    prompt: Prompts | None
    outs: Outputs  # (1, texts, ..) of all labelled texts, train first
    held_out: Floats  # (texts, classes) probabilities of each text, by the fit on the other folds


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, its classifier, then every set of members that dev's loss prefers to all before."""
    labels = np.concatenate([shots.train.labels, shots.dev.labels])
    judge = Judge(task, labels, len(shots.train), config, rng.permutation(len(labels)))
    yield Answer.of(task)
    bare = judge.candidate(None, see(lm, None, shots))
    best_loss, metric = judge.loss([bare])
    yield judge.answer([bare], dev=metric)
    if not config.search:
        return

    space = Subspace.deep(lm.info, config.dim, rng, config.alpha_input, config.alpha_deep)
    for looks in search(lm, space, shots, rng, config):  # (2, layers, d)
        outs = see(lm, space.at(looks), shots)
        tuned = [judge.candidate(space.at(looks[k : k + 1]), outs[k]) for k in range(len(looks))]
        for n in range(1, len(tuned) + 1):
            members = [bare, *tuned[:n]] if config.keep_bare else tuned[:n]
            loss, metric = judge.loss(members)
            if loss < best_loss:
                best_loss = loss
                yield judge.answer(members, dev=metric)


def see(lm: BlackBox, prompts: Prompts | None, shots: Shots) -> Outputs:
    """What the model says of all labelled texts; train comes first."""
    parts = [lm.outputs(prompts, examples.texts) for examples in (shots.train, shots.dev)]
    q, h = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("logits", "features"))
    return Outputs(q, h)


# ── the classifier ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Judge:
    """Fits classifiers, and says how good they are on dev texts they were not fitted on."""

    task: Task
    labels: Integers
    train_rows: int
    config: Config
    order: Integers  # of the texts, for the folds

    def loss(self, members: list[Candidate]) -> tuple[float, float]:
        """Dev loss and dev metric of the members' mean probability, every text judged by fits without it."""
        p = np.mean([member.held_out for member in members], axis=0)[self.train_rows :]
        labels = self.labels[self.train_rows :]
        metric = score(self.task.metric, p.argmax(axis=-1), labels, len(self.task.classes))
        return float(negative_log_likelihood(p, labels)), float(metric)

    def candidate(self, prompt: Prompts | None, outs: Outputs) -> Candidate:
        """Fit once per fold, for the probabilities of the texts that were left out."""
        p = np.zeros(outs.logits.shape[1:])
        for fold in range(self.config.folds):
            left_out = self.order[fold :: self.config.folds]
            fitted = self.fit(outs, np.setdiff1d(self.order, left_out))
            p[left_out] = fitted.probabilities(Outputs(outs.logits[:, left_out], outs.features[:, left_out]))[0]
        return Candidate(prompt, outs, p)

    def fit(self, outs: Outputs, rows: Integers) -> Member:
        """Calibration and head on some of the texts, dev's among them only if the configuration says so."""
        if self.config.texts == "train":
            rows = rows[rows < self.train_rows]
        q, h = (part[0, rows].astype(np.float64) for part in (outs.logits, outs.features))
        return fit(self.task, q, h, self.labels[rows], self.config)

    def answer(self, members: list[Candidate], **note: float) -> Answer:
        """Fit each member on all texts, and pack them."""
        return Answer(tuple(replace(self.fit(each.outs, self.order), prompt=each.prompt) for each in members), note)


def fit(task: Task, q: Floats, h: Floats, labels: Integers, config: Config) -> Member:
    """Minimise mean CE(t (q + c) + b + V h', y) + ridge |V|^2 / 2 + 0.005 |b|^2 + 0.05 (log t)^2, by L-BFGS.

    c is the calibration, h' are the features minus their mean, over their standard deviation and sqrt(width). V is
    solved for in the span of the texts, which holds its minimum: at most as many unknowns per class as texts.
    scikit-learn's LogisticRegression has V and b, but neither logits to start from nor a t to trust them by.
    """
    texts, classes = q.shape
    c = additive_shift(q) if config.calibrate else np.zeros(classes)
    if not config.head:
        return Member.of(task, None, (1.0,) * classes, c.tolist())
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
        of_t = t * (e * base).sum() + 0.1 * log_t
        return value, np.concatenate([(e.T @ x + config.ridge * v).ravel(), e.sum(axis=0) + 0.01 * b, [of_t]])

    found = minimize(objective, np.zeros(classes * (x.shape[1] + 1) + 1), jac=True, method="L-BFGS-B").x
    t, b = float(np.exp(found[-1])), found[-classes - 1 : -1]
    weight = found[: -classes - 1].reshape(classes, -1) @ basis / unit  # (classes, width), on plain features
    member = Member.of(task, None, (t,) * classes, (t * c + b - weight @ mean).tolist())
    return replace(member, head=LinearHead(weight, np.zeros(classes)), alpha=1.0, mix="logits")


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────


def search(lm: BlackBox, space: Subspace, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Floats]:
    """BBTv2's search on calibrated logits; now and then, the best stack and the stack of means: (2, layers, d)."""
    train, walk = shots.train, LayerwiseCmaEs(config.dim, config.population, rng, [1.0] * space.layers)
    needed = config.population * len(train) + 2 * (len(train) + len(shots.dev))
    for generation in count(1):
        if lm.budget.rows_left < needed:
            return
        q = lm.logits(space.at(walk.ask()), train.texts)  # (population, texts, classes)
        losses = cross_entropy(q + additive_shift(q)[:, None] if config.calibrate else q, train.labels)
        walk.tell(losses)
        lm.log(loss=losses.min(), **walk.state)
        if generation % config.dev_every == 0 or lm.budget.rows_left < needed:
            yield np.stack([walk.best, walk.mean])
