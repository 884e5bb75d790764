"""Sequences that grow token by token: of each what a backbone needs to compute the next state.

A *sequence* is one text under one candidate; sequence ``c * texts + t`` is text t under candidate c. `Cached` keeps the
keys and values of every layer, so that a step computes one token of each sequence. It begins with the fast path's own
pass: without pad tokens, the prompt and a beginning that all texts share computed once, and the layers below the first
one where candidates differ computed once for all of them. `Uncached` computes the whole sequence again at every step,
by any backbone, so it is exact by construction. It serves the families without a fast path; tests compare both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.lm.backbones.decoder import DecoderBackbone, packed
from harness.lm.backbones.packing import SLOTS

if TYPE_CHECKING:
    from harness.lm.backbones.base import Batch
    from harness.lm.backbones.decoder import _Layer, _Row
    from harness.lm.backbones.plain import PlainBackbone


class Growing(Protocol):
    """Sequences at some length."""

    states: torch.Tensor
    """(sequences, width) float32, the final hidden state of each sequence's last token."""

    def append(self, tokens: torch.Tensor) -> None:
        """Add one token to each sequence: (sequences,) int64. Then `states` are those of the new tokens."""
        ...

    def keep(self, which: torch.Tensor) -> None:
        """Go on with some sequences alone: (kept,) int64, their present numbers."""
        ...


def begin(backbone: PlainBackbone, batch: Batch, most: int) -> Growing:
    """Read a batch and get ready to append up to `most` tokens to each of its sequences.

    Args:
        backbone: of a causal model.
        batch: texts whose last tokens are read, one read each.
        most: tokens that will be appended at most.

    Returns:
        The sequences, candidate after candidate.
    """
    if isinstance(backbone, DecoderBackbone):
        row = packed(batch, backbone.shared(batch))
        if row is not None:
            return Cached(backbone, batch, row, most)
    return Uncached(backbone, batch)


