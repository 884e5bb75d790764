"""Evolution strategies in R^D whose rates are those of a smaller, intrinsic dimension d.

Two covariance models: separable CMA-ES (Ros & Hansen 2008) and LM-MA-ES (Loshchilov, Glasmachers & Beyer 2017, arXiv
1705.06693). No library takes the rates of another dimension than D, and they are what this method is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Rates of CMA-ES for a dimension d (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772v1)."""

    sigma: float
    """c_sigma of the path that moves the step size."""
    damping: float
    """d_sigma."""
    path: float
    """c_c of the path that moves the covariance."""
    one: float
    """c_1 of the rank-one update, times (d + 2) / 3 for a diagonal (Ros & Hansen 2008)."""
    mu: float
    """c_mu of the rank-mu update, times (d + 2) / 3 for a diagonal."""

    @classmethod
    def of(cls, d: int, mu_eff: float) -> Rates:
        """Table 1 of the tutorial with alpha_cov = 2, for a diagonal covariance."""
        sigma = (mu_eff + 2) / (d + mu_eff + 5)
        diagonal = (d + 2) / 3
        one = min(1.0, diagonal * 2 / ((d + 1.3) ** 2 + mu_eff))
        return cls(
            sigma=sigma,
            damping=1 + 2 * max(0.0, ((mu_eff - 1) / (d + 1)) ** 0.5 - 1) + sigma,
            path=(4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d),
            one=one,
            mu=min(1 - one, diagonal * 2 * (mu_eff - 2 + 1 / mu_eff) / ((d + 2) ** 2 + mu_eff)),
        )


def weights(parents: int) -> Floats:
    """Recombination weights ln(mu + 1/2) - ln i of the best mu, normalised: the tutorial's defaults."""
    raw = np.log(parents + 0.5) - np.log(np.arange(1, parents + 1))
    return np.asarray(raw / raw.sum(), dtype=np.float64)


