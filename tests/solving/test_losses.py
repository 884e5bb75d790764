"""Losses against cases computed by hand and against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import softmax
from harness.solving import losses

LOGITS = np.array(
    [[[2.0, 0.0, 1.0], [0.0, 3.0, 2.5]], [[0.0, 0.0, 0.0], [1.0, -1.0, 5.0]]]
)  # (2 candidates, 2 texts, 3)
LABELS = np.array([0, 2])


def test_cross_entropy_is_torchs_mean_cross_entropy_for_each_candidate() -> None:
    expected = [torch.nn.functional.cross_entropy(torch.tensor(q), torch.tensor(LABELS)).item() for q in LOGITS]
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS), expected, rtol=1e-12)


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes() -> None:
    assert losses.cross_entropy(np.zeros((5, 4)), np.arange(5) % 4) == pytest.approx(np.log(4))


def test_hinge_by_hand() -> None:
    """Candidate 0: text 0 has slacks 0 and 1; text 1 has slacks 0 and 2.5. Candidate 1: 2 + 2; 0."""
    np.testing.assert_allclose(losses.hinge(LOGITS, LABELS), [(0 + 1 + 0 + 2.5) / 2, (2 + 2 + 0 + 0) / 2])


def test_hinge_is_zero_when_every_margin_is_kept() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert losses.hinge(logits, np.array([0, 1])) == 0
    assert losses.hinge(logits, np.array([0, 1]), margin=10.0) == pytest.approx(1.0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 5))
def test_hinge_is_the_reference_codes_masked_fill_and_scatter(seed: int, texts: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(texts, classes)) * 3, rng.integers(classes, size=texts)
    q, y = torch.tensor(logits), torch.tensor(labels)[:, None]
    slack = q - q.gather(-1, y) + 2
    slack = slack.masked_fill(slack < 0, 0).scatter(-1, y, 0)
    assert losses.hinge(logits, labels) == pytest.approx(slack.sum().item() / texts, abs=1e-12)


def test_negative_accuracy_gives_a_tie_to_the_first_class() -> None:
    np.testing.assert_array_equal(losses.negative_accuracy(LOGITS, LABELS), [-0.5, -1.0])


def test_negative_log_likelihood_of_a_softmax_is_the_cross_entropy() -> None:
    mixed = softmax(LOGITS)
    np.testing.assert_allclose(
        losses.negative_log_likelihood(mixed, LABELS), losses.cross_entropy(LOGITS, LABELS), rtol=1e-12
    )


def test_a_probability_of_zero_costs_a_finite_loss() -> None:
    assert losses.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))


def test_huge_logits_neither_overflow_nor_warn() -> None:
    logits = np.array([[1e30, 0.0], [0.0, -1e30]], dtype=np.float32)
    np.testing.assert_array_equal(softmax(logits), [[1, 0], [1, 0]])
    assert np.isfinite(losses.cross_entropy(logits, np.array([0, 0])))


def test_losses_are_float64_with_one_number_per_candidate() -> None:
    logits = LOGITS.astype(np.float32)
    for loss in (losses.cross_entropy, losses.hinge, losses.negative_accuracy, losses.negative_log_likelihood):
        value = loss(np.abs(logits), LABELS)
        assert value.shape == (2,)
        assert value.dtype == np.float64
        assert loss(np.abs(logits[0]), LABELS).shape == ()


def test_a_permutation_of_texts_changes_no_loss() -> None:
    order = np.array([1, 0])
    for loss in (losses.cross_entropy, losses.hinge, losses.negative_accuracy):
        np.testing.assert_allclose(loss(LOGITS[:, order], LABELS[order]), loss(LOGITS, LABELS))
