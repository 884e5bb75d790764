"""CMA-ES by pycma, with all its chance from the generator that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from harness.contract import FloatArray


class CmaEs:
    """CMA-ES (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772) that starts at x = 0.

    Numpy's global generator is left alone. pycma's stops for flat and stagnating losses are off: a loss on a few dozen
    texts is easily flat, and the budget ends a search.

    Args:
        dim: d, length of x.
        population: candidates per generation, lambda; at least 2.
        rng: where all random numbers come from.
        sigma: first step size, in units of x.
        bound: half-width of the box around 0 that candidates and mean stay in; 0 is no box.

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
            "verbose": -10,  # silent, and no look for a file of signals
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
            (population, dim), the candidates whose losses `tell` wants next.
        """
        self._asked = np.array(self._search.ask())
        return self._asked

    def tell(self, losses: FloatArray) -> None:
        """Rank the generation that was asked for, and move the distribution.

        Args:
            losses: (population,), in the order of the candidates; the smaller the better.

        Raises:
            ValueError: another number of losses.
        """
        self._search.tell(list(self._asked), np.asarray(losses).tolist())

    def restart_if_converged(self) -> None:
        """Start again at 0 where pycma says that nothing more can come of it: converged, or degenerate."""
        if self._search.stop():
            self._start()

    def _start(self) -> None:
        import cma  # noqa: PLC0415 - half a second, which who imports this package for a loss need not wait for

        self._search: Any = cma.CMAEvolutionStrategy(np.zeros(self._dim), self._sigma, dict(self._options))