class Search:
    """An evolution strategy in R^D with ask and tell; it starts at x = 0 with covariance sigma^2 I."""

    def __init__(
        self,
        size: int,
        rng: np.random.Generator,
        dim: int = 500,
        population: int = 20,
        sigma: float = 1.0,
        covariance: Literal["diagonal", "low-rank"] = "diagonal",
        rank: int = 10,
        mirrored: bool = True,
    ) -> None:
        """Start in `size` dimensions, D; the other options are those of the submission's Config."""
        d = min(dim, size)
        self.size, self.population, self.mirrored, self.rng = size, population, mirrored, rng
        self.w = weights(population // 2)
        self.mu_eff = float(1 / (self.w**2).sum())
        self.rates = Rates.of(d, self.mu_eff)
        self.shape = Diagonal(size, self.rates) if covariance == "diagonal" else LowRank(size, d, population, rank)
        self.mean, self.sigma, self.path = np.zeros(size), sigma, np.zeros(size)
        self.z = self.y = np.zeros((population, size))

    def ask(self) -> Floats:
        """Candidates m + sigma y, y ~ N(0, C): (population, D)."""
        draws = self.population // 2 if self.mirrored else self.population
        z = self.rng.standard_normal((draws, self.size))
        self.z = np.concatenate([z, -z]) if self.mirrored else z
        self.y = self.shape.transform(self.z)
        return np.asarray(self.mean + self.sigma * self.y, dtype=np.float64)

    def tell(self, losses: Floats) -> None:
        """Move mean, covariance and step size.

        The step size follows the tutorial's rule with the squared norm, as in LM-MA-ES::

            p <- (1 - c_s) p + sqrt(c_s (2 - c_s) mu_eff) z_w,   sigma <- sigma exp(c_s / (2 d_s) (|p|^2 / D - 1))

        D is the true size there: it is what |p|^2 is when selection is random.
        """
        parents = self.parents(losses)
        z, y, rates = self.z[parents], self.y[parents], self.rates  # (mu, D)
        self.mean = self.mean + self.sigma * (self.w @ y)
        self.path = follow(self.path, rates.sigma, self.mu_eff, self.w @ z)
        self.shape.update(self.w, self.mu_eff, z, y)
        self.sigma *= float(np.exp(rates.sigma / (2 * rates.damping) * (self.path @ self.path / self.size - 1)))

    def parents(self, losses: Floats) -> NDArray[np.int64]:
        """Indices of the best half, best first. Of mirrored pairs, the better one of each.

        A pair that took part as a whole would cancel out, and shorten the path (Auger, Brockhoff & Hansen 2011).
        """
        if not self.mirrored:
            return losses.argsort(kind="stable")[: len(self.w)]
        pairs = losses.reshape(2, -1)  # (sign, pair)
        better = np.asarray(pairs.argmin(axis=0) * len(self.w) + np.arange(len(self.w)), dtype=np.int64)
        return better[losses[better].argsort(kind="stable")]


def follow(path: Floats, rate: float | Floats, mu_eff: float, step: Floats) -> Floats:
    """Evolution path (1 - c) p + sqrt(c (2 - c) mu_eff) step: N(0, I) stays N(0, I) when selection is random."""
    return np.asarray((1 - rate) * path + np.sqrt(rate * (2 - rate) * mu_eff) * step, dtype=np.float64)


class Diagonal:
    """Separable CMA-ES (Ros & Hansen 2008): C = diag(c), y = sqrt(c) z."""

    def __init__(self, size: int, rates: Rates) -> None:
        """Start with C = I."""
        self.c, self.path, self.rates = np.ones(size), np.zeros(size), rates

    def transform(self, z: Floats) -> Floats:
        """Steps y of N(0, C) from z of N(0, I): (candidates, D)."""
        return np.asarray(np.sqrt(self.c) * z, dtype=np.float64)

    def update(self, w: Floats, mu_eff: float, z: Floats, y: Floats) -> None:  # noqa: ARG002 - z is for the other
        """Covariance: c <- (1 - c_1 - c_mu) c + c_1 p^2 + c_mu sum_i w_i y_i^2."""
        rates = self.rates
        self.path = follow(self.path, rates.path, mu_eff, w @ y)
        self.c = (1 - rates.one - rates.mu) * self.c + rates.one * self.path**2 + rates.mu * (w @ y**2)


class LowRank:
    """LM-MA-ES (Loshchilov et al. 2017, Algorithm 1): m paths p_i of growing memory, each of which stretches the steps.

        y <- (1 - c_i) y + c_i q_i (q_i y),   c_i = 1 / (1.5^(i-1) d),   q_i = sqrt(d / D) p_i

    and the path p_i follows at the rate lambda / (4^(i-1) d). A path is about sqrt(D) long when selection is random;
    q_i is as long as it would be in d dimensions. With p_i in its place a step would grow (1 + D/d)-fold along it.
    """

    def __init__(self, size: int, d: int, population: int, rank: int) -> None:
        """Start with no paths, y = z."""
        i = np.arange(rank)
        self.paths = np.zeros((rank, size))
        self.shrink, self.stretch = 1 / (1.5**i * d), 1 / (1.5**i * size)  # c_i, c_i d / D
        self.rates = np.minimum(population / (4.0**i * d), 1.0)[:, None]  # made for d far above lambda
        self.generations = 0

    def transform(self, z: Floats) -> Floats:
        """Steps y from z: (candidates, D). Paths take part one after the other, one more each generation."""
        y = z
        for path, shrink, stretch in list(zip(self.paths, self.shrink, self.stretch, strict=True))[: self.generations]:
            y = (1 - shrink) * y + stretch * (y @ path)[:, None] * path
        return y

    def update(self, w: Floats, mu_eff: float, z: Floats, y: Floats) -> None:  # noqa: ARG002 - y is for the other
        """Let each path follow the same step with a memory of its own."""
        self.paths = follow(self.paths, self.rates, mu_eff, w @ z)
        self.generations += 1
