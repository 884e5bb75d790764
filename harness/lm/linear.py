"""Linear layers over rows of tokens: weights laid out once for oneDNN's matrix units, on demand rows in equal blocks.

`torch.nn.functional.linear` lays the weights out anew in every call. oneDNN chooses how it sums by the number of rows,
so that a row's last digits depend on how many are with it; blocks of one size end that, and cost some time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 256
"""Rows of a block where a row's numbers must not depend on the others."""


class Linear:
    """x @ weight.T + bias, alone or with what follows it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take weight (out, in) and bias (out,)."""
        self.width = len(weight)
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, ROWS) if _packs(weight) else None  # noqa: SLF001

    @classmethod
    def joined(cls, *modules: torch.nn.Linear) -> Linear:
        """One product for layers that read the same rows; their outputs side by side."""
        if len(modules) == 1:
            return cls(modules[0].weight, modules[0].bias)
        bias = None if modules[0].bias is None else torch.cat([m.bias for m in modules])
        return cls(torch.cat([m.weight for m in modules]), bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""
        if self._packed is None:
            return F.linear(x, self._weight, self._bias)
        return cast("torch.Tensor", _fused()(x, self._packed, self._bias, "none", [], ""))

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """SiLU of it."""
        if self._packed is None:
            return F.silu(self(x), inplace=True)
        return cast("torch.Tensor", _fused()(x, self._packed, self._bias, "swish", [], ""))

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of it."""
        if self._packed is None:
            return F.gelu(self(x))
        return cast("torch.Tensor", _fused()(x, self._packed, self._bias, "gelu", [], "none"))

    def gelu_tanh(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of it, by its approximation with tanh."""
        if self._packed is None:
            return F.gelu(self(x), approximate="tanh")
        return cast("torch.Tensor", _fused()(x, self._packed, self._bias, "gelu", [], "tanh"))

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """It times `factor` (rows, out)."""
        if self._packed is None:
            return self(x).mul_(factor)
        return cast("torch.Tensor", _fused().binary(x, factor, self._packed, self._bias, "mul"))

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """It plus `term` (rows, out)."""
        if self._packed is None:
            return self(x).add_(term)
        return cast("torch.Tensor", _fused().binary(x, term, self._packed, self._bias, "add"))


def _fused() -> Any:
    """A product and what follows it, as torch's compiler calls it; not in every build of torch."""
    return torch.ops.mkldnn._linear_pointwise  # noqa: SLF001


def _packs(weight: torch.Tensor) -> bool:
    """Whether oneDNN is there and computes in this format on this processor."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    bf16 = weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001
    return bf16 or weight.dtype is torch.float32


def in_blocks(
    compute: Callable[..., torch.Tensor], width: int, block: int | None, *inputs: torch.Tensor
) -> torch.Tensor:
    """`compute` over `block` rows of the inputs (rows, ...) at a time, the last ones filled up: (rows, width).

    Over all rows at once where `block` is None.
    """
    if block is None:
        return compute(*inputs)
    count = len(inputs[0])
    out = inputs[0].new_empty(count, width)
    for first in range(0, count, block):
        rows = [x[first : first + block] for x in inputs]
        held = len(rows[0])
        if held < block:
            rows = [F.pad(x, (0, 0, 0, block - held)) for x in rows]
        out[first : first + block] = compute(*rows)[:held]
    return out
