"""SPSA: the estimate, its convergence, its subspaces, and its price."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, Coordinates, Prompt, cross_entropy, hinge
from harness.solving import Adam

if TYPE_CHECKING:
    from types import ModuleType

    from harness.blackbox.fake import FakeLM

    from .conftest import Bench


@pytest.fixture(scope="module")
def spsa(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("spsa")


def quadratic(size: int) -> tuple[Any, Any]:
    """f(x) = x H x / 2 + b x on (..., size), and its gradient; H is positive definite."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    hessian, b = root @ root.T + np.eye(size), rng.normal(size=size)
    return lambda x: 0.5 * ((x @ hessian) * x).sum(axis=-1) + x @ b, lambda x: hessian @ x + b


@pytest.mark.parametrize("eps", [1e-3, 0.1, 2.0])
def test_estimate_averaged_over_all_signs_is_the_gradient(spsa: ModuleType, eps: float) -> None:
    """On a quadratic, exactly, and for any eps."""
    f, gradient = quadratic(6)
    x = np.arange(6.0)
    u = np.array(list(product([-1.0, 1.0], repeat=6)))  # all directions there are
    np.testing.assert_allclose(spsa.estimate(u, f(x + eps * u), f(x - eps * u), eps), gradient(x), rtol=1e-6)


def test_estimate_by_hand(spsa: ModuleType) -> None:
    """Two directions: derivatives 3 and -1 along (1, 1) and (1, -1) give ((3 - 1) / 2, (3 + 1) / 2)."""
    u = np.array([[1.0, 1.0], [1.0, -1.0]])
    g = spsa.estimate(u, np.array([0.6, -0.2]), np.array([0.0, 0.0]), 0.1)
    np.testing.assert_allclose(g, [1.0, 2.0])


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_estimate_is_unbiased_with_drawn_directions(spsa: ModuleType, distribution: str) -> None:
    """The mean over many directions comes close to the gradient, and E[u u^T] = I."""
    f, gradient = quadratic(5)
    x = np.ones(5)
    u = spsa.draw(np.random.default_rng(0), distribution, (200_000, 5))
    np.testing.assert_allclose(u.T @ u / len(u), np.eye(5), atol=0.02)
    np.testing.assert_allclose(spsa.estimate(u, f(x + 0.1 * u), f(x - 0.1 * u), 0.1), gradient(x), atol=0.1)


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("directions", [1, 5])
def test_search_converges_on_a_quadratic(spsa: ModuleType, directions: int, distribution: str) -> None:
    """Adam on the estimate comes close to the minimum."""
    f, gradient = quadratic(10)
    rng, x = np.random.default_rng(1), 3 * np.ones(10)
    lowest = f(x - np.linalg.solve(np.array([gradient(e) - gradient(0 * e) for e in np.eye(10)]), gradient(x)))
    first, adam = f(x) - lowest, Adam(0.03)
    for _ in range(1500):
        u = spsa.draw(rng, distribution, (directions, 10))
        adam.step([x], [spsa.estimate(u, f(x + 0.1 * u), f(x - 0.1 * u), 0.1)])
    assert f(x) - lowest < 0.01 * first


