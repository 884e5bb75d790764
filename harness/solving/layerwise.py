"""BBTv2's search of deep prompts, for methods that build on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.solving.cma_es import CmaEs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.contract import FloatArray

Accept: TypeAlias = Literal["improve", "best"]


class LayerwiseCmaEs:
    """One CMA-ES per layer. One layer moves at a time, from the bottom up (Sun et al., EMNLP 2022).

    The other layers keep the values of the best stack so far. A candidate replaces the best stack if its loss is lower.

    Args:
        dim: d, coordinates per layer.
        population: candidates per generation, lambda; at least 2.
        rng: where all random numbers come from.
        sigmas: first step size of each layer, in units of z; as many as there are layers.
        accept: what replaces the stack: the best of a generation if its loss is below `best_loss` (``improve``), or if
            it is below the lowest that this layer ever had, under whatever stacks (``best``, as BBTv2's code).

    Attributes:
        best: (layers, dim), the stack so far; zeros before the first generation.
        best_loss: the loss it had; infinite before the first generation. Whoever changes what the loss is sets it anew.

    Example::

        search = LayerwiseCmaEs(500, 20, rng, [1.0] * lm.info.layers)
        while True:
            stacks = search.ask()  # (20, layers, 500)
            search.tell(cross_entropy(lm.logits(space.at(stacks), train.texts), train.labels))
    """

    def __init__(
        self,
        dim: int,
        population: int,
        rng: np.random.Generator,
        sigmas: Sequence[float],
        accept: Accept = "improve",
    ) -> None:
        self._searches = [CmaEs(dim, population, rng, sigma) for sigma in sigmas]
        self._population, self._layer, self._accept = population, 0, accept
        self._best_of_layer = np.full(len(sigmas), np.inf)
        self.best: npt.NDArray[np.float64] = np.zeros((len(sigmas), dim))
        self.best_loss = np.inf
        self.state: dict[str, float] = {}
        """Of the search that was told last, see `CmaEs.state`, with its ``layer``."""

    def generations(self, calls: float, remainder: bool = True) -> Iterator[int]:
        """Which layer moves in each generation, from the bottom up, again and again.

        Args:
            calls: what the search may cost; only for `remainder` being false.
            remainder: go on until the budget ends, in the middle of a round; else only whole rounds, as BBTv2's code.

        Returns:
            Numbers of layers, without end where `remainder` is true.
        """
        layers = len(self._searches)
        whole = int(calls // (self._population * layers)) * layers
        generation = 0
        while remainder or generation < whole:
            yield generation % layers
            generation += 1

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Centre of each layer's search distribution: (layers, dim)."""
        return np.stack([search.mean for search in self._searches])

    @property
    def last(self) -> npt.NDArray[np.float64]:
        """The last candidate of the generation that was asked for last: (1, layers, dim)."""
        return self._stacks[-1:]

    def ask(self) -> npt.NDArray[np.float64]:
        """Draw one generation of the layer that moves now.

        Returns:
            (population, layers, dim), stacks that differ at this layer only.
        """
        self._stacks = np.repeat(self.best[None], self._population, axis=0)
        self._stacks[:, self._layer] = self._searches[self._layer].ask()
        return self._stacks

    def tell(self, losses: FloatArray) -> int | None:
        """Rank the generation that was asked for; the next layer moves then.

        Args:
            losses: (population,), in the order of the stacks; smaller is better.

        Returns:
            The number of the candidate that is the stack now; None where the stack stays.

        Raises:
            ValueError: the number of losses is not `population`.
        """
        layer, search, k = self._layer, self._searches[self._layer], int(losses.argmin())
        search.tell(losses)
        self.state = {"layer": float(layer), **search.state}
        search.restart_if_converged()
        self._layer = (layer + 1) % len(self._searches)
        if not losses[k] < (self.best_loss if self._accept == "improve" else self._best_of_layer[layer]):
            return None
        self.best, self.best_loss = self._stacks[k], float(losses[k])
        self._best_of_layer[layer] = self.best_loss
        return k
