"""BitFit: the biases alone are trained (Ben Zaken et al., ACL 2022).

    b <- b - Adam(dL/db) for every bias b of the model; all other weights stay

A white-box reference: it needs the model's weights, so it is listed and never ranked. The table of the BBTv2 era, as
printed by BBT-RGB, has a BitFit row; its settings are not known here. `peft` has no BitFit, and none is needed: it is
a choice of parameters.

Chosen here: Adam 5e-4, as biases alone take larger steps than all weights; batches of 16; epochs and patience of model
tuning, scaled by layers / 24; label words at the mask as for all methods here.
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
    """Hyper-parameters; all chosen here."""

    eta: Positive = 5e-4
    """Adam's learning rate."""
    batch: Count = 16
    """Texts per step."""
    epochs: Count | None = None
    """Most passes over the training texts; None is 200 x layers / 24, as in model tuning."""
    patience: Count | None = None
    """Steps without a better dev score after which training ends; None is 1,000 x layers / 24."""


def tune(lm: WhiteBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Predictor]:  # noqa: ARG001
    """Yield the model as it is, then better and better ones."""
    biases = [parameter for name, parameter in lm.module.named_parameters() if name.endswith("bias")]
    if not biases:
        raise ValueError(f"{lm.info.name} has no biases to train")
    epochs, patience = lm.scaled(200, config.epochs), lm.scaled(1000, config.patience)
    recipe = Recipe(config.eta, config.batch, epochs, patience)
    yield from lm.fit(biases, shots, rng, recipe)
