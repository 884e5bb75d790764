"""Adam on numpy arrays.

This module exists because no library offers Adam to a worker. Importing torch takes seconds and hundreds of megabytes,
and scikit-learn's Adam serves only its perceptron. If scikit-learn has the whole classifier, use that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FloatArray


@dataclass
class Adam:
    """Adam (Kingma & Ba, ICLR 2015) with decoupled weight decay (Loshchilov & Hutter, ICLR 2019).

    ::

        m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2
        p <- (1 - lr decay) p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + 1e-8)        b1 = 0.9,  b2 = 0.999

    Args:
        lr: the learning rate, in units of the parameters.
        decay: weight decay, for matrices only; biases do not decay.

    Example:
        ``adam = Adam(lr=0.01)``, then ``adam.step((weight, bias), (d_weight, d_bias))`` again and again.
    """

    lr: float
    decay: float = 0.0
    steps: int = field(default=0, init=False)
    """Steps taken, t."""
    moments: list[tuple[FloatArray, FloatArray]] = field(default_factory=list, init=False)
    """m and v of each parameter."""

    def step(self, parameters: Sequence[npt.NDArray[np.floating]], gradients: Sequence[FloatArray]) -> None:
        """Take one step against the gradients, in place.

        Args:
            parameters: the same arrays in the same order at every step.
            gradients: one for each parameter, of its shape.

        Raises:
            ValueError: the number of gradients differs from that of parameters, or from that of earlier steps.
        """
        if not self.steps:
            self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
        self.steps += 1
        for (m, v), p, g in zip(self.moments, parameters, gradients, strict=True):
            m += 0.1 * (g - m)  # noqa: PLW2901 - in place
            v += 0.001 * (g**2 - v)  # noqa: PLW2901
            if p.ndim > 1:
                p *= 1 - self.lr * self.decay  # noqa: PLW2901
            step = (m / (1 - 0.9**self.steps)) / (np.sqrt(v / (1 - 0.999**self.steps)) + 1e-8)
            p -= self.lr * step  # noqa: PLW2901
