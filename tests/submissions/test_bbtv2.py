"""BBTv2's divide and conquer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import BudgetExhausted

if TYPE_CHECKING:
    from .conftest import Bench


def queries(bench: Bench, calls: int = 200, layers: int = 3, **options: Any) -> tuple[list[Any], list[Any], Any]:
    """All training queries' coordinates, all dev queries', and the model."""
    module = bench.load("bbtv2")
    lm, task, shots = bench.setting(calls=calls, layers=layers)
    asked: dict[bool, list[Any]] = {True: [], False: []}
    outputs = lm.outputs

    def watched(prompts: Any, texts: Any, *rest: Any) -> Any:
        out = outputs(prompts, texts, *rest)
        asked[texts == shots.train.texts].append(prompts)
        return out

    lm.outputs = watched  # type: ignore[method-assign]
    with contextlib.suppress(BudgetExhausted):
        list(module.tune(lm, task, shots, np.random.default_rng(0), module.Config(dim=10, **options)))
    return asked[True], asked[False], lm


def test_layers_move_one_at_a_time_from_the_bottom_up(bench: Bench) -> None:
    """In query n all candidates agree on every layer but layer n mod L."""
    train, _, _ = queries(bench)
    assert len(train) >= 8
    for n, prompts in enumerate(train):
        assert prompts.z.shape == (20, 3, 10)
        differs = [bool((prompts.z[:, layer] != prompts.z[:1, layer]).any()) for layer in range(3)]
        assert differs == [layer == n % 3 for layer in range(3)]


def test_accepted_prompts_stay_until_the_loss_falls(bench: Bench) -> None:
    """The fixed layers are those of the stack with the lowest loss so far."""
    train, _, lm = queries(bench)
    _, task, shots = bench.setting()
    best, loss = np.zeros((3, 10), dtype=np.float32), np.inf
    for n, prompts in enumerate(train):
        others = [layer for layer in range(3) if layer != n % 3]
        np.testing.assert_array_equal(prompts.z[0, others], best[others])
        q = lm.free.outputs(prompts, shots.train.texts, task.template, task.words).logits
        losses = bench.load("bbtv2").cross_entropy(q, shots.train.labels)
        if losses.min() < loss:
            best, loss = prompts.z[losses.argmin()], losses.min()


@pytest.mark.parametrize("calls", [60, 130, 200])
def test_every_call_is_accounted_for(bench: Bench, calls: int) -> None:
    """Spent rows = candidates x texts, over train and dev."""
    train, dev, lm = queries(bench, calls=calls)
    spent = sum(len(p.z) for p in train) + sum(1 if p is None else len(p.z) for p in dev)
    assert lm.meter.spent == spent * lm.budget.train_rows


def test_without_remainder_only_whole_rounds_are_run(bench: Bench) -> None:
    """The number of rounds is budget // (population * layers), as published."""
    train, _, _ = queries(bench, calls=200, remainder=False)
    assert len(train) == 3 * (200 // (20 * 3))


def test_widths_follow_the_layers(bench: Bench) -> None:
    """Each layer's projection is as wide as its input, times that layer's alpha, over sigma."""
    train, _, lm = queries(bench, alpha=0.5, alpha_deep=0.25, sigma=2.0)
    expected = np.array([0.25, 0.125, 0.125]) * lm.info.hidden_std
    np.testing.assert_allclose(train[0].space.std, expected)
