"""AJO's formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Outputs, negative_log_likelihood, softmax

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench


@pytest.fixture(scope="module")
def ajo(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("ajo")


def test_calibration_makes_the_mean_logits_equal(ajo: ModuleType) -> None:
    """W q_mean = lambda 1, lambda = mean of q_mean."""
    q = np.random.default_rng(0).normal(5, 1, size=(16, 4))
    w = ajo.calibrate(q, faithful=True)
    np.testing.assert_allclose(w.scale * q.mean(axis=0), np.full(4, q.mean()))
    np.testing.assert_array_equal(w.shift, np.zeros(4))


def test_calibration_by_hand_for_two_classes(ajo: ModuleType) -> None:
    """q_mean = (2, 6): lambda = 4, W = diag(2, 2/3)."""
    np.testing.assert_allclose(ajo.faithful_scale(np.array([2.0, 6.0])), [2, 2 / 3])


@pytest.mark.parametrize("faithful", [False, True])
def test_balanced_logits_are_left_alone(ajo: ModuleType, faithful: bool) -> None:
    """Equal class means give the identity."""
    q = np.array([[1.0, 3.0], [3.0, 1.0]])
    w = ajo.calibrate(q, faithful=faithful)
    np.testing.assert_allclose(w.scale, 1)
    np.testing.assert_allclose(w.shift, 0, atol=1e-12)


@pytest.mark.parametrize("mean", [(-1.0, 3.0), (0.0, 2.0), (1.0, 5.1), (-2.0, -3.0)])
def test_unsafe_means_fall_back_to_a_shift(ajo: ModuleType, mean: tuple[float, float]) -> None:
    """Negative, vanishing or very unequal means would flip or explode a class: they are moved together instead."""
    assert ajo.faithful_scale(np.array(mean)) is None
    w = ajo.calibrate(np.array([mean, mean]), faithful=True)
    np.testing.assert_array_equal(w.scale, 1)
    np.testing.assert_allclose(w.shift + mean, np.mean(mean))
    assert w.fallback


@pytest.mark.parametrize("mean", [(1.0, 5.0), (0.5, 0.5), (2.0, 3.0, 9.9)])
def test_the_guard_lets_safe_means_pass(ajo: ModuleType, mean: tuple[float, ...]) -> None:
    """Up to five times the least, and none below a tenth of the mean magnitude."""
    w = ajo.calibrate(np.array([mean]), faithful=True)
    assert not w.fallback
    np.testing.assert_allclose(w.scale * mean, np.mean(mean))


def test_a_fallback_is_noted_in_every_calibrated_answer(ajo: ModuleType, bench: Bench) -> None:
    """The fake's mean logits at the zero prompt do not pass the guard; the additive form needs none."""
    run = bench.run("ajo", calibrate="faithful", calls=120)
    expected = [1.0 if any(answer.members[0].shift or ()) else None for answer in run.answers]
    assert set(expected) == {1.0, None}
    assert [answer.note.get("calibration_fallback") for answer in run.answers] == expected
    assert all("calibration_fallback" not in answer.note for answer in bench.run("ajo", calls=120).answers)


def test_safe_shift_divides_by_the_mean_probability(ajo: ModuleType) -> None:
    """softmax(q + shift) is softmax(q) / p_mean, normalised (Zhao et al. 2021), and ignores a constant in q."""
    q = np.random.default_rng(1).normal(0, 2, size=(32, 3)) + np.array([2.0, 0.0, -1.0])
    p = softmax(q)
    expected = p / p.mean(axis=0)
    shift = ajo.safe_shift(q)
    np.testing.assert_allclose(softmax(q + shift), expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ajo.safe_shift(q + 7.0), shift, atol=1e-9)
    assert shift.sum() == pytest.approx(0)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_head_gradient_is_that_of_the_joint_loss(ajo: ModuleType, alpha: float) -> None:
    """Against central differences."""
    rng = np.random.default_rng(2)
    h, q, labels = rng.normal(size=(6, 5)), rng.normal(size=(6, 3)), rng.integers(3, size=6)
    head = ajo.Head(rng.normal(size=(3, 5)), rng.normal(size=3))
    p1 = softmax(q)

    def loss() -> float:
        return float(negative_log_likelihood((1 - alpha) * p1 + alpha * head.probabilities(h), labels))

    for parameter, gradient in zip(
        (head.weight, head.bias), ajo.head_gradient(head, h, p1, labels, alpha), strict=True
    ):
        for index in np.ndindex(parameter.shape):
            kept = parameter[index]
            values = []
            for step in (1e-5, -1e-5):
                parameter[index] = kept + step
                values.append(loss())
            parameter[index] = kept
            assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-7)


def test_a_new_head_says_nothing(ajo: ModuleType) -> None:
    """At zero weights p2 is uniform, so the mixture's argmax is that of the calibrated logits."""
    rng = np.random.default_rng(3)
    outs = Outputs(rng.normal(size=(2, 7, 3)), rng.normal(size=(2, 7, 5)))
    w = ajo.Calibration(np.ones(3), np.zeros(3))
    head = ajo.Head(np.zeros((3, 5)), np.zeros(3))
    p = ajo.mixture(outs, w, head, 0.5)
    np.testing.assert_allclose(p, 0.5 * softmax(outs.logits) + 0.5 / 3)


