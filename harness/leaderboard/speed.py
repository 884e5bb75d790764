"""The speed-up of one system over another: the ratio of the budgets needed for the same target. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.stats import LEVEL, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

    from harness.contract import IntArray
    from harness.leaderboard.stats import FloatArray

RESAMPLES = 10_000


@dataclass(frozen=True)
class SpeedUp:
    """Ratio of budget shares needed to reach a target; see `speed_up`."""

    ratio: Interval
    reached: int
    """Cells in which the system reached the target."""
    cells: int


def speed_up(
    system: Sequence[FloatArray], reference: Sequence[FloatArray], rng: Generator, resamples: int = RESAMPLES
) -> SpeedUp:
    """The ratio of the budget that `reference` needs to the budget that `system` needs for the same target.

    Each sequence holds one array (splits,) per task, with the same cells in both: the share of the budget, in (0, 1],
    that was spent when the target was first reached, or `inf` if it never was. A censored cell counts as the whole
    budget (restricted mean). So if `system` misses targets, the ratio is an upper bound of its speed-up, and if
    `reference` does, a lower bound. `system` reached the target in `reached` of `cells` cells. The ratio is

        mean over tasks of mean over splits of min(share, 1) of `reference`, divided by the same of `system`.

    The interval is a percentile bootstrap over cells: splits within tasks, the same for both.

    Raises:
        ValueError: no task, cells that do not pair, or a share that is not positive.
    """
    pairs = [np.stack([np.asarray(a), np.asarray(b)]) for a, b in zip(system, reference, strict=True)]
    if not pairs or not all(pair.size and (pair > 0).all() for pair in pairs):
        raise ValueError("budget shares must be positive (inf: never reached), with at least one cell in each task")
    capped = [np.minimum(pair, 1.0) for pair in pairs]  # (2, splits) per task
    system_mean, reference_mean = np.mean([pair.mean(axis=1) for pair in capped], axis=0)
    drawn = [pair @ _counts(pair.shape[1], resamples, rng).T / pair.shape[1] for pair in capped]  # (2, resamples)
    of_system, of_reference = np.mean(drawn, axis=0)
    reached = sum(int(np.isfinite(pair[0]).sum()) for pair in pairs)
    low, high = np.quantile(of_reference / of_system, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    ratio = Interval(float(reference_mean / system_mean), float(low), float(high))
    return SpeedUp(ratio, reached, sum(pair.shape[1] for pair in pairs))


def _counts(n: int, resamples: int, rng: Generator) -> IntArray:
    """Counts of each of n things in n draws with replacement: (resamples, n)."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
