"""The studentized range, vectorised: the chance that the range of k means exceeds q standard errors.

With R_k(w) the distribution function of the range of k independent standard normal variables,

    R_k(w) = k  integral of phi(z) [Phi(z) - Phi(z - w)]^(k-1) dz,

and s^2 an independent chi-square variable over its v degrees of freedom (Lund & Lund 1983, Applied Statistics 32,
204-210; it is what `scipy.stats.studentized_range` integrates, one number at a time, in 20 ms each),

    P( Q > q ) = integral of f_v(s) [1 - R_k(q s)] ds.

R_k is tabulated once for each k and read by a cubic spline; both integrals are Gauss-Legendre sums. The absolute error
is below 1e-7 (tests compare with scipy). A leaderboard of 500 entries needs 125,000 such numbers.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import interpolate, optimize, special

if TYPE_CHECKING:
    from harness.leaderboard.stats import FloatArray

_TOP = 9.0
"""Standard normal variables lie between -_TOP and _TOP."""
_KNOTS = 1500
_INNER, _OUTER = 240, 200
"""Nodes of the two integrals."""
_TAIL = 1e-13
"""Chance that s is outside the limits of its integral, on each side."""
_PIECE = 20_000
"""Numbers that are computed at a time, which bounds the memory."""


def exceeds(q: FloatArray | float, k: int, freedom: FloatArray | float) -> FloatArray:
    """P(Q > q) for k means: `q` and `freedom` of any shape, broadcast; infinite freedom is known variance."""
    quantiles, v = np.broadcast_arrays(np.asarray(q, dtype=np.float64), np.asarray(freedom, dtype=np.float64))
    flat, found = np.stack([quantiles.ravel(), v.ravel()]), np.empty(quantiles.size)
    for first in range(0, flat.shape[1], _PIECE):
        part = slice(first, first + _PIECE)
        found[part] = _exceeds(flat[0, part], flat[1, part], k)
    return np.where(flat[0] > 0, np.clip(found, 0, 1), 1.0).reshape(quantiles.shape)


def quantile(level: float, k: int, freedom: float) -> float:
    """The q with P(Q <= q) = level."""
    return float(optimize.brentq(lambda q: float(exceeds(q, k, freedom)) - (1 - level), 0.0, 1e5, xtol=1e-11))


def _exceeds(q: FloatArray, v: FloatArray, k: int) -> FloatArray:
    nodes, weights = _gauss(_OUTER)
    finite = np.where(np.isfinite(v), v, 1.0)
    low = np.sqrt(2 * special.gammaincinv(finite / 2, _TAIL) / finite)
    high = np.sqrt(2 * special.gammainccinv(finite / 2, _TAIL) / finite)
    half = (high - low) / 2
    s = (low + half)[:, None] + half[:, None] * nodes
    logs = np.log(2) + finite / 2 * np.log(finite / 2) - special.gammaln(finite / 2)
    density = np.exp(logs[:, None] + (finite - 1)[:, None] * np.log(s) - finite[:, None] * s**2 / 2)
    found = (density * (1 - _within(k, q[:, None] * s)) * weights).sum(axis=1) * half
    return np.asarray(np.where(np.isfinite(v), found, 1 - _within(k, q)))


def _within(k: int, w: FloatArray) -> FloatArray:
    """R_k."""
    return np.asarray(np.clip(_table(k)(np.minimum(w, 2 * _TOP)), 0, 1))


@cache
def _table(k: int) -> interpolate.CubicSpline:
    nodes, weights = _gauss(_INNER)
    z, dz = _TOP * nodes, _TOP * weights
    w = np.linspace(0, 2 * _TOP, _KNOTS)
    inside = special.ndtr(z) - special.ndtr(z - w[:, None])
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return interpolate.CubicSpline(w, k * (inside ** (k - 1) * density * dz).sum(axis=1))


@cache
def _gauss(count: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of Gauss and Legendre between -1 and 1."""
    return np.polynomial.legendre.leggauss(count)
