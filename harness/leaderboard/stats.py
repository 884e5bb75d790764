"""How sure a score is: crossed bootstrap over splits x test items, and a ratio of calls to a target.

A replicate draws, within each task, splits with replacement and test items with replacement: the same draws for every
system, and the same items for every split. With w_i how often item i was drawn and v_s how often split s,

    score(task) = sum_s v_s metric(w, predictions of s) / sum_s v_s,     average = mean over tasks,

so that a difference of two systems is paired in splits and items. Tasks are not drawn: what is said holds for these
tasks. The metric is recomputed from weighted counts, F1 included. Intervals are percentiles of the replicates.

How often the intervals hold the truth is simulated by ``benchmarks/coverage.py``; its numbers are in
``docs/statistics.md``. What the replicates say of ranks is in `harness.leaderboard.ties`.

Pure numpy; all chance comes from the generator that is passed.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.solving.metrics import score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

    from harness.contract import IntArray, Metric

FloatArray = npt.NDArray[np.floating[Any]]

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 1_000
"""Replicates computed at once."""
_CELLS = 256
"""Cells of one task computed at once, so that memory does not grow with the entries."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskPredictions:
    """What systems predicted on the test set of one task."""

    predicted: IntArray
    """(systems, splits x repeats, items): the class each system predicts after tuning on each split, so many times."""
    labels: IntArray
    """(items,)"""
    metric: Metric
    classes: int
    repeats: int = 1
    """Times that each split was tuned on with other chance, one after the other in `predicted`. Splits are resampled,
    each with all its repeats: what repeats of a split differ by is part of what splits differ by."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together.

        Raises:
            ValueError: wrong axes, no split or no item.
        """
        shape = self.predicted.shape
        if len(shape) != 3 or shape[2:] != self.labels.shape or 0 in shape[1:]:  # noqa: PLR2004 - three axes
            raise ValueError(f"predictions {shape} for labels {self.labels.shape}: (systems, splits, items) is needed")


