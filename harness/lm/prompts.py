"""Prompt values as tensors, layer by layer. Each is computed once for all candidates that agree on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.blackbox import projection
from harness.blackbox.projection import Kept, check_space, generate, matrix
from harness.contract import Coordinates, Prompt, SoftPrompts
from harness.errors import QueryError
from harness.lm.backbones.linear import in_blocks

if TYPE_CHECKING:
    from harness.contract import FloatArray, Mode, Subspace
    from harness.lm.device import Kind as DeviceKind

_on_device: Kept[torch.Tensor] = Kept()
"""Projection matrices in use, in a GPU's memory."""


def check_prompts(prompts: SoftPrompts, layers: int, width: int, tokens: int) -> None:
    """Refuse prompts of a wrong shape before they are charged.

    Args:
        prompts: candidates.
        layers: most layers that take a prompt.
        width: of a layer.
        tokens: most prompt tokens.

    Raises:
        QueryError: the shape is wrong, or there are no candidates. The message gives the shape found and the one
            expected.
    """
    if isinstance(prompts, Prompt):
        shape, most = prompts.values.shape, (math.inf, layers, tokens, width)
        good = len(shape) == len(most) and all(1 <= n <= m for n, m in zip(shape, most, strict=True))
        if not good or shape[3] != width:
            wanted = f"(candidates, 1..{layers} layers, 1..{tokens} tokens, {width})"
            raise QueryError(f"prompt of shape {shape}; {wanted} expected")
        return
    check_space(prompts.space, layers, width, tokens)
    expected = (prompts.space.layers, prompts.space.dim)
    if prompts.z.ndim != 3 or not len(prompts.z) or prompts.z.shape[1:] != expected:  # noqa: PLR2004
        raise QueryError(f"coordinates of shape {prompts.z.shape}; (candidates, {expected[0]}, {expected[1]}) expected")


def mode_of(prompts: SoftPrompts) -> Mode:
    """How prompts are put in."""
    return prompts.mode if isinstance(prompts, Prompt) else prompts.space.mode


TOGETHER = 16
"""Number of candidates projected at once when no candidate's values may depend on the others."""


def prompt_layers(
    prompts: SoftPrompts, width: int, device: DeviceKind = "cpu", block: int | None = None
) -> tuple[torch.Tensor, ...]:
    """Prompt values per layer: (1, tokens, width) if all candidates agree, else (candidates, tokens, width).

    Agreement is found by comparing the values that were sent. The product with a projection is computed on `device`,
    for `block` candidates at a time or for all at once.
    """
    if isinstance(prompts, Prompt):
        values = np.asarray(prompts.values, dtype=np.float32)
        layers = [np.ascontiguousarray(_shared(values[:, layer])) for layer in range(values.shape[1])]
        return tuple(torch.from_numpy(layer).to(device) for layer in layers)
    return tuple(_project(prompts, layer, width, device, block) for layer in range(prompts.space.layers))


def _project(coordinates: Coordinates, layer: int, width: int, device: DeviceKind, block: int | None) -> torch.Tensor:
    z, tokens = torch.from_numpy(_shared(coordinates.z[:, layer])).to(device), coordinates.space.tokens
    a = _matrix(coordinates.space, layer, width, device).T
    return in_blocks(lambda rows: rows @ a, tokens * width, block, z).view(len(z), tokens, width)


def _matrix(space: Subspace, layer: int, width: int, device: DeviceKind) -> torch.Tensor:
    """The projection A_l on the device that needs it. On a GPU, main memory keeps no second copy."""
    if device == "cpu":
        return torch.from_numpy(matrix(space, layer, width))
    size = 4 * space.tokens * width * space.dim
    return _on_device.get(space, layer, width, size, lambda: torch.from_numpy(generate(space, layer, width)).to(device))


def forget(whose: object) -> None:
    """Drop the matrices that a cell (`harness.blackbox.cells`) has kept, here and in main memory."""
    _on_device.forget(whose)
    projection.forget(whose)


def _shared(values: FloatArray) -> FloatArray:
    """A copy that torch may own, with one row if all rows are equal. Arrays from the wire are read-only."""
    return np.array(values[:1] if (values == values[:1]).all() else values, dtype=np.float32, order="C")
