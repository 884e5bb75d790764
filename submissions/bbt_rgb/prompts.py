"""The model as a function of deep prompts, and R's second stage: COBYLA at each layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness import Answer, BlackBox, Examples, Member, Shots, Subspace, Task
from harness.solving import Loss, cross_entropy

Floats: TypeAlias = NDArray[np.floating]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Prompted:
    """The model under a text and label words: stacks z_0 .. z_{L-1} go in, logits, losses and answers come out."""

    lm: BlackBox
    task: Task
    shots: Shots
    space: Subspace
    cloze: Member
    zero: Floats  # the stack without prompts
    loss: Loss = cross_entropy  # of logits and labels

    def ask(self, stacks: Floats, examples: Examples) -> tuple[Floats, Floats]:
        """Logits (candidates, texts, classes) and losses (candidates,) of stacks (candidates, layers, d)."""
        q = self.lm.logits(self.space.at(stacks), examples.texts, self.cloze.template, self.cloze.words)
        q = np.asarray(q.reshape(*q.shape[:2], len(self.task.classes), -1).mean(axis=-1), dtype=np.float64)
        return q, self.loss(q, examples.labels)

    def answer(self, stack: Floats, **note: float) -> Answer:
        """Pack one stack (layers, d)."""
        return Answer((replace(self.cloze, prompt=self.space.at(stack[None])),), note)


def polish(
    model: Prompted, best: Floats, loss: float, steps: Floats, most: int, evaluations: int, rng: np.random.Generator
) -> tuple[Floats, float]:
    """Move each layer to z_l + U u, from the bottom up, where the training loss falls; the stack and its loss.

    U (d, m) is standard normal, so that |u_j| = sigma_l is as far as a first sample of CMA-ES; u starts with `steps`.
    """
    m = min(most, best.shape[1], evaluations // 2)  # half may build the simplex, which takes m + 1 evaluations
    for layer, step in enumerate(steps.tolist()):
        directions = np.zeros((*best.shape, m))
        directions[layer] = rng.standard_normal((best.shape[1], m))
        stack, found = cobyla(model, best, directions, step, evaluations)
        if found < loss:
            best, loss = stack, found
    return best, loss


def cobyla(model: Prompted, start: Floats, directions: Floats, rhobeg: float, calls: int) -> tuple[Floats, float]:
    """Best stack that SciPy's COBYLA tries in start + directions @ u, and its loss; it makes at least m + 2 calls."""
    tried: list[tuple[float, Floats]] = []

    def loss_at(u: Floats) -> float:
        stack = start + directions @ u
        tried.append((float(model.ask(stack[None], model.shots.train)[1][0]), stack))
        return tried[-1][0]

    minimize(loss_at, np.zeros(directions.shape[-1]), method="COBYLA", options={"rhobeg": rhobeg, "maxiter": calls})
    loss, stack = min(tried, key=lambda pair: pair[0])
    return stack, loss