@dataclass(frozen=True)
class Bootstrap:
    """Scores of systems on tasks with their bootstrap replicates."""

    observed: FloatArray
    """(tasks, systems)"""
    replicates: FloatArray
    """(resamples, tasks, systems)"""

    @cached_property
    def averages(self) -> FloatArray:
        """Replicates of the averages over tasks: (systems, resamples)."""
        return np.ascontiguousarray(self.replicates.mean(axis=1).T)

    def on(self, task: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Scores (systems,) and replicates (systems, resamples) on a task, or of the average over all tasks."""
        if task is None:
            return self.observed.mean(axis=0), self.averages
        return self.observed[task], self.replicates[:, task].T

    def score(self, system: int, task: int | None = None) -> Interval:
        """A system's score on a task, or its average over all tasks."""
        observed, replicates = self.on(task)
        return percentile_interval(observed[system], replicates[system])

    def difference(self, system: int, other: int, task: int | None = None) -> Interval:
        """Score of `system` minus score of `other`, on a task or on average, paired in splits and items."""
        observed, replicates = self.on(task)
        return percentile_interval(observed[system] - observed[other], replicates[system] - replicates[other])


@dataclass(frozen=True)
class SpeedUp:
    """Ratio of budget shares needed to reach a target; see `speed_up`."""

    ratio: Interval
    reached: int
    """Cells in which the system reached the target."""
    cells: int


def bootstrap(tasks: Sequence[TaskPredictions], rng: Generator, resamples: int = RESAMPLES) -> Bootstrap:
    """Crossed bootstrap of all systems on all tasks; every task must have the same systems in the same order.

    The draws depend on the generator and on the tasks' numbers of splits and items alone, so a system's replicates
    do not change when another system joins.
    """
    observed = np.stack([score(t.metric, t.predicted, t.labels, t.classes).mean(axis=-1) for t in tasks])
    return Bootstrap(observed, np.stack([_replicates(task, rng, resamples) for task in tasks], axis=1))


def weighted_scores(task: TaskPredictions, weights: IntArray) -> FloatArray:
    """The metric on resampled test sets, from how often each item was drawn: (n, items) -> (n, systems, splits)."""
    return _Weighted.of(task)(weights.astype(np.float32))


@dataclass(frozen=True)
class _Weighted:
    """The metric of some systems as products with weights. Counts in float32 are exact up to 2^24, and fast."""

    task: TaskPredictions
    says: tuple[FloatArray, ...]
    """(items, systems x splits) for each class scored: 1 where it is predicted; for accuracy one: 1 where right."""

    @classmethod
    def of(cls, task: TaskPredictions) -> _Weighted:
        """Prepare the products."""
        said = task.predicted.reshape(-1, len(task.labels))
        wanted = [task.labels] if task.metric == "accuracy" else [1] if task.metric == "f1" else range(task.classes)
        return cls(task, tuple(np.asarray((said == each).T, dtype=np.float32, order="C") for each in wanted))

    def __call__(self, w: FloatArray) -> FloatArray:
        """From weights (n, items) in float32 to scores (n, systems, splits)."""
        shape = (-1, *self.task.predicted.shape[:2])
        if self.task.metric == "accuracy":
            total = w.sum(axis=-1, dtype=np.float64)
            return np.asarray((w @ self.says[0]).reshape(shape) / total[:, None, None])
        f1, share = np.zeros((2, len(w), self.says[0].shape[1]))
        hits, total = np.empty((2, *f1.shape), dtype=np.float32)  # one memory for all classes: most of the time is here
        for k, says in enumerate(self.says, start=1 if self.task.metric == "f1" else 0):
            is_ = self.task.labels == k  # (items,)
            np.matmul(2 * w[:, is_], says[is_], out=hits)  # only items of the class can be hits
            np.matmul(w, says, out=total)
            total += (w @ is_.astype(np.float32))[:, None]
            np.maximum(total, 1, out=total)  # a class that is in neither: 0 / 1
            np.divide(hits, total, out=share, dtype=np.float64)
            share /= len(self.says)
            f1 += share
        return f1.reshape(shape)


def percentile_interval(value: float, replicates: FloatArray) -> Interval:
    """Percentile interval at `LEVEL` around an estimate: replicates (resamples,)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def speed_up(
    system: Sequence[FloatArray], reference: Sequence[FloatArray], rng: Generator, resamples: int = RESAMPLES
) -> SpeedUp:
    """How many times less of the budget `system` needs than `reference` to reach the same target.

    Each sequence holds one array (splits,) per task, with the same cells in both: the share of the budget, in (0, 1],
    that was spent when the target was first reached, `inf` where it never was. A censored cell counts as the whole
    budget (restricted mean), so where `system` misses targets the ratio is an upper bound of its speed-up, and where
    `reference` does a lower bound; `reached` of `cells` says how often `system` got there. The ratio is

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
    ratio = percentile_interval(reference_mean / system_mean, of_reference / of_system)
    return SpeedUp(ratio, reached, sum(pair.shape[1] for pair in pairs))


def _replicates(task: TaskPredictions, rng: Generator, resamples: int) -> FloatArray:
    """Bootstrap replicates of the scores on one task: (resamples, systems)."""
    systems, cells, items = task.predicted.shape
    splits = cells // task.repeats
    sizes = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]
    drawn = [
        (np.repeat(_counts(splits, size, rng) / cells, task.repeats, axis=1), _counts(items, size, rng).astype("f4"))
        for size in sizes
    ]
    some = max(1, _CELLS // cells)

    def of(start: int) -> FloatArray:
        scores = _Weighted.of(replace(task, predicted=task.predicted[start : start + some]))
        return np.concatenate([np.einsum("nas,ns->na", scores(w), v) for v, w in drawn])

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # numpy computes without the interpreter's lock
        return np.concatenate(list(pool.map(of, range(0, systems, some))), axis=1)


def _counts(n: int, resamples: int, rng: Generator) -> IntArray:
    """How often each of n things is in n draws with replacement: (resamples, n)."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
