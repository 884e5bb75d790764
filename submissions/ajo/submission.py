"""AJO: alternating joint optimisation of deep prompts and a local classifier (winner of the competition).

    p(y | x) = (1 - a) softmax(W q) + a softmax(V h + b)        a = 0.5,   loss = -mean log p_y

q are the label-word logits, h is the hidden state at [MASK]. W calibrates q once. Then Adam trains the head (V, b,
`head.py`) on outputs that were already paid for, and CMA-ES moves the prompts as in BBTv2 with the head frozen, again
and again. No code is public: the README lists what is reconstructed, and where this differs on purpose. `presets.toml`
has it on BBTv2 as published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from head import train_head

from harness import (
    Answer,
    BlackBox,
    Count,
    LinearHead,
    Member,
    NonNegative,
    Positive,
    Several,
    Share,
    Shots,
    Subspace,
    Task,
    WidthFrom,
)
from harness.solving import (
    Adam,
    Calibration,
    LayerwiseCmaEs,
    Loss,
    Selection,
    hinge_of_probabilities,
    negative_log_likelihood,
)

CALIBRATIONS = {"safe": Calibration.additive, "faithful": Calibration.multiplicative, "none": Calibration.identity}
LOSSES: dict[str, Loss] = {"ce": negative_log_likelihood, "hinge": hinge_of_probabilities}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; a default is the published value unless its comment says otherwise."""

    dim: Count = 500  # d, length of each z_l
    population: Several = 20  # lambda, candidates per generation
    alpha_input: NonNegative = 1.0  # std of the first prompts at the input, in units of `width_from`
    alpha_deep: NonNegative = 0.2  # the same for layers 1 and above
    width_from: WidthFrom = "hidden"  # as in `bbtv2`, and so are the next three
    loss: Literal["ce", "hinge"] = "ce"  # what CMA-ES minimises: -log p_y, or BBT's hinge loss on log p
    accept: Literal["improve", "best"] = "improve"
    remainder: bool = True
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
    selection: Literal["house", "faithful"] = "house"  # what dev is shown, and what wins: as in `bbtv2`
    select: Literal["metric", "loss"] = "metric"  # what dev decides by, ties by the other; only for `house`


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, the calibrated one, then every (prompts, head) that dev prefers to all before."""
    train, dev, layers, ours = shots.train, shots.dev, lm.info.layers, config.selection == "house"
    space = Subspace.deep(lm.info, config.dim, rng, config.alpha_input, config.alpha_deep, config.width_from)
    selection = Selection(task, dev, config.select if ours else "metric-alone")
    yield Answer.of(task)
    zero = np.zeros((1, layers, config.dim))  # the stack z_0 .. z_{L-1}
    current = lm.outputs(space.at(zero), train.texts)  # q (1, texts, classes), h (1, texts, width): one call
    outs = lm.outputs(None, dev.texts) if ours else None  # one forward pass for the bare and the calibrated template
    for kind in ("none", config.calibrate):
        w = CALIBRATIONS[kind](current.logits[0])
        member, note = Member.of(task, None, w.scale, w.shift), {"calibration_fallback": 1.0} if w.fallback else {}
        if outs is None:
            yield Answer((member,), note)
            continue
        p = member.probabilities(outs)  # (1, texts, classes)
        for _, metric in selection.better(p, negative_log_likelihood(p, dev.labels)):
            yield Answer((member,), {"dev": metric, **note})

    head = LinearHead(np.zeros((len(task.classes), lm.info.width)), np.zeros(len(task.classes)))  # V, b
    mixture = replace(member, head=head, alpha=config.alpha) if config.head and config.alpha else member
    fitness, loss = mixture if config.joint else member, LOSSES[config.loss]  # what prompts are searched for
    adam = Adam(config.eta * 1024 / lm.info.width, config.decay)
    search = LayerwiseCmaEs(config.dim, config.population, rng, [1.0] * layers, config.accept)
    round_rows = config.population * len(train) + 2 * len(dev)
    for generation, layer in enumerate(search.generations(lm.budget.calls_left, config.remainder), start=1):
        if config.head and (layer == 0 or config.head_every == "layer"):  # asks the model nothing
            share = config.alpha if config.joint else 1.0
            train_head(head, member, current, shots, adam, rng, share, config.batch, config.epochs)

        outs = lm.outputs(space.at(search.ask()), train.texts)
        # The head has moved since the current stack was accepted. Its loss is taken again, on what was paid for then.
        search.best_loss = float(loss(fitness.probabilities(current), train.labels)[0])
        losses = loss(fitness.probabilities(outs), train.labels)  # (population,)
        accepted = search.tell(losses)
        current = current if accepted is None else outs[accepted]
        lm.log(loss=losses.min(), **search.state)

        if (ours and lm.budget.rows_left < round_rows) or generation % config.dev_every == 0:
            looks = np.stack([search.best, search.mean]) if ours else search.last  # (looks, layers, d)
            p = mixture.probabilities(lm.outputs(space.at(looks), dev.texts))
            for k, metric in selection.better(p, negative_log_likelihood(p, dev.labels)):
                frozen = LinearHead(head.weight.astype(np.float32), head.bias.astype(np.float32))
                chosen = replace(mixture, prompt=space.at(looks[k : k + 1]), head=mixture.head and frozen)
                yield Answer((chosen,), {"loss": search.best_loss, "dev": metric, **note})
