"""Minibatches in random order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from harness.contract import IntArray


def minibatches(count: int, size: int, epochs: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Row numbers of each minibatch, in a new random order every epoch.

    Args:
        count: number of rows.
        size: rows per minibatch. The last minibatch of an epoch may be smaller.
        epochs: passes over all rows.
        rng: draws one permutation per epoch, when the epoch begins.

    Yields:
        (size,) row numbers.

    Example:
        ``for rows in minibatches(len(labels), 16, 3, rng): ...``
    """
    for _ in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count, size):
            yield order[start : start + size]
