"""Scores of predicted labels: accuracy, macro-F1 and F1 of class 1.

`cell_score` is scikit-learn's, for one test set. The others are numpy and vectorised, for populations of candidates and
for the leaderboard. A test holds the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from harness.contract import TextMetric

if TYPE_CHECKING:
    from harness.contract import IntArray, Metric


TEXT_SCALE = 10_000
"""The prediction of a text task is the score of each output in so many parts, so that it is a number as a class is."""


def is_text(metric: Metric) -> bool:
    """Whether a metric is one of generated texts.

    Args:
        metric: `Task.metric` or `TextTask.metric`.

    Returns:
        False for one of predicted classes.

    Example:
        ``is_text("chrf")  # True``
    """
    return metric in get_args(TextMetric)


def accuracy(predicted: IntArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Share of equal labels.

    Args:
        predicted: (..., texts), class numbers.
        labels: (texts,).

    Returns:
        (...), from 0 to 1.

    Example:
        ``accuracy(logits.argmax(axis=-1), dev.labels)  # (candidates,)``
    """
    return np.asarray((np.asarray(predicted) == np.asarray(labels)).mean(axis=-1), dtype=np.float64)


def macro_f1(predicted: IntArray, labels: IntArray, classes: int) -> npt.NDArray[np.float64]:
    """Unweighted mean over classes of F1 = 2 TP / (predicted + true). A class that occurs in neither counts 0.

    Args:
        predicted: (..., texts), class numbers.
        labels: (texts,).
        classes: number of classes.

    Returns:
        (...), from 0 to 1.

    Example:
        ``macro_f1(logits.argmax(axis=-1), dev.labels, len(task.classes))  # (candidates,)``
    """
    return np.asarray(_f1(predicted, labels, np.arange(classes)).mean(axis=-1), dtype=np.float64)


def f1(predicted: IntArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """F1 of class 1, which is MRPC's metric in GLUE. It is 0 if class 1 is neither predicted nor true.

    Args:
        predicted: (..., texts), class numbers.
        labels: (texts,).

    Returns:
        (...), from 0 to 1.

    Example:
        ``f1(logits.argmax(axis=-1), dev.labels)  # (candidates,)``
    """
    return _f1(predicted, labels, np.array([1]))[..., 0]


def _f1(predicted: IntArray, labels: IntArray, k: IntArray) -> npt.NDArray[np.float64]:
    """F1 of each of the classes k: (..., texts) and (texts,) -> (..., classes)."""
    says = np.asarray(predicted)[..., None] == k  # (..., texts, classes)
    is_ = np.asarray(labels)[..., None] == k
    hits = (says & is_).sum(axis=-2)
    total = says.sum(axis=-2) + is_.sum(axis=-2)
    return np.asarray(np.divide(2.0 * hits, total, out=np.zeros(hits.shape), where=total > 0), dtype=np.float64)


def score(metric: Metric, predicted: IntArray, labels: IntArray, classes: int) -> npt.NDArray[np.float64]:
    """Apply a task's metric. The referee scores the task by the same metric.

    Args:
        metric: `Task.metric`.
        predicted: (..., texts), class numbers.
        labels: (texts,).
        classes: number of classes.

    Returns:
        (...), from 0 to 1.

    Example:
        ``score(task.metric, logits.argmax(axis=-1), dev.labels, len(task.classes))  # (candidates,)``
    """
    if is_text(metric):
        return np.asarray(np.asarray(predicted).mean(axis=-1) / TEXT_SCALE, dtype=np.float64)
    if metric == "accuracy":
        return accuracy(predicted, labels)
    return f1(predicted, labels) if metric == "f1" else macro_f1(predicted, labels, classes)


def cell_score(metric: Metric, predicted: IntArray, labels: IntArray, classes: int) -> float:
    """Score the predictions of one cell by its task's metric, computed by scikit-learn.

    Args:
        metric: `Task.metric`.
        predicted: (texts,), class numbers.
        labels: (texts,).
        classes: number of classes.

    Returns:
        The score, from 0 to 1.

    Raises:
        ValueError: there are more or fewer predictions than labels.

    Example:
        ``cell_score(task.metric, predicted, test.labels, len(task.classes))``
    """
    if is_text(metric):
        return float(score(metric, predicted, labels, classes))
    from sklearn.metrics import accuracy_score, f1_score  # noqa: PLC0415 - seconds, which only a finished cell spends

    if metric == "accuracy":
        return float(accuracy_score(labels, predicted))
    scored = [1] if metric == "f1" else list(range(classes))
    return float(f1_score(labels, predicted, labels=scored, average="macro", zero_division=0))


def majority_prediction(labels: IntArray) -> IntArray:
    """Predict the most frequent label everywhere. In a tie, the smallest label wins."""
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    return np.full(len(labels), values[np.argmax(counts)], dtype=np.int64)


def failed_prediction(metric: Metric, labels: IntArray) -> IntArray:
    """Predictions with which a failed cell is ranked: the majority class, or class 0 if the metric is F1 of class 1.

    On a text task it has written nothing that scores.

    Most of MRPC's pairs are of class 1, so predicting 1 everywhere scores high and would reward a crash.
    """
    nothing = metric == "f1" or is_text(metric)
    return np.zeros(len(labels), dtype=np.int64) if nothing else majority_prediction(labels)
