"""The noise of weights on the device that computes, see `harness.contract.weights`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.noise import PER_BLOCK, SECOND, SIGNS, START, UNIT, blocks_of, octets, product_unit, sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Noise, WeightSpace
    from harness.lm.backbones.groups import Slot

_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 22}
"""Counters at once: on a CPU as many as its caches hold."""


def draw(slots: Sequence[Slot], space: WeightSpace, streams: Sequence[int], device: str) -> torch.Tensor:
    """Unit noise of all tensors of a space, one after the other: float32 (streams, elements)."""
    out = torch.empty(len(streams), sum(slot.size for slot in slots), device=device)
    first = 0
    for t, slot in enumerate(slots):
        here = out[:, first : first + slot.size]
        if thin(slot, space):
            a, b = factors(slot, t, space, streams, device)
            here.copy_((a @ b.transpose(1, 2)).flatten(1)).mul_(float(product_unit(space.distribution, space.rank)))
        else:
            _fill(here, _column(streams, device), t, space.seed, space.distribution)
        first += slot.size
    return out


def thin(slot: Slot, space: WeightSpace) -> bool:
    """Whether the noise of a tensor is a product of two thin matrices."""
    return space.low_rank and len(slot.shape) == 2  # noqa: PLR2004 - a matrix


def factors(
    slot: Slot, number: int, space: WeightSpace, streams: Sequence[int], device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of a matrix's noise of low rank, before `product_unit`.

    Args:
        slot: the matrix.
        number: of the matrix among the tensors of its space.
        space: of low rank.
        streams: numbers of the streams.
        device: where they are drawn.

    Returns:
        Integers in float32: (streams, rows, rank) and (streams, columns, rank). Their products are exact.
    """
    found = []
    for size, t in zip(slot.shape, (number, number + SECOND), strict=True):
        out = torch.empty(len(streams), size * space.rank, device=device)
        _fill(out, _column(streams, device), t, space.seed, space.distribution, unit=1.0)
        found.append(out.view(-1, size, space.rank))
    return found[0], found[1]


def vector(slot: Slot, number: int, space: WeightSpace, streams: Sequence[int], device: str) -> torch.Tensor:
    """Unit noise of one tensor: (streams, elements)."""
    out = torch.empty(len(streams), slot.size, device=device)
    _fill(out, _column(streams, device), number, space.seed, space.distribution)
    return out


def _column(streams: Sequence[int], device: str) -> torch.Tensor:
    return torch.tensor(list(streams), dtype=torch.int64, device=device)[:, None]


def start(slots: Sequence[Slot], space: WeightSpace, device: str) -> torch.Tensor:
    """The first values of the tensors of a space, in their units: noise for A and D, else 0. Float32 (elements,)."""
    out = torch.zeros(1, sum(slot.size for slot in slots), device=device)
    none, first = torch.zeros(1, 1, dtype=torch.int64, device=device), 0
    for t, slot in enumerate(slots):
        if slot.part in {"A", "D"}:
            _fill(out[:, first : first + slot.size], none, t + START, space.seed, space.distribution)
        first += slot.size
    return out[0]


def _fill(
    out: torch.Tensor, streams: torch.Tensor, tensor: int, seed: int, distribution: Noise, unit: float = float(UNIT)
) -> None:
    """Write the noise of one tensor into out (streams, size), or with unit 1 the integers that it is made of."""
    size, per, device = out.shape[1], PER_BLOCK[distribution], out.device
    blocks, signs = blocks_of(size, distribution), torch.from_numpy(SIGNS).to(device)
    step = max(1, _AT_ONCE[device.type] // len(streams))
    for first in range(0, blocks, step):
        numbers = torch.arange(first, min(first + step, blocks), device=device)[None]
        found = octets(numbers, streams, tensor, seed)
        if distribution == "rademacher":
            values = signs[torch.stack(found, dim=-1)]
        else:
            values = torch.stack(sums(found), dim=-1).float() * unit
        values = values.view(len(streams), -1)[:, : size - first * per]
        out[:, first * per : first * per + values.shape[1]] = values
        checkpoint()
