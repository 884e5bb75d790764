"""Losses on label-word logits, pure numpy. Each is a mean over the texts.

``logits  # (..., texts, classes)`` and ``labels  # (texts,)`` give ``loss  # (...)``, one for each candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.contract.heads import log_softmax

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract import FloatArray, IntArray

Loss: TypeAlias = "Callable[[FloatArray, IntArray], npt.NDArray[np.float64]]"
"""A function from logits (..., texts, classes) and labels (texts,) to one loss for each candidate: (...)."""


def _of_label(values: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Pick each text's value at its own label: (..., texts)."""
    index = np.broadcast_to(np.asarray(labels)[:, None], (*values.shape[:-1], 1))
    return np.asarray(np.take_along_axis(values, index, axis=-1)[..., 0], dtype=np.float64)


def cross_entropy(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """-mean log softmax(q)_y over the label words (BBT, Sun et al. 2022, section 3.2).

    Args:
        logits: (..., texts, classes).
        labels: (texts,).

    Returns:
        (...), in nats.

    Example:
        ``losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (candidates,)``
    """
    return np.asarray(-_of_label(log_softmax(logits), labels).mean(axis=-1))


def negative_log_likelihood(probabilities: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """-mean log p_y for probabilities that are mixed already (AJO). Values of p below 1e-12 count as 1e-12.

    Args:
        probabilities: (..., texts, classes).
        labels: (texts,).

    Returns:
        (...), in nats.

    Example:
        ``losses = negative_log_likelihood(member.probabilities(outs), train.labels)  # (candidates,)``
    """
    picked = _of_label(np.asarray(probabilities, dtype=np.float64), labels)
    return np.asarray(-np.log(np.maximum(picked, 1e-12)).mean(axis=-1))


def hinge(logits: FloatArray, labels: IntArray, margin: float = 2.0) -> npt.NDArray[np.float64]:
    """Mean over texts of sum over k != y of max(0, q_k - q_y + margin) (BBT's code, margin 2).

    Args:
        logits: (..., texts, classes).
        labels: (texts,).
        margin: by how much the label's logit must exceed every other logit, in units of logits.

    Returns:
        (...), in units of logits.

    Example:
        ``losses = hinge(lm.logits(space.at(zs), train.texts), train.labels)  # (candidates,)``
    """
    q = np.asarray(logits, dtype=np.float64)
    slack = np.maximum(q - _of_label(q, labels)[..., None] + margin, 0.0)
    return np.asarray((slack.sum(axis=-1) - margin).mean(axis=-1))  # k = y always contributes the margin


def hinge_of_probabilities(probabilities: FloatArray, labels: IntArray, margin: float = 2.0) -> npt.NDArray[np.float64]:
    """`hinge` on log p, for probabilities that were mixed before; of a plain softmax it is that of its logits.

    Args:
        probabilities: (..., texts, classes); clipped at 1e-12.
        labels: (texts,).
        margin: as in `hinge`.

    Returns:
        (...), in units of logits.

    Example:
        ``losses = hinge_of_probabilities(member.probabilities(outs), train.labels)  # (candidates,)``
    """
    return hinge(np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-12)), labels, margin)


def negative_accuracy(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Minus the share of texts whose largest logit is at the label. In a tie, the first class wins.

    Args:
        logits: (..., texts, classes).
        labels: (texts,).

    Returns:
        (...), from -1 to 0.

    Example:
        ``losses = negative_accuracy(lm.logits(space.at(zs), train.texts), train.labels)  # (candidates,)``
    """
    return np.asarray(-(np.argmax(logits, axis=-1) == labels).mean(axis=-1), dtype=np.float64)
