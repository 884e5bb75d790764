"""Classifier heads, against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.contract import heads
from harness.contract.heads import BiLstmHead, Head, LinearHead, MlpHead, PrototypeHead

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


@pytest.mark.parametrize("head", [LINEAR, MLP, PROTOTYPE, pytest.param("bilstm", id="bilstm")])
def test_a_head_fits_its_own_task_and_no_other(head: Head | str) -> None:
    head = bilstm(4) if isinstance(head, str) else head
    assert heads.problem(head, 2, WIDTH) is None
    assert "expected" in str(heads.problem(head, 3, WIDTH))
    assert "expected" in str(heads.problem(head, 2, WIDTH + 1))


def bilstm(units: int, width: int = WIDTH, seed: int = 0) -> BiLstmHead:
    draw = np.random.default_rng(seed).standard_normal
    shapes = (2, 4 * units, width), (2, 4 * units, units), (2, 4 * units), (2, 2 * units), (2,)
    return BiLstmHead(*(draw(shape).astype(np.float32) for shape in shapes))


def test_one_step_of_an_lstm_by_hand() -> None:
    """Gates i, f, g, o of one unit from x = 2: sigmoid(1), sigmoid(9), tanh(-1), sigmoid(0); both directions."""
    wx = np.tile(np.array([[0.5], [4.5], [-0.5], [0.0]]), (2, 1, 1))
    head = BiLstmHead(wx, np.ones((2, 4, 1)), np.zeros((2, 4)), np.array([[1.0, 0], [0, 2]]), np.array([0.0, 0.5]))
    h = 0.5 * np.tanh(1 / (1 + np.exp(-1)) * np.tanh(-1))
    got = heads.logits(head, np.full((1, 1, 1), 2.0), np.array([1]))
    np.testing.assert_allclose(got, [[h, 2 * h + 0.5]])


def test_a_bilstm_head_is_pytorchs_lstm_on_packed_texts() -> None:
    import torch

    head, lengths = bilstm(4), np.array([5, 1, 3])
    x = np.random.default_rng(1).standard_normal((3, 5, WIDTH)).astype(np.float32)
    lstm = torch.nn.LSTM(WIDTH, 4, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for d, suffix in enumerate(("", "_reverse")):
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(torch.tensor(head.wx[d]))
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(torch.tensor(head.wh[d]))
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(torch.tensor(head.b[d]))
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch.tensor(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        _, (last, _) = lstm(packed)
    wanted = torch.cat([last[0], last[1]], dim=-1).numpy() @ head.weight.T + head.bias
    np.testing.assert_allclose(heads.logits(head, x, lengths), wanted, atol=1e-5)


def test_a_bilstm_head_needs_the_lengths_and_does_not_look_behind_them() -> None:
    head, x = bilstm(2), np.random.default_rng(2).standard_normal((2, 4, WIDTH))
    wanted = heads.logits(head, x, np.array([2, 4]))
    x[0, 2:] = 1e3
    np.testing.assert_array_equal(heads.logits(head, x, np.array([2, 4])), wanted)
    with pytest.raises(ValueError, match="lengths"):
        heads.logits(head, x)


def test_an_empty_head_is_refused() -> None:
    empty = MlpHead(np.zeros((0, WIDTH)), np.zeros(0), np.zeros((2, 0)), np.zeros(2))
    assert "mlp head" in str(heads.problem(empty, 2, WIDTH))


def test_no_head_is_no_problem() -> None:
    assert heads.problem(None, 2, WIDTH) is None


def test_a_bilstm_head_of_any_size_is_applied_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head with many gates reads only some texts at a time."""
    head, rng = bilstm(4), np.random.default_rng(3)
    x, lengths = rng.standard_normal((7, 5, WIDTH)), rng.integers(1, 6, size=7)
    whole = heads.logits(head, x, lengths)
    monkeypatch.setattr(heads, "_GATES", 2 * 5 * 16)
    np.testing.assert_allclose(heads.logits(head, x, lengths), whole, atol=1e-12)
    monkeypatch.setattr(heads, "_GATES", 1)
    np.testing.assert_allclose(heads.logits(head, x, lengths), whole, atol=1e-12)
