"""P-Tuning v2: keys and values prefixed at each layer (Liu et al., ACL 2022; as in Sun et al., ICML 2022, Table 3).

    layer l attends to [K_l; k(x)] and [V_l; v(x)],    K_l, V_l in R^(length x width) learned by Adam

A white-box reference: it needs the model's weights, so it is listed and never ranked.

Published: length 128 at each layer, Adam 5e-4, batches of 32, 2,000 epochs. Differs from the paper: the length is
scaled as the track scales prompts (`length`), epochs by layers / 24; training also stops after 1,000 steps (scaled
alike) without a better dev score, the paper's rule where it measures time. Reconstructed: label words at the mask as
for all methods here, no reparametrisation, first prefixes from N(0, 0.02^2), the text keeps its positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness import Count, Positive, Shots, Task
from harness.evaluation.white_box import Predictor, Recipe, WhiteBox

access = "white-box"


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    length: Count | None = None
    """Prefix positions at each layer; None is 128 x the track's prompt tokens / 50."""
    first_std: Positive = 0.02
    """Standard deviation of the first keys and values: BERT's own initial weights (chosen here)."""
    eta: Positive = 5e-4
    """Adam's learning rate."""
    batch: Count = 32
    """Texts per step."""
    epochs: Count | None = None
    """Most passes over the training texts; None is 2,000 x layers / 24."""
    patience: Count | None = None
    """Steps without a better dev score after which training ends; None is 1,000 x layers / 24."""


def tune(lm: WhiteBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Predictor]:  # noqa: ARG001
    """Yield the first prefixes, then better and better ones."""
    length = max(1, round(128 * lm.info.prompt_tokens / 50)) if config.length is None else config.length
    prefixes = [Prefix(length, lm.info.width, config, rng) for _ in lm.layers]
    for layer, prefix in zip(lm.layers, prefixes, strict=True):
        if not hasattr(getattr(layer, "attention", None), "self"):
            raise ValueError(f"{lm.info.name}: prefixes are put into BERT's and RoBERTa's attention only")
        layer.attention.self.register_forward_pre_hook(prefix.join, with_kwargs=True)
    epochs, patience = lm.scaled(2000, config.epochs), lm.scaled(1000, config.patience)
    recipe = Recipe(config.eta, config.batch, epochs, patience)
    parameters = [parameter for prefix in prefixes for parameter in (prefix.keys, prefix.values)]
    yield from lm.fit(parameters, shots, rng, recipe)


class Prefix:
    """Keys and values of one layer. The attention takes them for what it computed of an earlier piece of the text."""

    def __init__(self, length: int, width: int, config: Config, rng: np.random.Generator) -> None:
        """Draw both from N(0, first_std^2)."""
        first = (config.first_std * rng.standard_normal((2, length, width))).astype(np.float32)
        self.keys, self.values = (torch.nn.Parameter(torch.from_numpy(each)) for each in first)

    def join(self, _attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Stand in for the attention's past, and let every token see it: mask (texts, 1, tokens, length + tokens)."""
        mask = kwargs["attention_mask"]
        if mask is not None:
            seen = torch.ones((*mask.shape[:3], len(self.keys)), dtype=mask.dtype, device=mask.device)
            seen = seen if mask.dtype == torch.bool else seen - 1  # True, or 0 added to the scores
            mask = torch.cat([seen, mask], dim=-1)
        return args, kwargs | {"attention_mask": mask, "past_key_values": self}

    def update(self, k: torch.Tensor, v: torch.Tensor, _layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[K; k(x)] and [V; v(x)]: (texts, heads, length + tokens, head width)."""
        texts, heads, _, size = k.shape

        def joined(prefix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            by_head = (
                prefix.to(x.device, x.dtype).reshape(-1, heads, size).transpose(0, 1)
            )  # (heads, length, head width)
            return torch.cat([by_head.expand(texts, -1, -1, -1), x], dim=2)

        return joined(self.keys, k), joined(self.values, v)
