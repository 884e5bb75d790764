"""Texts of different lengths in one row without pad tokens, and where attention finds each of them.

All operations but attention treat each token by itself, so the tokens of all texts form one row, text after text.
Attention computes those texts together whose lengths round up to the same multiple of `SLOTS`, and masks the empty
slots. On a CPU, softmax over any other length takes up to twice as long (``benchmarks/README.md``). The rounded length
depends only on the text's own length, so a text's numbers do not depend on its neighbours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLOTS = 16
"""The number of keys in attention is a multiple of this: CPU kernels take up to twice as long at other numbers."""


@dataclass(frozen=True)
class Group:
    """Texts that attend in one call."""

    texts: torch.Tensor  # (group,) int64
    slots: torch.Tensor  # (group, slots) int64, the packed token in each slot; an empty slot repeats the text's last
    mask: torch.Tensor | None  # (group, 1, 1, slots) bool, True at tokens; None if there are no empty slots


@dataclass(frozen=True)
class Layout:
    """The tokens of some texts in one row, in the order of the texts."""

    starts: torch.Tensor  # (texts,) int64, first token of each text in the row
    ends: torch.Tensor  # (texts,) int64, its last one
    groups: tuple[Group, ...]
    back: torch.Tensor  # (tokens,) int64, the index of each token in the concatenated slots of all groups
    by_group: torch.Tensor  # (texts,) int64, the index of each text in the concatenated texts of all groups


def layout(lengths: Sequence[int], longest: int | None, device: torch.device) -> Layout:
    """How texts of `lengths` tokens are packed. With `longest`, each text keeps its pad tokens up to that length."""
    rooms = [longest or length for length in lengths]
    starts = list(itertools.accumulate(rooms, initial=0))
    sizes = [longest or -(-room // SLOTS) * SLOTS for room in rooms]
    groups, back, order, before = [], torch.empty(starts[-1], dtype=torch.int64), [], 0
    for size in sorted(set(sizes)):
        texts = [n for n, own in enumerate(sizes) if own == size]
        slot = torch.arange(size)
        first = torch.tensor([starts[n] for n in texts])[:, None]
        room = torch.tensor([rooms[n] for n in texts])[:, None]
        slots = first + torch.minimum(slot, room - 1)
        held = slot < room  # (group, slots), True if the slot holds a token of the row
        back[slots[held]] = before + torch.arange(slots.numel()).view_as(slots)[held]
        real = slot < torch.tensor([lengths[n] for n in texts])[:, None]
        mask = None if bool(real.all()) else real[:, None, None].to(device)
        groups.append(Group(torch.tensor(texts, device=device), slots.to(device), mask))
        order += texts
        before += slots.numel()
    by_group = torch.empty(len(order), dtype=torch.int64)
    by_group[torch.tensor(order)] = torch.arange(len(order))
    first, last = torch.tensor(starts[:-1], device=device), torch.tensor(starts[1:], device=device) - 1
    return Layout(first, last, tuple(groups), back.to(device), by_group.to(device))


def parts(rooms: Sequence[int], candidates: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut texts x candidates into parts (texts, candidates) of at most `most` tokens, or one text of one candidate.

    A part holds all texts of some candidates if they fit, and otherwise some texts of one candidate. Parts have about
    equal sizes.
    """
    runs = -(-sum(rooms) // most)
    enough = min(most, -(-sum(rooms) // runs) + max(rooms) // 2)
    first = 0
    while first < len(rooms):
        last, tokens = first + 1, rooms[first]
        while last < len(rooms) and tokens + rooms[last] <= enough:
            tokens += rooms[last]
            last += 1
        groups = -(-candidates // max(1, most // tokens))
        bounds = [candidates * n // groups for n in range(groups + 1)]
        for start, stop in itertools.pairwise(bounds):
            yield slice(first, last), slice(start, stop)
        first = last
