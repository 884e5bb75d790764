"""CMA-ES by pycma, with all random numbers from a generator that is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from harness.contract import FloatArray


class CmaEs:
    """CMA-ES (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772) that starts at x = 0.

    Numpy's global generator is not touched. Pycma's stopping rules for flat and stagnating losses are off: a loss on a
    few dozen texts is often flat, and the budget ends the search.

    Args:
        dim: d, length of x.
        population: candidates per generation, lambda; at least 2.
        rng: the source of all random numbers.
        sigma: first step size, in units of x.
        bound: half-width of the box around 0 in which candidates and mean stay; 0 means no box.

    Example::

        search = CmaEs(500, 20, rng)
        while True:
            zs = search.ask()  # (20, 500)
            search.tell(cross_entropy(lm.logits(space.at(zs), train.texts), train.labels))
    """

    def __init__(
        self, dim: int, population: int, rng: np.random.Generator, sigma: float = 1.0, bound: float = 0.0
    ) -> None:
        self._options: dict[str, Any] = {
            "popsize": population,
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": np.nan,  # do not touch numpy's global generator
            "verbose": -10,  # silent, and pycma does not look for its file of signals
            "tolfun": 0,
            "tolfunhist": 0,
            "tolflatfitness": np.inf,
            "tolstagnation": np.inf,
        }
        if bound > 0:
            self._options["bounds"] = [-bound, bound]
        self._dim, self._sigma = dim, sigma
        self._start()

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Centre of the search distribution, inside the box: (dim,)."""
        return np.array(self._search.result.xfavorite, dtype=np.float64)

    @property
    def state(self) -> dict[str, float]:
        """Where the search stands, for `BlackBox.log`.

        Returns:
            ``sigma``, the step size in units of x, and ``condition``, the condition number of the covariance matrix,
            which is 1 at the start; pycma decomposes it every few generations, and the number is of the last time.
        """
        axes = np.asarray(self._search.D)  # standard deviations along the principal axes, over sigma
        return {"sigma": float(self._search.sigma), "condition": float((axes.max() / axes.min()) ** 2)}

    def ask(self) -> npt.NDArray[np.float64]:
        """Draw one generation.

        Returns:
            (population, dim), the candidates whose losses `tell` expects next.
        """
        self._asked = np.array(self._search.ask())
        return self._asked

    def tell(self, losses: FloatArray) -> None:
        """Rank the generation that was drawn last, and move the distribution.

        Args:
            losses: (population,), in the order of the candidates; smaller is better.

        Raises:
            ValueError: the number of losses is not `population`.
        """
        self._search.tell(list(self._asked), np.asarray(losses).tolist())

    def restart_if_converged(self) -> None:
        """Start again at 0 if pycma reports that the search has converged or has become degenerate."""
        if self._search.stop():
            self._start()

    def _start(self) -> None:
        import cma  # noqa: PLC0415 - half a second, which users of a loss need not wait for

        self._search: Any = cma.CMAEvolutionStrategy(np.zeros(self._dim), self._sigma, dict(self._options))
