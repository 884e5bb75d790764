"""Prompt tuning: a soft prompt learned by gradients (Lester et al., EMNLP 2021; as in Sun et al., ICML 2022, Table 3).

    P <- P - Adam(dL/dP),    L = mean cross-entropy over label words,    layer 0 is shown p0 + P

A white-box reference: it needs the model's weights, so it is listed and never ranked. The prompt is injected as BBT's:
P is added to the embeddings of the fixed tokens p0, and starts at zero. What BBT finds without gradients in a subspace
is found here with gradients in the whole space; with `dim`, in BBT's subspace (the paper's comparison of Adam and
CMA-ES: ``dim=500 eta=0.001 batch=10000``, which is the full batch).

Published: 50 tokens, Adam 5e-4, batches of 16, 1,000 epochs, the same p0. Differs from the paper: the track's number of
prompt tokens; epochs scaled by layers / 24; training also stops after 1,000 steps (scaled alike) without a better dev
score, the paper's rule where it measures time. Reconstructed: dropout as in the model, dev choosing the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from harness import Count, NonNegative, Positive, Shots, Subspace, Task
from harness.evaluation.white_box import Predictor, Recipe, WhiteBox

access = "white-box"


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    dim: Count | None = None
    """d: Adam moves the coordinates z of BBT's random subspace, P = A z; None moves P itself."""
    alpha: NonNegative = 1.0
    """Width of the prompt that z ~ N(0, I) would give, in stds of the first layer's input; only with `dim`."""
    eta: Positive = 5e-4
    """Adam's learning rate."""
    batch: Count = 16
    """Texts per step."""
    epochs: Count | None = None
    """Most passes over the training texts; None is 1,000 x layers / 24."""
    patience: Count | None = None
    """Steps without a better dev score after which training ends; None is 1,000 x layers / 24."""


def tune(lm: WhiteBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Predictor]:  # noqa: ARG001
    """Yield the zero prompt, then better and better ones."""
    shape = lm.info.prompt_tokens, lm.info.width
    moved = torch.nn.Parameter(torch.zeros(shape if config.dim is None else config.dim))  # P, or z
    basis = None
    if config.dim is not None:
        std = config.alpha * lm.info.hidden_std[0]
        basis = lm.projection(Subspace(config.dim, (std,), shape[0], seed=int(rng.integers(2**62))))  # A
    first = lm.batch(shots.train.texts[:1], prompted=True).start
    last = first + lm.info.prompt_tokens

    def add(x: torch.Tensor) -> torch.Tensor:
        """Embeddings (texts, tokens, width) with P added where p0 stands."""
        prompt = moved.to(x.device) if basis is None else (basis @ moved.to(x.device)).reshape(shape)
        return torch.cat([x[:, :first], x[:, first:last] + prompt, x[:, last:]], dim=1)

    lm.edit_input(0, add)
    epochs, patience = lm.scaled(1000, config.epochs), lm.scaled(1000, config.patience)
    recipe = Recipe(config.eta, config.batch, epochs, patience)
    yield from lm.fit([moved], shots, rng, recipe, prompted=True)
