"""Metrics against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from harness.contract import Metric
from harness.solving import metrics


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 14))
def test_the_metrics_agree_with_scikit_learn(seed: int, texts: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(classes, size=(2, texts))
    f1 = f1_score(labels, predicted, labels=range(classes), average="macro", zero_division=0)
    assert metrics.macro_f1(predicted, labels, classes) == pytest.approx(f1)
    assert metrics.accuracy(predicted, labels) == pytest.approx(accuracy_score(labels, predicted))
    of_class_1 = f1_score(labels, predicted, labels=[1], average="macro", zero_division=0)
    assert metrics.f1(predicted, labels) == pytest.approx(of_class_1)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 14), st.sampled_from(["accuracy", "macro_f1", "f1"])
)
def test_a_cells_score_is_the_vectorised_one(seed: int, texts: int, classes: int, metric: Metric) -> None:
    """The one by scikit-learn, the other in numpy for many predictions at once; classes may be lacking in either."""
    rng = np.random.default_rng(seed)
    present = rng.integers(1, classes + 1)
    predicted, labels = rng.integers(classes, size=(5, texts)), rng.integers(present, size=texts)
    at_once = metrics.score(metric, predicted, labels, classes)
    assert [metrics.cell_score(metric, one, labels, classes) for one in predicted] == pytest.approx(at_once.tolist())


def test_a_cell_of_another_size_than_its_labels_has_no_score() -> None:
    with pytest.raises(ValueError, match="inconsistent"):
        metrics.cell_score("accuracy", np.array([0, 1]), np.array([0, 1, 1]), 2)


def test_a_class_in_neither_labels_nor_predictions_counts_zero() -> None:
    assert metrics.macro_f1(np.array([0, 1]), np.array([0, 1]), 4) == 0.5


def test_leading_axes_are_scored_one_by_one() -> None:
    predicted, labels = np.array([[0, 1, 1, 0], [0, 0, 0, 0]]), np.array([0, 1, 0, 1])
    np.testing.assert_allclose(metrics.accuracy(predicted, labels), [0.5, 0.5])
    np.testing.assert_allclose(metrics.macro_f1(predicted, labels, 2), [0.5, 1 / 3])
    np.testing.assert_allclose(metrics.f1(predicted, labels), [0.5, 0])


def test_score_applies_the_metric_named() -> None:
    predicted, labels = np.array([0, 0, 0]), np.array([0, 0, 1])
    assert metrics.score("accuracy", predicted, labels, 2) == pytest.approx(2 / 3)
    assert metrics.score("macro_f1", predicted, labels, 2) == pytest.approx(0.4)
    assert metrics.score("f1", predicted, labels, 2) == 0
    assert metrics.score("f1", 1 - predicted, labels, 2) == 0.5


def test_majority_prediction_is_the_most_frequent_label_the_smallest_in_a_tie() -> None:
    np.testing.assert_array_equal(metrics.majority_prediction(np.array([2, 1, 2])), [2, 2, 2])
    np.testing.assert_array_equal(metrics.majority_prediction(np.array([3, 1, 1, 3])), [1, 1, 1, 1])


def test_a_failed_cell_is_the_majority_class_or_nothing_of_class_1() -> None:
    """By F1 of class 1, saying 1 everywhere would score 6/7 where three of four are 1."""
    labels = np.array([1, 0, 1, 1])
    np.testing.assert_array_equal(metrics.failed_prediction("accuracy", labels), [1, 1, 1, 1])
    np.testing.assert_array_equal(metrics.failed_prediction("macro_f1", labels), [1, 1, 1, 1])
    np.testing.assert_array_equal(metrics.failed_prediction("f1", labels), [0, 0, 0, 0])
    assert metrics.f1(np.ones(4, dtype=np.int64), labels) == pytest.approx(6 / 7)
    assert metrics.score("f1", metrics.failed_prediction("f1", labels), labels, 2) == 0
