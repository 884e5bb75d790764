"""AJO: alternating joint optimisation of deep prompts and a local classifier (winner of the competition).

    p(y | x) = (1 - a) softmax(W q) + a softmax(V h + b)        a = 0.5,   loss = -mean log p_y

q are the label-word logits, h is the hidden state at [MASK]. W calibrates q once. Then Adam trains the head (V, b) on
outputs that were already paid for, and CMA-ES moves the prompts as in BBTv2 with the head frozen, again and again.
No code is public: the README lists what is reconstructed, and where this file differs on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal

import numpy as np

from harness import (
    Answer,
    BlackBox,
    Count,
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
)
from harness.solving import Adam, Calibration, CmaEs, Selection, minibatches, negative_log_likelihood, softmax

CALIBRATIONS = {"safe": Calibration.additive, "faithful": Calibration.multiplicative, "none": Calibration.identity}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; a default is the published value unless its comment says otherwise."""

    dim: Count = 500  # d, length of each z_l
    population: Several = 20  # lambda, candidates per generation
    alpha_input: NonNegative = 1.0  # std of the first prompts at the input, in stds of the first layer's input
    alpha_deep: NonNegative = 0.2  # the same for layers 1 and above
    calibrate: Literal["safe", "faithful", "none"] = "safe"  # additive, or multiplicative where the means allow it
    head: bool = True  # without the head this is calibrated BBTv2
    joint: bool = True  # search prompts on the mixture's loss; without it on the calibrated logits' own
    alpha: Share = 0.5  # a, the head's share of the mixture
    eta: Positive = 3e-4  # Adam's learning rate at width 1024; times 1024 / width, so that steps do not shrink (ours)
    epochs: Count = 3  # of head training per alternation
    batch: Count = 16  # texts per step of head training (reconstructed)
    decay: NonNegative = 0.01  # decoupled weight decay of V (ours)
    head_every: Literal["layer", "round"] = "round"  # how often the head is trained (reconstructed)
    dev_every: Count = 5  # generations between two looks at dev, at 2 * len(dev) rows each
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, the calibrated one, then every (prompts, head) that dev prefers to all before."""
    train, dev, layers = shots.train, shots.dev, lm.info.layers
    space = Subspace.deep(lm.info, config.dim, rng, config.alpha_input, config.alpha_deep)
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    best = np.zeros((layers, config.dim))  # the stack z_0 .. z_{L-1}
    current = lm.outputs(space.at(best[None]), train.texts)  # q (1, texts, classes), h (1, texts, width): one call
    outs = lm.outputs(None, dev.texts)  # one forward pass for the bare template and the calibrated one
    for kind in ("none", config.calibrate):
        w = CALIBRATIONS[kind](current.logits[0])
        member, note = Member.of(task, None, w.scale, w.shift), {"calibration_fallback": 1.0} if w.fallback else {}
        p = member.probabilities(outs)  # (1, texts, classes)
        for _, metric in selection.better(p, negative_log_likelihood(p, dev.labels)):
            yield Answer((member,), {"dev": metric, **note})

    head = LinearHead(np.zeros((len(task.classes), lm.info.width)), np.zeros(len(task.classes)))  # V, b
    mixture = replace(member, head=head, alpha=config.alpha) if config.head and config.alpha else member
    fitness = mixture if config.joint else member  # what prompts are searched for
    adam = Adam(config.eta * 1024 / lm.info.width, config.decay)
    searches = [CmaEs(config.dim, config.population, rng) for _ in range(layers)]
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation, layer in enumerate(cycle(range(layers)), start=1):
        if config.head and (layer == 0 or config.head_every == "layer"):
            train_head(head, member, current, shots, adam, rng, config)  # asks the model nothing

        stacks = np.repeat(best[None], config.population, axis=0)  # (population, layers, d)
        stacks[:, layer] = searches[layer].ask()  # only this layer moves
        outs = lm.outputs(space.at(stacks), train.texts)
        losses = negative_log_likelihood(fitness.probabilities(outs), train.labels)  # (population,)
        searches[layer].tell(losses)
        # The head has moved since the current stack was accepted. Its loss is taken again, on what was paid for then.
        (loss,) = negative_log_likelihood(fitness.probabilities(current), train.labels)
        if losses.min() < loss:
            k = int(losses.argmin())
            best, current, loss = stacks[k], outs[k], losses[k]
        searches[layer].restart_if_converged()

        if lm.budget.rows_left < round_rows or generation % config.dev_every == 0:
            looks = np.stack([best, [search.mean for search in searches]])  # (2, layers, d)
            p = mixture.probabilities(lm.outputs(space.at(looks), dev.texts))
            for k, metric in selection.better(p, negative_log_likelihood(p, dev.labels)):
                frozen = LinearHead(head.weight.astype(np.float32), head.bias.astype(np.float32))
                chosen = replace(mixture, prompt=space.at(looks[k : k + 1]), head=mixture.head and frozen)
                yield Answer((chosen,), {"loss": float(loss), "dev": metric, **note})


def train_head(
    head: LinearHead, member: Member, outs: Outputs, shots: Shots, adam: Adam, rng: np.random.Generator, config: Config
) -> None:
    """Minimise -mean log p_y in V and b: dL/ds_k = r (p2_k - [k = y]), s = V h + b, r = a p2_y / p_y.

    p1, the member's probabilities, is fixed. No library's classifier knows such a mixture: the gradient is ours.
    """
    a, p1, h = config.alpha if config.joint else 1.0, member.probabilities(outs)[0], outs.features[0]
    for rows in minibatches(len(h), config.batch, config.epochs, rng):
        p2, y = softmax(head.logits(h[rows])), shots.train.labels[rows]
        own = a * p2[np.arange(len(y)), y]
        r = own / np.maximum((1 - a) * p1[rows, y] + own, 1e-12)  # the head's share of p_y
        error = r[:, None] * (p2 - np.eye(len(head.bias))[y]) / len(y)  # dL/ds (rows, classes)
        adam.step((head.weight, head.bias), (error.T @ h[rows], error.sum(axis=0)))
