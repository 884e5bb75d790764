"""Prompt values as tensors, layer by layer, each computed once for all candidates that agree on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.contract import Coordinates, Prompt, Prompts
from harness.lm.projection import matrix

if TYPE_CHECKING:
    from harness.contract import FloatArray


def prompt_layers(prompts: Prompts, width: int) -> tuple[torch.Tensor, ...]:
    """Prompt values per layer: (1, tokens, width) where all candidates agree, else (candidates, tokens, width).

    Agreement is found by comparing what was sent.
    """
    if isinstance(prompts, Prompt):
        values = np.asarray(prompts.values, dtype=np.float32)
        layers = [np.ascontiguousarray(_shared(values[:, layer])) for layer in range(values.shape[1])]
        return tuple(torch.from_numpy(layer) for layer in layers)
    return tuple(_project(prompts, layer, width) for layer in range(prompts.space.layers))


def _project(coordinates: Coordinates, layer: int, width: int) -> torch.Tensor:
    z = _shared(coordinates.z[:, layer])
    out = torch.from_numpy(z) @ torch.from_numpy(matrix(coordinates.space, layer, width)).T
    return out.view(len(z), coordinates.space.tokens, width)


def _shared(values: FloatArray) -> FloatArray:
    """A copy that torch may own: one row where all are equal. What comes from the wire is read-only."""
    return np.array(values[:1] if (values == values[:1]).all() else values, dtype=np.float32, order="C")
