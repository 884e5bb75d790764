"""BBTv2's search of deep prompts, for methods that build on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.solving.cma_es import CmaEs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FloatArray


class LayerwiseCmaEs:
    """One CMA-ES per layer. One layer moves at a time, from the bottom up (Sun et al., EMNLP 2022).

    The other layers keep the values of the best stack so far. A candidate replaces the best stack if its loss is lower.

    Args:
        dim: d, coordinates per layer.
        population: candidates per generation, lambda; at least 2.
        rng: the source of all random numbers.
        sigmas: first step size of each layer, in units of z. Their number is the number of layers.

    Attributes:
        best: (layers, dim), the stack with the lowest loss so far; zeros before the first generation.
        best_loss: its loss; infinite before the first generation.

    Example::

        search = LayerwiseCmaEs(500, 20, rng, [1.0] * lm.info.layers)
        while True:
            stacks = search.ask()  # (20, layers, 500)
            search.tell(cross_entropy(lm.logits(space.at(stacks), train.texts), train.labels))
    """

    def __init__(self, dim: int, population: int, rng: np.random.Generator, sigmas: Sequence[float]) -> None:
        self._searches = [CmaEs(dim, population, rng, sigma) for sigma in sigmas]
        self._population, self._layer = population, 0
        self.best: npt.NDArray[np.float64] = np.zeros((len(sigmas), dim))
        self.best_loss = np.inf

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Centre of each layer's search distribution: (layers, dim)."""
        return np.stack([search.mean for search in self._searches])

    def ask(self) -> npt.NDArray[np.float64]:
        """Draw one generation of the layer that moves now.

        Returns:
            (population, layers, dim), stacks that differ at this layer only.
        """
        self._stacks = np.repeat(self.best[None], self._population, axis=0)
        self._stacks[:, self._layer] = self._searches[self._layer].ask()
        return self._stacks

    def tell(self, losses: FloatArray) -> None:
        """Rank the generation that was drawn last. The next layer moves after it.

        Args:
            losses: (population,), in the order of the stacks; smaller is better.

        Raises:
            ValueError: the number of losses is not `population`.
        """
        search = self._searches[self._layer]
        search.tell(losses)
        search.restart_if_converged()
        if losses.min() < self.best_loss:
            self.best, self.best_loss = self._stacks[losses.argmin()], float(losses.min())
        self._layer = (self._layer + 1) % len(self._searches)