def test_training_the_head_lowers_the_joint_loss(ajo: ModuleType, bench: Bench) -> None:
    """And asks the model nothing."""
    lm, task, shots = bench.setting()
    outs = lm.free.outputs(None, shots.train.texts, task.template, task.words)
    w = ajo.calibrate(outs.logits[0], faithful=False)
    head = ajo.Head(np.zeros((2, lm.info.width)), np.zeros(2))
    losses = []
    for _ in range(4):
        losses.append(float(negative_log_likelihood(ajo.mixture(outs, w, head, 0.5), shots.train.labels)[0]))
        ajo.train_head(head, outs, w, shots.train, np.random.default_rng(0), ajo.Config(), lm.info.width)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.05
    assert lm.meter.spent == 0


@pytest.mark.parametrize("joint", [False, True])
def test_without_joint_the_head_is_trained_by_itself(ajo: ModuleType, bench: Bench, joint: bool) -> None:
    """Whatever the label words say; with it they take their share of every text."""
    lm, task, shots = bench.setting()
    outs = lm.free.outputs(None, shots.train.texts, task.template, task.words)
    weights = []
    for scale in (1.0, 5.0):
        w, head = ajo.Calibration(np.full(2, scale), np.zeros(2)), ajo.Head(np.zeros((2, lm.info.width)), np.zeros(2))
        ajo.train_head(head, outs, w, shots.train, np.random.default_rng(0), ajo.Config(joint=joint), lm.info.width)
        weights.append(head.weight)
    assert np.array_equal(*weights) == (not joint)


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(3, 16, 6), (1, 16, 2), (2, 5, 14), (4, 100, 4)])
def test_every_epoch_shows_the_head_all_texts(
    ajo: ModuleType, bench: Bench, epochs: int, batch: int, steps: int
) -> None:
    """32 of them, batch by batch."""
    lm, task, shots = bench.setting()
    outs = lm.free.outputs(None, shots.train.texts, task.template, task.words)
    w, head = ajo.Calibration(np.ones(2), np.zeros(2)), ajo.Head(np.zeros((2, lm.info.width)), np.zeros(2))
    config = ajo.Config(epochs=epochs, batch=batch)
    ajo.train_head(head, outs, w, shots.train, np.random.default_rng(0), config, lm.info.width)
    assert head.steps == steps


@pytest.mark.parametrize(
    "options", [{}, {"joint": False}, {"head": False}, {"head_every": "layer"}, {"epochs": 1, "alpha": 0.25}], ids=str
)
def test_layers_change_when_the_loss_falls_under_the_present_head(
    ajo: ModuleType, bench: Bench, options: dict[str, Any]
) -> None:
    """Replayed from the queries: when the head is trained and on what, what the search is told, and what it keeps.

    One batch holds all texts, so that their order in it does not matter.
    """
    config = ajo.Config(batch=32, eta=3e-3, **options)
    run = bench.run("ajo", dim=10, calls=400, batch=32, eta=3e-3, **options)
    train, width = run.shots.train, run.lm.info.width
    start, *generations = run.train
    best, current = start.z[0], run.outputs(start, train)
    np.testing.assert_array_equal(best, 0)
    w, head = ajo.calibrate(current.logits[0], faithful=False), ajo.Head(np.zeros((2, width)), np.zeros(2))
    alpha = config.alpha if config.head and config.joint else 0.0
    kept = []
    for n, (prompts, told) in enumerate(zip(generations, run.told, strict=True)):
        layer = n % 3
        if config.head and (layer == 0 or config.head_every == "layer"):
            ajo.train_head(head, current, w, train, np.random.default_rng(0), config, width)
        expected = np.repeat(best[None], 20, axis=0)
        expected[:, layer] = prompts.z[:, layer]
        np.testing.assert_array_equal(prompts.z, expected)
        outs = run.outputs(prompts, train)
        losses = negative_log_likelihood(ajo.mixture(outs, w, head, alpha), train.labels)
        np.testing.assert_allclose(told.losses, losses, rtol=1e-6)
        k = int(losses.argmin())
        kept.append(losses[k] < negative_log_likelihood(ajo.mixture(current, w, head, alpha), train.labels)[0])
        if kept[-1]:
            best, current = prompts.z[k], Outputs(outs.logits[k : k + 1], outs.features[k : k + 1])
    assert len(set(kept)) == 2


@pytest.mark.parametrize("joint", [True, False])
def test_dev_and_the_referee_see_the_same_classifier(bench: Bench, joint: bool) -> None:
    """The dev score in the note is the one that applying the answer gives."""
    run = bench.run("ajo", joint=joint)
    for answer in run.answers[1:]:
        assert replace(run, test=run.shots.dev).accuracy(answer) == answer.note["dev"]


@pytest.mark.parametrize(
    ("options", "alpha"), [({}, 0.5), ({"joint": False}, 0.5), ({"head": False}, 0.0), ({"alpha": 0.25}, 0.25)]
)
def test_answers_carry_calibration_and_head(bench: Bench, options: dict[str, Any], alpha: float) -> None:
    """The last answer holds prompts, W, the head and its weight."""
    member = bench.run("ajo", **options).answers[-1].members[0]
    assert member.prompt is not None
    assert member.shift is not None
    assert any(member.shift)
    assert member.alpha == alpha
    assert (member.head is not None) == (alpha > 0)
