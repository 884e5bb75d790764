"""Classifier heads, against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness import heads
from harness.contract import Head, LinearHead, MlpHead, PrototypeHead

WIDTH = 3
LINEAR = LinearHead(np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([0.5, 0.0]))
MLP = MlpHead(np.full((1, WIDTH), 0.1), np.array([0.2]), np.array([[1.0], [-1.0]]), np.array([0.0, 0.3]))
PROTOTYPE = PrototypeHead(np.eye(2, WIDTH), np.array([[1.0, 0], [0, 1]]), np.array([0.0, 0.25]))


def test_a_linear_head_is_a_matrix_and_a_bias() -> None:
    np.testing.assert_allclose(heads.logits(LINEAR, np.array([[2.0, 3.0, 9.0]])), [[2.5, 3.0]])


def test_an_mlp_head_has_one_tanh_layer() -> None:
    hidden = np.tanh(0.1 * 2 * WIDTH + 0.2)
    np.testing.assert_allclose(heads.logits(MLP, np.full((1, WIDTH), 2.0)), [[hidden, 0.3 - hidden]])


def test_a_prototype_head_measures_distances_on_the_sphere() -> None:
    """(3, 4) becomes (0.6, 0.8): its distances to the two prototypes are sqrt(0.8) and sqrt(0.4)."""
    got = heads.logits(PROTOTYPE, np.array([[3.0, 4.0, 7.0]]))
    np.testing.assert_allclose(got, [[-np.sqrt(0.8), 0.25 - np.sqrt(0.4)]])


def test_a_prototype_head_survives_a_zero_vector() -> None:
    assert np.isfinite(heads.logits(PROTOTYPE, np.zeros((1, WIDTH)))).all()


@pytest.mark.parametrize("head", [LINEAR, MLP, PROTOTYPE])
def test_leading_axes_are_kept(head: Head) -> None:
    h = np.random.default_rng(0).standard_normal((4, 5, WIDTH))
    one_by_one = [[heads.logits(head, h[i, j][None])[0] for j in range(5)] for i in range(4)]
    np.testing.assert_allclose(heads.logits(head, h), one_by_one)


@pytest.mark.parametrize("head", [LINEAR, MLP, PROTOTYPE])
def test_a_head_fits_its_own_task_and_no_other(head: Head) -> None:
    assert heads.problem(head, 2, WIDTH) is None
    assert "expected" in str(heads.problem(head, 3, WIDTH))
    assert "expected" in str(heads.problem(head, 2, WIDTH + 1))


def test_an_empty_head_is_refused() -> None:
    empty = MlpHead(np.zeros((0, WIDTH)), np.zeros(0), np.zeros((2, 0)), np.zeros(2))
    assert "mlp head" in str(heads.problem(empty, 2, WIDTH))


def test_no_head_is_no_problem() -> None:
    assert heads.problem(None, 2, WIDTH) is None
