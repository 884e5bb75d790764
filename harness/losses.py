"""Losses on label-word logits, pure numpy. Each is a mean over the texts.

``logits  # (..., texts, classes)`` and ``labels  # (texts,)`` give ``loss  # (...)``: one per candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from harness.contract import FloatArray, IntArray


def log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Log-probabilities over the last axis, in float64."""
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)), dtype=np.float64)


def softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    return np.exp(log_softmax(logits))


def _of_label(values: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Pick each text's value at its own label: (..., texts)."""
    index = np.broadcast_to(np.asarray(labels)[:, None], (*values.shape[:-1], 1))
    return np.asarray(np.take_along_axis(values, index, axis=-1)[..., 0], dtype=np.float64)


def cross_entropy(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """-mean log softmax(q)_y over the label words (BBT, Sun et al. 2022, section 3.2)."""
    return np.asarray(-_of_label(log_softmax(logits), labels).mean(axis=-1))


def negative_log_likelihood(probabilities: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """-mean log p_y for probabilities that were mixed before (AJO); p is clipped at 1e-12."""
    picked = _of_label(np.asarray(probabilities, dtype=np.float64), labels)
    return np.asarray(-np.log(np.maximum(picked, 1e-12)).mean(axis=-1))


def hinge(logits: FloatArray, labels: IntArray, margin: float = 2.0) -> npt.NDArray[np.float64]:
    """Mean over texts of sum over k != y of max(0, q_k - q_y + margin) (BBT's code, margin 2)."""
    q = np.asarray(logits, dtype=np.float64)
    slack = np.maximum(q - _of_label(q, labels)[..., None] + margin, 0.0)
    return np.asarray((slack.sum(axis=-1) - margin).mean(axis=-1))  # k = y always contributes the margin


def negative_accuracy(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Minus the share of texts whose largest logit is at the label (first wins a tie)."""
    return np.asarray(-(np.argmax(logits, axis=-1) == labels).mean(axis=-1), dtype=np.float64)