def cache_bytes(backbone: PlainBackbone, tokens: int) -> int:
    """Memory that the keys and values of one sequence of so many tokens take; 0 where none are kept."""
    if not isinstance(backbone, DecoderBackbone):
        return 0
    layer = backbone.layout[0]
    per_token: int = (layer.qkv.width // layer.head_width - layer.heads) * layer.head_width
    slots = -(-tokens // SLOTS) * SLOTS
    return slots * per_token * backbone.layers * backbone._output.element_size()  # noqa: SLF001


class Cached:
    """Sequences with the keys and values of all their tokens."""

    def __init__(self, backbone: DecoderBackbone, batch: Batch, row: _Row, most: int) -> None:
        """Compute the tokens of the batch."""
        self._backbone = backbone
        ends = batch.mask.sum(dim=1)
        own = ends - row.shared
        starts = row.shared + own.cumsum(dim=0) - own
        self._first = row.shared if batch.candidates == 1 else 0
        """Tokens that all sequences share; their keys and values are kept once."""
        place = torch.arange(self._first, batch.ids.shape[1], device=ends.device).minimum(ends[:, None] - 1)
        packed = torch.where(place < row.shared, place, starts[:, None] + place - row.shared)  # (texts, tokens)
        self._lengths = ends.repeat(batch.candidates)  # (sequences,) tokens so far
        slots = -(-(place.shape[1] + most) // SLOTS) * SLOTS
        self._kv: list[torch.Tensor] = []  # of each layer (sequences, 2 * key heads, slots, head width)
        self._shared: list[torch.Tensor] = []  # of each layer (2 * key heads, shared tokens, head width)

        def kept(_depth: int, kv: torch.Tensor) -> None:
            found = kv[:, packed]  # (1 or candidates, texts, tokens, 2 * key heads, head width)
            found = found.expand(batch.candidates, -1, -1, -1, -1).flatten(0, 1).transpose(1, 2)
            room = found.new_zeros(len(found), found.shape[1], slots, found.shape[3])
            room[:, :, : found.shape[2]] = found
            self._kv.append(room)
            self._shared.append(kv[0, : self._first].transpose(0, 1).contiguous())

        with torch.inference_mode():
            x, rotation = backbone._embedded(row)  # noqa: SLF001 - two modules of one backbone
            x = backbone._through(x, range(backbone.layers), batch, row, rotation, kept)  # noqa: SLF001
            self.states = x[:, :, 0].expand(batch.candidates, -1, -1).flatten(0, 1).float()

    def append(self, tokens: torch.Tensor) -> None:
        """See `Growing`."""
        backbone, at = self._backbone, self._lengths - self._first
        end = -(-(int(at.max()) + 1) // SLOTS) * SLOTS
        seen = (torch.arange(end, device=at.device) <= at[:, None])[:, None, None]  # (sequences, 1, 1, slots)
        with torch.inference_mode():
            x, rotation = backbone._embedded(_Step(tokens, self._lengths))  # type: ignore[arg-type]  # noqa: SLF001
            for layer, kv, shared in zip(backbone.layout, self._kv, self._shared, strict=True):
                qkv = layer.projected(x, rotation, backbone._block)[0]  # noqa: SLF001 - (sequences, heads, head width)
                kv[torch.arange(len(at), device=at.device), :, at] = qkv[:, layer.heads :]
                attended = _attended(layer, qkv[:, : layer.heads], kv[:, :, :end], seen, shared)
                x = layer.finished(x, attended[None], backbone._block)  # noqa: SLF001
            self.states = backbone._normalized(x)[0].float()  # noqa: SLF001
        self._lengths = self._lengths + 1

    def keep(self, which: torch.Tensor) -> None:
        """See `Growing`."""
        self.states, self._lengths = self.states[which], self._lengths[which]
        for depth, kv in enumerate(self._kv):  # one layer after the other: the old and the new are never both whole
            self._kv[depth] = kv[which]


class _Step:
    """One token of each sequence as a row of tokens, as far as `DecoderBackbone._embedded` reads it."""

    def __init__(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        self.ids, self.positions = ids, positions


def _attended(
    layer: _Layer, q: torch.Tensor, kv: torch.Tensor, seen: torch.Tensor, shared: torch.Tensor
) -> torch.Tensor:
    """Attention of one query each (sequences, heads, head width) to kv (sequences, 2 * key heads, keys, head width).

    All of them also see `shared` (2 * key heads, tokens, head width). The heads that read the same keys are taken as
    that many queries of one head.
    """
    k, v = kv.chunk(2, dim=1)
    grouped = q.view(len(q), k.shape[1], -1, q.shape[-1])  # (sequences, key heads, heads that share keys, head width)
    tokens = shared.shape[1]
    if not tokens:
        return F.scaled_dot_product_attention(grouped, k, v, seen, scale=layer.scale).reshape(len(q), -1)
    first_k, first_v = shared.chunk(2)
    by_head = grouped.transpose(0, 1).flatten(1, 2)  # (key heads, sequences * heads that share keys, head width)
    first = (by_head @ first_k.mT).view(k.shape[1], len(q), -1, tokens).transpose(0, 1)
    own = (grouped @ k.mT).masked_fill(~seen, float("-inf"))
    shares = (torch.cat([first, own], dim=-1).float() * layer.scale).softmax(dim=-1).to(q.dtype)
    first = (shares[..., :tokens].transpose(0, 1).flatten(1, 2) @ first_v).view(
        by_head.shape[0], len(q), -1, q.shape[-1]
    )
    return (first.transpose(0, 1) + shares[..., tokens:] @ v).reshape(len(q), -1)


class Uncached:
    """Sequences that are computed from their first token on at every step."""

    def __init__(self, backbone: PlainBackbone, batch: Batch) -> None:
        """Compute the tokens of the batch."""
        self._backbone = backbone
        texts = len(batch.ids)
        candidate = torch.arange(batch.candidates).repeat_interleave(texts)  # (sequences,)
        text = torch.arange(texts).repeat(batch.candidates)
        self._one = replace(batch, candidates=1, prompts=(), prefix=0)
        self._prompts = tuple(
            layer[candidate.to(layer.device)] if len(layer) > 1 else layer.expand(len(text), -1, -1)
            for layer in batch.prompts
        )
        self._ids, self._mask = batch.ids[text], batch.mask[text]
        self._lengths = self._mask.sum(dim=1)
        self.states = self._computed()

    def append(self, tokens: torch.Tensor) -> None:
        """See `Growing`."""
        if int(self._lengths.max()) == self._ids.shape[1]:
            self._ids, self._mask = F.pad(self._ids, (0, 1)), F.pad(self._mask, (0, 1))
        row = torch.arange(len(tokens), device=tokens.device)
        self._ids[row, self._lengths], self._mask[row, self._lengths] = tokens, True
        self._lengths = self._lengths + 1
        self.states = self._computed()

    def keep(self, which: torch.Tensor) -> None:
        """See `Growing`."""
        self.states, self._lengths = self.states[which], self._lengths[which]
        self._ids, self._mask = self._ids[which], self._mask[which]
        self._prompts = tuple(layer[which] for layer in self._prompts)

    def _computed(self) -> torch.Tensor:
        """States of the last tokens, one sequence after the other, since each has its own prompt."""
        found = []
        for n, length in enumerate(self._lengths.tolist()):
            positions = torch.arange(length, device=self._ids.device)[None]
            batch = replace(
                self._one,
                ids=self._ids[n : n + 1, :length],
                mask=self._mask[n : n + 1, :length],
                positions=positions,
                read=positions[:, -1:],
                prompts=tuple(layer[n : n + 1] for layer in self._prompts),
            )
            found.append(self._backbone.hidden(batch)[0, 0])
        return torch.cat(found)
