"""Linear layers over rows of tokens, with weights laid out once for oneDNN's matrix units.

`torch.nn.functional.linear` lays the weights out again in every call. OneDNN chooses its order of summation by the
number of rows, so the last digits of a row depend on how many rows are computed with it. Computing rows in blocks of
one size removes this dependence and costs some time.

`Int8Linear` multiplies integers. Its sums are exact, so they are the same on every processor and in every order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 256
"""Rows per block when the numbers of a row must not depend on the other rows."""
_WEIGHT_MOST, _ROW_MOST, _ZERO_POINT = 63, 127, 128
"""Largest integers of a weight and of a row, and the offset that makes a row's integers unsigned."""
_MAGIC = 2**23
"""Between this number and 2**24, the float32 numbers are exactly the integers."""
_SMALLEST = 1e-30
"""The scale of a row or an output whose values are all zero."""


class Linear:
    """x @ weight.T + bias, optionally fused with the operation that follows."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, pack: bool = True) -> None:
        """Take weight (out, in) and bias (out,). With `pack`, lay the weight out for oneDNN if this machine can."""
        self.width = len(weight)
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        packs = pack and _packs(weight)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, ROWS) if packs else None  # noqa: SLF001

    @classmethod
    def joined(cls, *modules: torch.nn.Linear) -> Linear:
        """One product for layers that read the same rows. Their outputs are concatenated."""
        if len(modules) == 1:
            return cls(modules[0].weight, modules[0].bias)
        bias = None if modules[0].bias is None else torch.cat([m.bias for m in modules])
        return cls(torch.cat([m.weight for m in modules]), bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""
        if self._packed is None:
            return F.linear(x, self._weight, self._bias)
        return cast("torch.Tensor", fused()(x, self._packed, self._bias, "none", [], ""))

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """SiLU of the product."""
        if self._packed is None:
            return F.silu(self(x), inplace=True)
        return cast("torch.Tensor", fused()(x, self._packed, self._bias, "swish", [], ""))

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of the product."""
        if self._packed is None:
            return F.gelu(self(x))
        return cast("torch.Tensor", fused()(x, self._packed, self._bias, "gelu", [], "none"))

    def gelu_tanh(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of the product, in its approximation by tanh."""
        if self._packed is None:
            return F.gelu(self(x), approximate="tanh")
        return cast("torch.Tensor", fused()(x, self._packed, self._bias, "gelu", [], "tanh"))

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The product times `factor` (rows, out)."""
        if self._packed is None:
            return self(x).mul_(factor)
        return cast("torch.Tensor", fused().binary(x, factor, self._packed, self._bias, "mul"))

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """The product plus `term` (rows, out)."""
        if self._packed is None:
            return self(x).add_(term)
        return cast("torch.Tensor", fused().binary(x, term, self._packed, self._bias, "add"))


class AsLoaded(Linear):
    """The product with the weight as it lies in the model, so that a change there is seen."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take weight (out, in) and bias (out,)."""
        super().__init__(weight, bias, pack=False)


class Int8Linear(Linear):
    """x @ weight.T + bias in integers: 7-bit weights with a scale per output, 8-bit rows with a scale per token.

    Weights are w = s_out q with q in [-63, 63]. A row is x = s_row (u - 128) with u in [1, 255]; its scale is computed
    at run time. The sum of two products of such integers is at most 2 * 255 * 63 = 32,130 and fits into 16 bits, in
    which processors without VNNI add them (``vpmaddubsw``). With 8-bit weights these sums would saturate, and the
    result would be wrong without any error.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Quantise float32 weight (out, in); bias (out,) stays float32."""
        super().__init__(weight, bias, pack=False)
        scale = (self._weight.abs().amax(1) / _WEIGHT_MOST).clamp_min(_SMALLEST)
        rounded = (self._weight / scale[:, None]).round().to(torch.int8)
        self._integers = torch.ops.onednn.qlinear_prepack(rounded, [ROWS, weight.shape[1]])
        self._scale, self._zero_points = scale, torch.zeros(len(weight), dtype=torch.int64)
        self._added = torch.zeros(len(weight)) if self._bias is None else self._bias
        self._magic = torch.full((weight.shape[1],), float(_MAGIC + _ZERO_POINT))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 (rows, in) -> (rows, out)."""
        most = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_()).clamp_min_(_SMALLEST)
        # Near this magnitude floats are integers: the sum's low byte is x / s_row + 128, rounded half to even.
        rows = torch.addcmul(self._magic, x, _ROW_MOST / most).view(torch.int32).to(torch.uint8)
        out = self.product(rows)
        return torch.addcmul(self._added, out, most / _ROW_MOST, out=out)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Integers u (rows, in) uint8 -> (u - 128) @ weight.T, float32 (rows, out), without the scale of the row."""
        out: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, _ZERO_POINT, self._integers, self._scale, self._zero_points, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return out


def fused() -> Any:
    """Torch's internal operator for a product and the operation after it. Some builds of torch lack it."""
    return torch.ops.mkldnn._linear_pointwise  # noqa: SLF001


def _packs(weight: torch.Tensor) -> bool:
    """Whether oneDNN is available and computes this format on this processor."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    bf16 = weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001
    return bf16 or weight.dtype is torch.float32


def in_blocks(
    compute: Callable[..., torch.Tensor], width: int, block: int | None, *inputs: torch.Tensor
) -> torch.Tensor:
    """Apply `compute` to blocks of `block` rows of the inputs (rows, ...), the last block filled up: (rows, width).

    If `block` is None, it is applied to all rows at once.
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
