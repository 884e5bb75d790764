"""LoRA: low-rank updates of the query and value projections (Hu et al., ICLR 2022), through `peft`.

    W x becomes W x + (alpha / rank) B A x,    A in R^(rank x width) random, B = 0 at first; A and B learned by Adam

A white-box reference: it needs the model's weights, so it is listed and never ranked. The table of the BBTv2 era, as
printed by BBT-RGB, has a LoRA row; its settings are not known here.

Chosen here: rank 8, alpha 16 and no dropout of its own, as usual for RoBERTa; Adam 5e-4; batches of 16; epochs and
patience of model tuning, scaled by layers / 24; label words at the mask as for all methods here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from peft import LoraConfig, inject_adapter_in_model

from harness import Count, Positive, Shots, Task
from harness.evaluation.white_box import Predictor, Recipe, WhiteBox

access = "white-box"


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; all chosen here."""

    rank: Count = 8
    """Rank of the update of each matrix."""
    alpha: Positive = 16.0
    """The update is scaled by alpha / rank."""
    eta: Positive = 5e-4
    """Adam's learning rate."""
    batch: Count = 16
    """Texts per step."""
    epochs: Count | None = None
    """Most passes over the training texts; None is 200 x layers / 24, as in model tuning."""
    patience: Count | None = None
    """Steps without a better dev score after which training ends; None is 1,000 x layers / 24."""


def tune(lm: WhiteBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Predictor]:  # noqa: ARG001
    """Yield the model as it is (B = 0), then better and better ones."""
    inject_adapter_in_model(LoraConfig(r=config.rank, lora_alpha=config.alpha), lm.module)  # query and value
    factors = [parameter for name, parameter in lm.module.named_parameters() if "lora_" in name]
    epochs, patience = lm.scaled(200, config.epochs), lm.scaled(1000, config.patience)
    recipe = Recipe(config.eta, config.batch, epochs, patience)
    yield from lm.fit(factors, shots, rng, recipe)
