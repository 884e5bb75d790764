"""BBTv2's divide and conquer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Coordinates, cross_entropy

if TYPE_CHECKING:
    from .conftest import Bench, Run


def short(bench: Bench, calls: int = 200, **options: Any) -> Run:
    """A run on three layers with a dimension of 10."""
    return bench.run("bbtv2", calls=calls, dim=10, **options)


def test_layers_move_one_at_a_time_from_the_bottom_up(bench: Bench) -> None:
    """In query n all candidates agree on every layer but layer n mod L."""
    train = short(bench).train
    assert len(train) >= 8
    for n, prompts in enumerate(train):
        assert prompts.z.shape == (20, 3, 10)
        differs = [bool((prompts.z[:, layer] != prompts.z[:1, layer]).any()) for layer in range(3)]
        assert differs == [layer == n % 3 for layer in range(3)]


def test_accepted_prompts_stay_until_the_loss_falls(bench: Bench) -> None:
    """The fixed layers are those of the stack with the lowest loss so far."""
    run = short(bench)
    best, loss = np.zeros((3, 10), dtype=np.float32), np.inf
    for n, prompts in enumerate(run.train):
        others = [layer for layer in range(3) if layer != n % 3]
        np.testing.assert_array_equal(prompts.z[0, others], best[others])
        losses = cross_entropy(run.outputs(prompts, run.shots.train).logits, run.shots.train.labels)
        if losses.min() < loss:
            best, loss = prompts.z[losses.argmin()], losses.min()


@pytest.mark.parametrize("calls", [60, 130, 200])
def test_every_call_is_accounted_for(bench: Bench, calls: int) -> None:
    """Spent rows = candidates x texts, over train and dev."""
    run = short(bench, calls=calls)
    spent = sum(1 if p is None else len(p.z) for p in run.train + run.dev)
    assert run.lm.meter.spent == spent * run.lm.budget.train_rows


def test_without_remainder_only_whole_rounds_are_run(bench: Bench) -> None:
    """The number of rounds is budget // (population * layers), as published."""
    run = short(bench, remainder=False)
    assert len(run.train) == 3 * (200 // (20 * 3))
    assert not run.ended_by_budget


def test_widths_follow_the_layers(bench: Bench) -> None:
    """Each layer's projection is as wide as its input, times that layer's alpha, over sigma."""
    run = short(bench, alpha=0.5, alpha_deep=0.25, sigma=2.0)
    expected = np.array([0.25, 0.125, 0.125]) * run.lm.info.hidden_std
    np.testing.assert_allclose(run.train[0].space.std, expected)


def test_widths_of_the_published_code(bench: Bench) -> None:
    """The word embeddings' at the input, each layer's, clipped, above it; 1 everywhere for the uniform projection."""
    run = short(bench, calls=20, width_from="embedding", selection="faithful")
    info = run.lm.info
    np.testing.assert_allclose(
        run.train[0].space.std, [info.embedding_std, *(0.2 * np.array(info.hidden_std_clipped[1:]))]
    )
    run = short(bench, calls=20, width_from="unit", projection="uniform", selection="faithful")
    assert run.train[0].space.std == (1.0, 0.2, 0.2)
    assert run.train[0].space.distribution == "uniform"


def test_best_replaces_by_the_loss_it_had_under_earlier_stacks(bench: Bench) -> None:
    """With accept=best, each layer holds its own best ever sample, whatever the others have become since."""
    run = short(bench, accept="best")
    best, losses_of = np.zeros((3, 10), dtype=np.float32), np.full(3, np.inf)
    for n, prompts in enumerate(run.train):
        others = [layer for layer in range(3) if layer != n % 3]
        np.testing.assert_array_equal(prompts.z[0, others], best[others])
        losses = cross_entropy(run.outputs(prompts, run.shots.train).logits, run.shots.train.labels)
        if losses.min() < losses_of[n % 3]:
            best[n % 3], losses_of[n % 3] = prompts.z[losses.argmin(), n % 3], losses.min()


@pytest.mark.parametrize("name", ["bbt", "bbtv2"])
def test_faithful_selection_shows_dev_the_last_sample_in_place(bench: Bench, name: str) -> None:
    """Of every fifth generation, and nothing else: not the bare template, not at the end of the budget."""
    run = bench.run(name, calls=339, selection="faithful")
    assert len(run.train) == 16  # 3 looks, one call each, leave 336 calls
    assert len(run.dev) == 3
    for look, generation in zip(run.dev, run.train[4::5], strict=True):
        np.testing.assert_array_equal(look.z, generation.z[-1:])


@pytest.mark.parametrize("name", ["bbt", "bbtv2"])
def test_faithful_selection_is_strict_and_starts_at_zero(bench: Bench, name: str) -> None:
    """The answers are the looks whose metric exceeds 0 and all before."""
    run = bench.run(name, calls=600, selection="faithful")
    best, kept = 0.0, []
    for look in run.dev:
        q = run.outputs(look, run.shots.dev).logits
        metric = float((q[0].argmax(axis=-1) == run.shots.dev.labels).mean())
        if metric > best:
            best = metric
            kept.append((look.z.tolist(), metric))
    assert 2 <= len(kept) < len(run.dev)
    answers = [(a.members[0].prompt, a.note["dev"]) for a in run.answers[1:]]
    assert kept == [(prompt.z.tolist(), metric) for prompt, metric in answers if isinstance(prompt, Coordinates)]


@pytest.mark.parametrize("name", ["bbt", "bbtv2"])
def test_faithful_selection_is_by_the_metric(bench: Bench, name: str) -> None:
    """The published rule knows no loss."""
    with pytest.raises(ValueError, match="select='loss'"):
        bench.load(name).Config(selection="faithful", select="loss")
