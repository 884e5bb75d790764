"""Float32 products with gradients, by oneDNN on a CPU.

Torch multiplies float32 matrices by MKL, which uses half of what an AMD processor with AVX-512 can do; oneDNN uses all
of it. With AVX2 alone MKL is the faster one (benchmarks/README.md). OneDNN has no gradients of its own for dense
tensors, so they are here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.overrides import TorchFunctionMode

from harness.lm.backbones.linear import fused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class _Product(torch.autograd.Function):
    """x @ weight.T + bias, and its gradients, for x (rows, in), weight (out, in) and bias (out,) or None.

    `turned` is weight.T, contiguous, where it is known.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, turned: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, turned)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, turned = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        return (
            _product(gradient, weight.T if turned is None else turned) if for_x else None,
            _product(gradient.T, x.T) if for_weight else None,
            gradient.sum(dim=0) if for_bias else None,
            None,
        )


class ByOneDnn(TorchFunctionMode):
    """Every linear layer of float32 on the CPU is a `_Product`; all else is torch's."""

    def __init__(self) -> None:
        """Nothing is turned yet."""
        super().__init__()
        self._turned: dict[torch.Tensor, tuple[int, torch.Tensor]] = {}
        """weight.T of frozen parameters, and the version of the parameter of which it is."""

    def _turn(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
        """weight.T for the gradient of x, laid out once; None where the weight is trained, or nothing is."""
        frozen = isinstance(weight, torch.nn.Parameter) and not weight.requires_grad
        if not (frozen and x.requires_grad and torch.is_grad_enabled()):
            return None
        if self._turned.get(weight, (None,))[0] != weight._version:  # noqa: SLF001
            self._turned[weight] = weight._version, weight.detach().T.contiguous()  # noqa: SLF001
        return self._turned[weight][1]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """A linear layer by oneDNN, where it fits."""
        if func is F.linear and not kwargs and _fits(*args):
            x, weight, bias = (*args, None)[:3]
            rows = x.reshape(-1, x.shape[-1])
            product = _Product.apply(rows, weight, bias, self._turn(x, weight))  # type: ignore[no-untyped-call]
            return product.view(*x.shape[:-1], len(weight))
        return func(*args, **(kwargs or {}))


def fast_products() -> contextlib.AbstractContextManager[object]:
    """Within the block, this thread's linear layers of float32 on a CPU are computed by oneDNN, where it is faster."""
    pays = torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()  # type: ignore[no-untyped-call]
    return ByOneDnn() if pays else contextlib.nullcontext()


def _fits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    """Whether a linear layer is one of float32 on the CPU: none of mixed precision, and not empty."""
    given = [each for each in (x, weight, bias) if each is not None]
    same = all(each.dtype is torch.float32 and each.device.type == "cpu" for each in given)
    return same and weight.ndim == 2 and x.numel() > 0 and not torch.is_autocast_enabled("cpu")  # noqa: PLR2004


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, in), (out, in), (out,) -> (rows, out)."""
    return cast("torch.Tensor", fused()(x.contiguous(), weight.contiguous(), bias, "none", [], ""))
