"""Influence functions of the metrics: the contribution of each test item to a score. Pure numpy.

The influence of item i on a metric T is how much T changes, per unit of weight, when the item's weight grows. The
influences of a test set of n items sum to 0, and the variance of T over test sets of that size is, to first order,

    Var(T) = sum_i psi_i^2 / (n (n - 1))

(the infinitesimal jackknife; Efron 1982, *The Jackknife, the Bootstrap and Other Resampling Plans*, chapter 6). For
accuracy it is exact. F1 of class k is 2 TP / (predicted + true), a ratio of two means, so that

    psi_i = (2 tp_i - F1_k (predicted_i + true_i)) / mean(predicted + true),

and macro-F1 has the mean of these over classes. Influences are linear: the influence on a mean of scores is the mean of
their influences. So differences between systems stay paired item by item.

The score of a text task is a mean over its texts, so that psi_i is a text's score less the mean, which is exact.

Each influence of the others depends only on an item's true and predicted class, so it is looked up in a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.solving.metrics import TEXT_SCALE, is_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.contract import IntArray, Metric


def influences(
    metric: Metric, predicted: IntArray, labels: IntArray, classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The metric with the influence of each item on it.

    Args:
        metric: `Task.metric`.
        predicted: (systems, items), class numbers.
        labels: (items,).
        classes: their number.

    Returns:
        Scores (systems,) and influences (systems, items).
    """
    if is_text(metric):
        each = predicted / TEXT_SCALE
        scores = each.mean(axis=1)
        return scores, each - scores[:, None]
    systems, items = predicted.shape
    kinds = classes * classes
    pairs = labels.astype(np.int64) * classes + predicted + kinds * np.arange(systems)[:, None]
    confusion = np.bincount(pairs.ravel(), minlength=systems * kinds).reshape(systems, classes, classes) / items
    scores, table = _of_pairs(metric, confusion)
    return scores, table.ravel()[pairs]


def _of_pairs(
    metric: Metric, confusion: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores (systems,), and influences by true and predicted class, from shares (systems, true, predicted)."""
    same = np.eye(confusion.shape[-1])
    hits = np.diagonal(confusion, axis1=1, axis2=2)  # (systems, classes)
    if metric == "accuracy":
        accuracy = hits.sum(axis=1)
        return accuracy, same - accuracy[:, None, None]
    size = confusion.sum(axis=1) + confusion.sum(axis=2)  # predicted and true
    scale = np.divide(1, size, out=np.zeros_like(size), where=size > 0)  # a class that occurs in neither has no weight
    f1 = 2 * hits * scale
    drawn = -f1 * scale  # for an item of class k, and for one predicted as k
    table = drawn[:, :, None] + drawn[:, None, :] + 2 * scale[:, :, None] * same
    if metric == "f1":
        only = np.zeros_like(f1)
        only[:, 1] = drawn[:, 1]
        table = only[:, :, None] + only[:, None, :]
        table[:, 1, 1] += 2 * scale[:, 1]
        return f1[:, 1], table
    return f1.mean(axis=1), table / f1.shape[1]
