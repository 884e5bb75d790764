"""Scores of predicted labels: accuracy and macro-F1, pure numpy, vectorised over leading axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from harness.contract import IntArray, Metric


def accuracy(predicted: IntArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Share of equal labels: (..., texts) and (texts,) -> (...)."""
    return np.asarray((np.asarray(predicted) == np.asarray(labels)).mean(axis=-1), dtype=np.float64)


def macro_f1(predicted: IntArray, labels: IntArray, classes: int) -> npt.NDArray[np.float64]:
    """Unweighted mean over classes of F1 = 2 TP / (predicted + true); a class in neither counts 0."""
    k = np.arange(classes)
    says = np.asarray(predicted)[..., None] == k  # (..., texts, classes)
    is_ = np.asarray(labels)[..., None] == k
    hits = (says & is_).sum(axis=-2)
    total = says.sum(axis=-2) + is_.sum(axis=-2)
    f1 = np.divide(2.0 * hits, total, out=np.zeros(hits.shape), where=total > 0)
    return np.asarray(f1.mean(axis=-1), dtype=np.float64)


def score(metric: Metric, predicted: IntArray, labels: IntArray, classes: int) -> npt.NDArray[np.float64]:
    """Apply the task's metric."""
    return accuracy(predicted, labels) if metric == "accuracy" else macro_f1(predicted, labels, classes)


def majority_prediction(labels: IntArray) -> IntArray:
    """Predict the most frequent label everywhere (smallest wins a tie): what a failed cell is ranked as."""
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    return np.full(len(labels), values[np.argmax(counts)], dtype=np.int64)
