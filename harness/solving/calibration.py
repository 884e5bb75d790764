"""Calibration of label-word logits: one factor and one offset per class.

This module exists because scikit-learn calibrates a fitted classifier on labels, and this needs the logits alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.contract.heads import softmax

if TYPE_CHECKING:
    from harness.contract import FloatArray


@dataclass(frozen=True)
class Calibration:
    """Replace logits q by scale * q + shift, as a `Member` does.

    Example:
        ``w = Calibration.additive(q)``, then ``Member.of(task, scale=w.scale, shift=w.shift)``
    """

    scale: tuple[float, ...]
    """One factor per class."""
    shift: tuple[float, ...]
    """One offset per class."""
    fallback: bool = False
    """Whether `multiplicative` was asked for but the mean logits did not allow it."""

    @classmethod
    def identity(cls, q: FloatArray) -> Calibration:
        """Leave the logits as they are.

        Args:
            q: (texts, classes), logits. Only the number of classes matters.

        Returns:
            Factors of 1 and offsets of 0.
        """
        return cls((1.0,) * q.shape[-1], (0.0,) * q.shape[-1])

    @classmethod
    def additive(cls, q: FloatArray) -> Calibration:
        """Divide probabilities by their mean and normalise them again (Zhao et al., ICML 2021), computed in logits.

        W = diag(mean p)^-1. The mean is taken over texts of the task, in place of content-free texts. A constant added
        to all logits changes nothing.

        Args:
            q: (texts, classes), logits.

        Returns:
            Factors of 1, and the offsets of `additive_shift`.
        """
        return cls((1.0,) * q.shape[-1], tuple(additive_shift(q).tolist()))

    @classmethod
    def multiplicative(cls, q: FloatArray, most: float = 5.0) -> Calibration:
        """Multiply by W = lambda diag(q_mean)^-1 with lambda the mean of q_mean, so that all mean logits become lambda.

        A mean near 0 or below 0 would blow up its class or change its sign. Unless every mean exceeds a tenth of the
        mean magnitude, offsets make the means equal instead: q - q_mean + lambda.

        Args:
            q: (texts, classes), logits of the texts to calibrate on; one empty text is enough.
            most: offsets are also used if one mean is more than this many times another.

        Returns:
            Factors and offsets of 0; or factors of 1, offsets, and `fallback`.
        """
        mean = q.mean(axis=0, dtype=np.float64)
        if mean.min() > 0.1 * np.abs(mean).mean() and mean.max() <= most * mean.min():
            return cls(tuple((mean.mean() / mean).tolist()), (0.0,) * len(mean))
        return cls((1.0,) * len(mean), tuple((mean.mean() - mean).tolist()), fallback=True)

    def __call__(self, q: FloatArray) -> npt.NDArray[np.float64]:
        """Calibrate logits.

        Args:
            q: (..., classes).

        Returns:
            (..., classes), scale * q + shift in float64.
        """
        return np.asarray(np.asarray(self.scale) * q.astype(np.float64) + np.asarray(self.shift), dtype=np.float64)

    def times(self, weight: float) -> Calibration:
        """Weigh the calibrated logits, for example against those of a head.

        Args:
            weight: what scale and shift are multiplied by.

        Returns:
            The calibration that gives weight * (scale * q + shift).
        """
        scale, shift = (tuple(weight * value for value in values) for values in (self.scale, self.shift))
        return Calibration(scale, shift, self.fallback)


def additive_shift(q: FloatArray) -> npt.NDArray[np.float64]:
    """Offsets of `Calibration.additive` for each candidate: -log mean p, centred. A mean below 1e-4 counts as 1e-4.

    Args:
        q: (..., texts, classes), logits.

    Returns:
        (..., classes); the last axis adds up to 0.

    Example:
        ``q + additive_shift(q)[:, None]  # (candidates, texts, classes), each candidate by its own mean``
    """
    b = np.log(np.maximum(softmax(q).mean(axis=-2), 1e-4))
    return np.asarray(b.mean(axis=-1, keepdims=True) - b, dtype=np.float64)
