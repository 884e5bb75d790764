"""A post-norm encoder layer whose biases, norms, LoRA or adapter differ between candidates, all computed together.

A bias or a norm of a candidate is a vector, and a LoRA two thin products; the large product is the one that the model
has anyway, in its own number format. The mathematics is that of transformers' layer with changed parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract import Beside
    from harness.lm.backbones.linear import Linear

K = TypeVar("K")


@dataclass(frozen=True)
class LayerEdit:
    """What candidates change in one layer. The first axis of each tensor is candidates, of which there may be one."""

    biases: dict[Beside, torch.Tensor] = field(default_factory=dict)  # (candidates, out), added
    norms: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    """By number of the norm and ``weight`` or ``bias``: (candidates, width), added."""
    lora: dict[Beside, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """A (candidates, rank, in) and B (candidates, out, rank)."""
    adapter: tuple[torch.Tensor, ...] = ()
    """D (candidates, inner, width), d (candidates, inner), U (candidates, width, inner) and u (candidates, width)."""

    def of(self, members: slice) -> LayerEdit:
        """The edit of some of the candidates."""

        def some(values: torch.Tensor) -> torch.Tensor:
            return values[members] if len(values) > 1 else values

        return LayerEdit(
            {name: some(values) for name, values in self.biases.items()},
            {name: some(values) for name, values in self.norms.items()},
            {name: (some(a), some(b)) for name, (a, b) in self.lora.items()},
            tuple(some(values) for values in self.adapter),
        )

    def plus(self, other: LayerEdit) -> LayerEdit:
        """Both edits. LoRAs beside one matrix, and adapters, add what they give: one that is as wide as both."""
        lora = dict(self.lora)
        for name, (a, b) in other.lora.items():
            lora[name] = (_wider(lora[name][0], a, 1), _wider(lora[name][1], b, 2)) if name in lora else (a, b)
        adapter = self.adapter or other.adapter
        if self.adapter and other.adapter:
            pairs = zip(self.adapter, other.adapter, (1, 1, 2), strict=False)
            adapter = (*(_wider(mine, more, axis) for mine, more, axis in pairs), self.adapter[3] + other.adapter[3])
        return LayerEdit(_sum(self.biases, other.biases), _sum(self.norms, other.norms), lora, adapter)

    @property
    def candidates(self) -> int:
        """How many there are; 1 where all agree."""
        pairs = [a for a, _ in self.lora.values()]
        return max(len(t) for t in (*self.biases.values(), *self.norms.values(), *pairs, *self.adapter))

    def product(self, linear: Linear, x: torch.Tensor, *names: Beside) -> torch.Tensor:
        """The product of joined matrices with x (1 or candidates, rows, in), as the candidates have it."""
        out = linear(x.reshape(-1, x.shape[-1])).view(*x.shape[:2], -1)
        width = out.shape[-1] // len(names)
        changes: list[torch.Tensor | None] = []
        for name in names:
            change = None
            if name in self.lora:
                a, b = self.lora[name]
                change = (x.to(a.dtype) @ a.transpose(1, 2)) @ b.transpose(1, 2)
            if name in self.biases:
                bias = self.biases[name][:, None]
                change = bias if change is None else change + bias
            changes.append(change)
        if all(change is None for change in changes):
            return out
        out = out.expand(max(len(out), *(len(c) for c in changes if c is not None)), -1, -1)
        if len(changes) == 1 and changes[0] is not None:
            return out + changes[0].to(out.dtype)
        out = out.clone()
        for n, change in enumerate(changes):
            if change is not None:
                out[..., n * width : (n + 1) * width] += change.to(out.dtype)
        return out

    def normed(self, number: int, norm: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, eps: float) -> torch.Tensor:
        """A layer norm of x (candidates, rows, width), as the candidates have it."""
        found = [self.norms.get((number, name)) for name in ("weight", "bias")]
        if all(more is None for more in found):
            return F.layer_norm(x, x.shape[-1:], *norm, eps)
        weight, bias = (
            own[None, None] if more is None else (own + more.to(own.dtype))[:, None]
            for own, more in zip(norm, found, strict=True)
        )
        return F.layer_norm(x, x.shape[-1:], None, None, eps) * weight + bias

    def adapted(self, x: torch.Tensor) -> torch.Tensor:
        """The output of a feed-forward part (candidates, rows, width) through the adapter."""
        if not self.adapter:
            return x
        down, down_bias, up, up_bias = (values.to(x.dtype) for values in self.adapter)
        inner = F.gelu(x @ down.transpose(1, 2) + down_bias[:, None])
        return x + inner @ up.transpose(1, 2) + up_bias[:, None]


def _sum(some: dict[K, torch.Tensor], others: dict[K, torch.Tensor]) -> dict[K, torch.Tensor]:
    return {**some, **{name: some[name] + values if name in some else values for name, values in others.items()}}


def _wider(some: torch.Tensor, others: torch.Tensor, axis: int) -> torch.Tensor:
    """Both tensors (1 or candidates, ...) beside each other."""
    count = max(len(some), len(others))
    return torch.cat([each.expand(count, *each.shape[1:]) for each in (some, others)], dim=axis)


@dataclass(frozen=True)
class Products:
    """The parts of a layer of `EncoderBackbone` that an edit changes."""

    q: Linear
    kv: Linear
    out: Linear
    norm1: tuple[torch.Tensor, torch.Tensor]
    up: Linear
    down: Linear
    norm2: tuple[torch.Tensor, torch.Tensor]


def edited_layer(
    x: torch.Tensor,
    layer: Products,
    edit: LayerEdit,
    eps: float,
    at: torch.Tensor | None,
    attend: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """One layer: (1 or candidates, tokens, width) -> (candidates, tokens, width).

    Args:
        x: the layer's input.
        layer: its weights.
        edit: what candidates change.
        eps: of the norms.
        at: positions that are read, of any shape; None computes all of them. The result then has their shape.
        attend: attention of queries to keys and values, from both to the shape of the queries.
    """
    kv = edit.product(layer.kv, x, "key", "value")
    shape: tuple[int, ...] = x.shape[1:]
    if at is not None:
        shape = (*at.shape, x.shape[-1])
        x = x[:, at.flatten()]
    q = edit.product(layer.q, x, "query")
    count = max(len(q), len(kv))
    q, kv = q.expand(count, -1, -1), kv.expand(count, -1, -1)
    attended = attend(q.view(count, *shape), kv).reshape(count, -1, x.shape[-1])
    x = edit.normed(0, layer.norm1, edit.product(layer.out, attended, "output") + x, eps)
    inner = F.gelu(edit.product(layer.up, x, "up"))
    x = edit.normed(1, layer.norm2, edit.adapted(edit.product(layer.down, inner, "down")) + x, eps)
    return x.view(len(x), *shape)
