"""Calibrations of label-word logits, against cases computed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness import Member, Outputs, Task
from harness.solving import Calibration, additive_shift, softmax

if TYPE_CHECKING:
    from collections.abc import Callable


def test_multiplicative_calibration_makes_the_mean_logits_equal() -> None:
    """W q_mean = lambda 1, lambda = mean of q_mean."""
    q = np.random.default_rng(0).normal(5, 1, size=(16, 4))
    w = Calibration.multiplicative(q)
    np.testing.assert_allclose(w(q).mean(axis=0), np.full(4, q.mean()))
    assert w.shift == (0.0,) * 4
    assert not w.fallback


def test_multiplicative_calibration_by_hand_for_two_classes() -> None:
    """q_mean = (2, 6): lambda = 4, W = diag(2, 2/3)."""
    np.testing.assert_allclose(Calibration.multiplicative(np.array([[1.0, 4.0], [3.0, 8.0]])).scale, [2, 2 / 3])


@pytest.mark.parametrize("calibrate", [Calibration.additive, Calibration.multiplicative, Calibration.identity])
def test_balanced_logits_are_left_alone(calibrate: Callable[[np.ndarray], Calibration]) -> None:
    """Equal class means give the identity."""
    w = calibrate(np.array([[1.0, 3.0], [3.0, 1.0]]))
    np.testing.assert_allclose(w.scale, 1)
    np.testing.assert_allclose(w.shift, 0, atol=1e-12)


@pytest.mark.parametrize("mean", [(-1.0, 3.0), (0.0, 2.0), (0.0, 0.0), (1.0, 5.1), (-2.0, -3.0), (0.1, 5.0)])
def test_unsafe_means_are_moved_together_instead(mean: tuple[float, float]) -> None:
    """Negative, vanishing or very unequal means would flip or explode a class."""
    w = Calibration.multiplicative(np.array([mean, mean]))
    assert w.scale == (1.0, 1.0)
    np.testing.assert_allclose(np.array(w.shift) + mean, np.mean(mean))
    assert w.fallback


@pytest.mark.parametrize("mean", [(1.0, 5.0), (0.5, 0.5), (2.0, 3.0, 9.9)])
def test_the_guard_lets_safe_means_pass(mean: tuple[float, ...]) -> None:
    """Up to five times the least, and none below a tenth of the mean magnitude."""
    w = Calibration.multiplicative(np.array([mean]))
    assert not w.fallback
    np.testing.assert_allclose(np.array(w.scale) * mean, np.mean(mean))


def test_the_largest_ratio_of_two_means_is_an_argument() -> None:
    """Without one, the means need only be clearly positive."""
    q = np.array([[1.0, 7.0]])
    assert Calibration.multiplicative(q).fallback
    assert not Calibration.multiplicative(q, most=np.inf).fallback
    assert Calibration.multiplicative(np.array([[0.1, 5.0]]), most=np.inf).fallback


def test_additive_calibration_divides_by_the_mean_probability() -> None:
    """softmax(q + shift) is softmax(q) / p_mean, normalised (Zhao et al. 2021), and ignores a constant in q."""
    q = np.random.default_rng(1).normal(0, 2, size=(32, 3)) + np.array([2.0, 0.0, -1.0])
    expected = softmax(q) / softmax(q).mean(axis=0)
    w = Calibration.additive(q)
    np.testing.assert_allclose(softmax(w(q)), expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(Calibration.additive(q + 7.0).shift, w.shift, atol=1e-9)
    assert sum(w.shift) == pytest.approx(0)


def test_additive_shift_by_hand() -> None:
    """For two classes of constant logits (log 3, 0): p = (3/4, 1/4), so the shift is (-log 3, log 3) / 2."""
    c = additive_shift(np.tile([np.log(3.0), 0.0], (5, 1)))
    np.testing.assert_allclose(c, [-np.log(3) / 2, np.log(3) / 2])


def test_a_class_that_is_never_said_is_shifted_by_a_bounded_amount() -> None:
    """A mean probability below 1e-4 counts as that."""
    c = additive_shift(np.array([[0.0, -100.0]]))
    np.testing.assert_allclose(c, [np.log(1e-4) / 2, -np.log(1e-4) / 2])


def test_each_candidate_has_its_own_shift() -> None:
    q = np.random.default_rng(2).normal(size=(3, 8, 4))
    np.testing.assert_allclose(additive_shift(q), [additive_shift(one) for one in q])


def test_a_member_applies_a_calibration_as_it_says() -> None:
    """And a weight multiplies the calibrated logits."""
    task = Task("toy", ("a", "b"), "accuracy", "{a} {mask}", (" x", " y"))
    q = np.random.default_rng(3).normal(4, 1, size=(1, 6, 2))
    for w in (Calibration.additive(q[0]), Calibration.multiplicative(q[0])):
        p = Member.of(task, None, w.scale, w.shift).probabilities(Outputs(q, np.zeros((1, 6, 3))))
        np.testing.assert_allclose(p, softmax(w(q)))
        np.testing.assert_allclose(w.times(0.25)(q), 0.25 * w(q))
