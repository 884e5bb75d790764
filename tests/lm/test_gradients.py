"""Float32 products with gradients by oneDNN: the same numbers as torch's own, and nothing else is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from harness.evaluation.training import train
from harness.lm.gradients import ByOneDnn

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
OURS = "_ProductBackward"


def by_ours(out: torch.Tensor) -> bool:
    return out.grad_fn is not None and any(
        OURS in str(each) for each in (out.grad_fn, *(fn for fn, _ in out.grad_fn.next_functions))
    )


def results(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, within: bool
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """A product and the gradients of its inputs, as far as they are asked for."""
    inputs = [
        None if each is None else each.detach().clone().requires_grad_(each.requires_grad) for each in (x, weight, bias)
    ]
    if within:
        with ByOneDnn():
            out = F.linear(*inputs)
    else:
        out = F.linear(*inputs)
    factors = torch.linspace(-1, 1, out.numel()).view(out.shape)
    (out * factors).sum().backward()
    return out, [None if each is None else each.grad for each in inputs]


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    asked=st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any),
    seed=st.integers(0, 2**31),
)
def test_products_and_gradients_are_torchs(
    shape: list[int], sizes: tuple[int, int], asked: tuple[bool, bool, bool], seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(size, generator=draw) for size in ((*shape, sizes[0]), sizes[::-1], (sizes[1],)))
    for each, wanted in zip((x, weight, bias), asked, strict=True):
        each.requires_grad_(wanted)
    (mine, my_gradients), (theirs, gradients) = (results(x, weight, bias, within) for within in (True, False))
    assert by_ours(mine)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    for ours, other, wanted in zip(my_gradients, gradients, asked, strict=True):
        assert (ours is None) == (other is None) == (not wanted)
        if wanted:
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


def test_inputs_in_other_orders_of_memory() -> None:
    x, weight = torch.randn(7, 5).T, torch.randn(7, 3).T
    x.requires_grad_()
    weight.requires_grad_()
    (mine, my_gradients), (theirs, gradients) = (results(x, weight, None, within) for within in (True, False))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    for ours, other in zip(my_gradients[:2], gradients[:2], strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", ["float64", "autocast", "empty", "outside"])
def test_all_other_products_are_torchs_own(change: str) -> None:
    dtype = torch.float64 if change == "float64" else torch.float32
    x = torch.ones(0 if change == "empty" else 2, 4, dtype=dtype, requires_grad=True)
    weight = torch.ones(3, 4, dtype=dtype)
    with ByOneDnn(), torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"):
        out = F.linear(x, weight)
    if change == "outside":
        out = F.linear(x, weight)
    assert not by_ours(out)
    assert out.dtype is (torch.bfloat16 if change == "autocast" else dtype)


def test_without_gradients() -> None:
    x, weight = torch.randn(6, 4), torch.randn(3, 4)
    with ByOneDnn(), torch.inference_mode():
        out = F.linear(x, weight)
    torch.testing.assert_close(out, x @ weight.T)
    assert out.grad_fn is None


def test_a_product_of_its_own_is_over_after_an_error() -> None:
    x = torch.ones(2, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="stop"), ByOneDnn():
        raise RuntimeError("stop")
    assert not by_ours(F.linear(x, torch.ones(3, 4)))


@pytest.mark.parametrize(("capability", "ours"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_references_are_trained_by_it_where_it_is_faster(
    capability: str, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AVX2 alone torch's own products are the faster ones."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    seen: list[bool] = []

    class Reference:
        config = None
        folder = None

        @staticmethod
        def tune(*_given: Any) -> Iterator[Any]:
            seen.append(by_ours(F.linear(torch.ones(2, 4, requires_grad=True), torch.ones(3, 4))))
            yield from ()

    class Lm:
        device, most_forwards = "cpu", np.inf

    assert (
        train(
            cast("Any", Reference),
            cast("Any", Lm()),
            cast("Any", None),
            cast("Any", None),
            0,
            lambda _used, _note: None,
        ).status
        == "no_answer"
    )
    assert seen == [ours]


def test_the_gradient_through_a_frozen_layer_is_that_of_the_weight_as_it_is_now() -> None:
    """Its transpose is laid out once, and again after the weight was changed in place."""
    draw = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(7, 5, generator=draw), requires_grad=False)
    x = torch.randn(4, 5, generator=draw, requires_grad=True)
    with ByOneDnn():
        for factor in (1.0, 1.0, -2.0):
            weight.mul_(factor)
            out = F.linear(x, weight)
            assert by_ours(out)
            (gradient,) = torch.autograd.grad(out.sum(), x)
            torch.testing.assert_close(gradient, weight.sum(dim=0).expand(4, -1))