def queries(bench: Bench, calls: int = 100, **options: Any) -> tuple[list[Any], list[Any], FakeLM]:
    """Prompts of all training queries and of all dev queries, and the model."""
    module = bench.load("spsa")
    lm, task, shots = bench.setting(calls=calls)
    asked: dict[bool, list[Any]] = {True: [], False: []}
    outputs = lm.outputs

    def watched(prompts: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        asked[texts == shots.train.texts].append(prompts)
        return outputs(prompts, texts, *rest, **more)

    lm.outputs = watched  # type: ignore[method-assign]
    list(module.tune(lm, task, shots, np.random.default_rng(0), module.Config(**{"dim": 10, **options})))
    return asked[True], asked[False], lm


def test_a_step_is_one_query_of_mirrored_candidates(bench: Bench) -> None:
    """2n candidates x +- eps u around the present point, which starts at zero."""
    train, _, _ = queries(bench, directions=3, eps=0.25)
    assert all(prompts.z.shape == (6, 1, 10) for prompts in train)
    centres = [(prompts.z[:3] + prompts.z[3:]) / 2 for prompts in train]
    for prompts, centre in zip(train, centres, strict=True):
        np.testing.assert_allclose(centre, np.broadcast_to(centre[:1], centre.shape), atol=1e-6)
        np.testing.assert_allclose(np.abs(prompts.z[:3] - centre), 0.25, atol=1e-6)
    np.testing.assert_array_equal(centres[0], 0)
    assert (centres[1] != 0).all()


@pytest.mark.parametrize(("loss", "function"), [("ce", cross_entropy), ("hinge", hinge)])
def test_steps_follow_the_loss_that_was_asked_for(bench: Bench, spsa: ModuleType, loss: str, function: Any) -> None:
    """Replayed from the queries: the next centre is Adam's step on the estimate away."""
    run = bench.run("spsa", loss=loss)
    n, eps, eta = (getattr(spsa.Config(), name) for name in ("directions", "eps", "eta"))
    x, adam = np.zeros(30), Adam(eta)
    assert len(run.train) > 20
    for prompts in run.train:
        z = prompts.z[:, 0].astype(np.float64)
        np.testing.assert_allclose((z[:n] + z[n:]) / 2, np.tile(x, (n, 1)), atol=1e-5)
        losses = function(run.outputs(prompts, run.shots.train).logits, run.shots.train.labels)
        adam.step([x], [(losses[:n] - losses[n:]) @ (z[:n] - z[n:]) / (4 * eps**2 * n)])


def predicted(calls: int, directions: int, dev_every: int, train: int = 32, dev: int = 32) -> tuple[int, int]:
    """Steps and rows by the README's formula."""
    c, look, k = 2 * directions * train, 2 * dev, max(1, dev_every // (2 * directions))
    left = calls * train - dev
    blocks, left = divmod(left, k * c + look)
    s = max(0, (left - look) // c)
    return blocks * k + s, dev + blocks * (k * c + look) + (s * c + look if s > 0 else 0)


@pytest.mark.parametrize("calls", [1, 2, 3, 13, 24, 100, 104, 105, 299, 300])
@pytest.mark.parametrize(("directions", "dev_every"), [(1, 100), (5, 100), (10, 40), (20, 7)])
def test_budget_is_as_predicted(bench: Bench, calls: int, directions: int, dev_every: int) -> None:
    """The spent rows equal the README's formula. The rest is too small for another step with its look at dev."""
    train, _, lm = queries(bench, calls, directions=directions, dev_every=dev_every)
    steps, rows = predicted(calls, directions, dev_every)
    assert (len(train), lm.meter.spent) == (steps, rows)
    assert lm.budget.calls_left < 2 * directions + 2


def test_dev_is_looked_at_sparingly(bench: Bench) -> None:
    """Every 100 calls the present point and the best candidate are shown, less than a tenth of the budget."""
    train, dev, lm = queries(bench, 300)
    rows = 32 * sum(1 if prompts is None else len(prompts.z) for prompts in dev)
    assert 0 < rows <= 0.1 * lm.budget.rows_total
    assert dev[0] is None
    assert len(dev) == 1 + 3
    best = np.concatenate([prompts.z for prompts in train])
    for look in dev[1:]:
        assert (best == look.z[1]).all(axis=(1, 2)).any()


@pytest.mark.parametrize(
    ("where", "shape"), [("input", (10, 1, 30)), ("deep", (10, 3, 30)), ("prompt", (10, 1, 4, 16))]
)
def test_prompts_are_where_they_are_asked_for(bench: Bench, where: str, shape: tuple[int, ...]) -> None:
    """Coordinates at the input or at all layers with their widths, or values."""
    train, _, lm = queries(bench, 100, where=where, dim=30, alpha=0.5, alpha_deep=0.25, eps=1.0)
    first, std = train[0], lm.info.hidden_std
    if where == "prompt":
        assert isinstance(first, Prompt)
        assert first.values.shape == shape
        np.testing.assert_allclose(np.abs(first.values), 0.5 * std[0], rtol=1e-6)
    else:
        assert isinstance(first, Coordinates)
        assert first.z.shape == shape
        expected = np.array([0.5, 0.25, 0.25])[: shape[1]] * std[: shape[1]]
        np.testing.assert_allclose(first.space.std, expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_final_answer_beats_the_manual_prompt(bench: Bench, classes: int) -> None:
    """The last answer is far above the first, which is the bare template."""
    run = bench.run("spsa", classes=classes)
    assert run.answers[0] == Answer.of(run.task)
    assert run.accuracy(run.answers[0]) < 0.7
    assert run.accuracy(run.answers[-1]) > 0.92
    assert not run.ended_by_budget


@pytest.mark.parametrize(
    "options",
    [
        {"where": "deep"},
        {"where": "deep", "alpha_deep": 1.0},
        {"where": "prompt"},
        {"loss": "hinge"},
        {"distribution": "normal"},
        {"directions": 1},
        {"directions": 10, "eps": 0.3},
        {"dim": 500},
    ],
)
def test_options_work(bench: Bench, options: dict[str, Any]) -> None:
    """Every option's other values beat the manual prompt."""
    run = bench.run("spsa", **options)
    assert run.accuracy(run.answers[-1]) > run.accuracy(run.answers[0]) + 0.2


def test_another_seed_gives_another_answer(bench: Bench) -> None:
    """Seeds reach the subspace and the directions."""
    prompts: list[Any] = [bench.run("spsa", seed=seed).answers[-1].members[0].prompt for seed in (3, 4)]
    first, other = prompts
    assert first.space.seed != other.space.seed
    assert (first.z != other.z).any()
