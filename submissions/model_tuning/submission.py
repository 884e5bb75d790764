"""Model tuning: all weights fine-tuned on the cloze ("Model Tuning" in Sun et al., ICML 2022, Table 3).

    theta <- theta - Adam(dL/dtheta),    L = mean cross-entropy over label words at the mask

A white-box reference: it needs the model's weights, so it is listed and never ranked.

Published: Adam 1e-5, batches of 16, 200 epochs. Differs from the paper: epochs scaled by layers / 24; training also
stops after 1,000 steps (scaled alike) without a better dev score, the paper's rule where it measures time.
Reconstructed: label words at the mask as for all methods here (the head used there is not known here), dropout as in
the model, no weight decay, no warm-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Count, Positive, Shots, Task
from harness.evaluation.white_box import Predictor, Recipe, WhiteBox

access = "white-box"


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    eta: Positive = 1e-5
    """Adam's learning rate."""
    batch: Count = 16
    """Texts per step."""
    epochs: Count | None = None
    """Most passes over the training texts; None is 200 x layers / 24."""
    patience: Count | None = None
    """Steps without a better dev score after which training ends; None is 1,000 x layers / 24."""


def tune(lm: WhiteBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Predictor]:  # noqa: ARG001
    """Yield the model as it is, then better and better ones."""
    epochs, patience = lm.scaled(200, config.epochs), lm.scaled(1000, config.patience)
    recipe = Recipe(config.eta, config.batch, epochs, patience)
    yield from lm.fit(list(lm.module.parameters()), shots, rng, recipe)
