"""The noise of weights on the device that computes, see `harness.contract.weights`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.noise import PER_BLOCK, SIGNS, START, UNIT, blocks_of, octets, sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Noise, WeightSpace
    from harness.lm.backbones.groups import Slot

_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 22}
"""Counters at once: on a CPU as many as its caches hold."""


def draw(slots: Sequence[Slot], space: WeightSpace, streams: Sequence[int], device: str) -> torch.Tensor:
    """Unit noise of all tensors of a space, one after the other: float32 (streams, elements)."""
    out = torch.empty(len(streams), sum(slot.size for slot in slots), device=device)
    numbers, first = torch.tensor(list(streams), dtype=torch.int64, device=device)[:, None], 0
    for t, slot in enumerate(slots):
        _fill(out[:, first : first + slot.size], numbers, t, space.seed, space.distribution)
        first += slot.size
    return out


def start(slots: Sequence[Slot], space: WeightSpace, device: str) -> torch.Tensor:
    """The first values of the tensors of a space, in their units: noise for A and D, else 0. Float32 (elements,)."""
    out = torch.zeros(1, sum(slot.size for slot in slots), device=device)
    none, first = torch.zeros(1, 1, dtype=torch.int64, device=device), 0
    for t, slot in enumerate(slots):
        if slot.part in {"A", "D"}:
            _fill(out[:, first : first + slot.size], none, t + START, space.seed, space.distribution)
        first += slot.size
    return out[0]


def _fill(out: torch.Tensor, streams: torch.Tensor, tensor: int, seed: int, distribution: Noise) -> None:
    """Write the noise of one tensor into out (streams, size)."""
    size, per, device = out.shape[1], PER_BLOCK[distribution], out.device
    blocks, signs = blocks_of(size, distribution), torch.from_numpy(SIGNS).to(device)
    step = max(1, _AT_ONCE[device.type] // len(streams))
    for first in range(0, blocks, step):
        numbers = torch.arange(first, min(first + step, blocks), device=device)[None]
        found = octets(numbers, streams, tensor, seed)
        if distribution == "rademacher":
            values = signs[torch.stack(found, dim=-1)]
        else:
            values = torch.stack(sums(found), dim=-1).float() * float(UNIT)
        values = values.view(len(streams), -1)[:, : size - first * per]
        out[:, first * per : first * per + values.shape[1]] = values
        checkpoint()
