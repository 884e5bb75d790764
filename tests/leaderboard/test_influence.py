"""Influences: against the metric with an item's weight raised, and as the variance of a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.leaderboard.influence import influences
from harness.solving.metrics import score

if TYPE_CHECKING:
    from harness.contract import Metric

METRICS: list[Metric] = ["accuracy", "macro_f1", "f1"]


def test_accuracy_by_hand() -> None:
    """Right, right, wrong, wrong: half, and half a point from it each."""
    scores, found = influences("accuracy", np.array([[1, 0, 0, 1]]), np.array([1, 0, 1, 0]), 2)
    assert scores.tolist() == [0.5]
    assert found.tolist() == [[0.5, 0.5, -0.5, -0.5]]


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 14))
@settings(max_examples=30, deadline=None)
def test_an_influence_is_what_more_of_an_item_does(metric: Metric, seed: int, classes: int) -> None:
    """The set 2,000 times over with one item once more; a class that is in neither weighs nothing."""
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(classes, size=12), rng.integers(classes, size=(3, 12))
    scores, found = influences(metric, predicted, labels, classes)
    np.testing.assert_allclose(scores, score(metric, predicted, labels, classes), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    more = np.concatenate([np.tile(np.arange(12), 2_000), [5]])
    raised = score(metric, predicted[:, more], labels[more], classes)
    np.testing.assert_allclose((raised - scores) * len(more), found[:, 5], atol=5e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_the_squares_of_influences_are_the_variance_of_a_score(metric: Metric) -> None:
    """Over 4,000 fresh test sets of 300 items, to a tenth."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=(4_000, 300), p=[0.5, 0.3, 0.2])
    predicted = np.where(rng.random(labels.shape) < 0.7, labels, rng.integers(3, size=labels.shape))
    each = [influences(metric, said[None], true, 3) for said, true in zip(predicted, labels, strict=True)]
    expected = np.var([scores[0] for scores, _ in each])
    claimed = np.mean([(found**2).sum() / (300 * 299) for _, found in each])
    assert claimed == pytest.approx(expected, rel=0.1)
