"""The uncertainty of scores and of their differences: variance over splits and test items, without double counting.

A score of system a on split s of a task is read as

    score = mean of a + effect of s, shared by all + effect of s on a alone + noise of the test items,

where the same items serve all systems and splits. With psi_asi the influence of item i
(`harness.leaderboard.influence`) and S splits of n items, the variance of a mean over splits, or of a difference of
two such means, is that of a two-way layout, splits by items (Searle, Casella & McCulloch 1992, *Variance Components*,
chapter 4):

    variance = MS(splits) / S  +  [ MS(items) - MS(rest) ] / (n S).

The first term, from the scores alone, holds what splits do, and with it the noise of items that is new in each split.
The second holds the noise of items that is the same in all splits; the noise that is in the first already is taken off.
It is never below 0. For the average over T tasks the terms add up, divided by T^2.

MS(splits) has S - 1 degrees of freedom on a task: few. So the sum over tasks has the degrees of freedom of
Satterthwaite (1946, Biometrics Bulletin 2, 110-114), and for differences the variances of all pairs are moderated
towards a common one (`moderated`). Where all splits show exactly the same, as they may of two entries that differ in a
few items, MS(splits) is 0, though each split may have other items: there the noise of items that is new in each split,
MS(rest) / (n S), stands for the first term. Tasks are not drawn: what is said holds for these tasks. A single split
shows no variance between splits; then intervals hold items alone, and there are no ranks (`Scores.carries_ranks`).

What is made of the differences of all pairs is in `harness.leaderboard.ties`. How often all this is wrong is simulated
by ``benchmarks/ranks.py``; its tables are in ``docs/statistics.md``. Pure numpy and scipy, without any chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from harness.leaderboard.influence import influences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.contract import IntArray, Metric

FloatArray = npt.NDArray[np.floating[Any]]

LEVEL = 0.95
FEWEST_DF = 6
"""Degrees of freedom that a pair needs at least, sum over tasks of splits - 1, for ranks: with fewer nobody can see
whether entries vary alike, and if they do not, the rule does not hold its level (docs/statistics.md)."""
_SHOWN = 3
"""Degrees of freedom of a variance below which nothing can be made of how variances differ."""
_NOTHING = 1e-9
"""Share of the noise of items that is new in each split: a smaller variance between splits is rounding."""
_FLOOR = 1e-5
"""Share of the median variance: smaller variances are raised to it before logarithms are taken."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits."""

    value: float
    low: float
    high: float

    def points(self, sign: str = "", unit: str = "") -> str:
        """The estimate and its limits in points, as ``72.7 [70.2, 75.2]``; with `sign` "+", each has its sign."""
        value, low, high = (f"{100 * each:{sign}.1f}" for each in (self.value, self.low, self.high))
        return f"{value}{unit} [{low}, {high}]"


@dataclass(frozen=True)
class TaskPredictions:
    """What systems predicted on the test set of one task."""

    predicted: IntArray
    """(systems, splits x repeats, items): the class each system predicts after tuning on each split, so many times."""
    labels: IntArray
    """The true classes: (items,)"""
    metric: Metric
    classes: int
    repeats: int = 1
    """Times that each split was tuned on with other chance, one after the other in `predicted`. A split's score is the
    mean over its repeats: what is left of the optimiser's chance is part of what splits differ by."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together.

        Raises:
            ValueError: wrong axes, no split or no item.
        """
        shape = self.predicted.shape
        if len(shape) != 3 or shape[2:] != self.labels.shape or 0 in shape[1:]:  # noqa: PLR2004 - three axes
            raise ValueError(f"predictions {shape} for labels {self.labels.shape}: (systems, splits, items) is needed")

    def of_splits(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Scores (systems,) and influences (systems, items) of each split, means over its repeats."""
        runs = np.moveaxis(self.predicted, 1, 0)
        for first in range(0, len(runs), self.repeats):
            own = runs[first : first + self.repeats]
            found = [influences(self.metric, each, self.labels, self.classes) for each in own]
            yield np.mean([scores for scores, _ in found], axis=0), np.mean([each for _, each in found], axis=0)


@dataclass(frozen=True)
class TaskScores:
    """The statistics of one task: scores by split, and the covariances between systems due to the items."""

    scores: FloatArray
    """(systems, splits)"""
    items: FloatArray
    """(systems, systems): covariance of means over splits from all noise of items, MS(items) / (n S)."""
    rest: FloatArray
    """(systems, systems): the part of it that is new in each split, MS(rest) / (n S); 0 with a single split."""
    size: int
    """Number of items."""

    @classmethod
    def of(cls, splits: Iterable[tuple[FloatArray, FloatArray]]) -> TaskScores:
        """Compute them from scores (systems,) and influences (systems, items) of each split, one split at a time."""
        columns: list[FloatArray] = []
        total: FloatArray = np.zeros(())
        squares: FloatArray = np.zeros(())
        for scores, influence in splits:
            columns.append(scores)
            total = total + influence
            squares = squares + influence @ influence.T
        count, items = len(columns), total.shape[1]
        mean = total / count
        freedom = items * max(items - 1, 1)
        between = mean @ mean.T
        rest = (squares - count * between) / (count * max(count - 1, 1) * freedom)
        return cls(np.stack(columns, axis=1), between / freedom, rest if count > 1 else 0 * between, items)

    @classmethod
    def of_predictions(cls, task: TaskPredictions) -> TaskScores:
        """Compute them for the task's metric."""
        return cls.of(task.of_splits())

    def among(self, systems: Sequence[int]) -> TaskScores:
        """The same for some systems alone."""
        kept = np.asarray(systems, dtype=np.int64)
        square = np.ix_(kept, kept)
        return TaskScores(self.scores[kept], self.items[square], self.rest[square], self.size)

    def minus(self, other: TaskScores) -> TaskScores:
        """The same systems after the same tuning, here and on a test set of other items."""
        return TaskScores(
            self.scores - other.scores, self.items + other.items, self.rest + other.rest, min(self.size, other.size)
        )

    @property
    def splits(self) -> int:
        """Number of splits."""
        return int(self.scores.shape[1])

    @cached_property
    def between(self) -> FloatArray:
        """Covariance of means over splits from what splits do, MS(splits) / S; 0 with a single split."""
        centred = self.scores - self.scores.mean(axis=1, keepdims=True)
        return np.asarray(centred @ centred.T / (self.splits * max(self.splits - 1, 1)))


@dataclass(frozen=True)
class Differences:
    """Averages of all systems, and all pairs of them: (systems, systems), row minus column."""

    averages: FloatArray
    """(systems,)"""
    values: FloatArray
    errors: FloatArray
    """Standard errors."""
    freedom: FloatArray
    """Degrees of freedom of the standard errors."""


@dataclass(frozen=True)
class Scores:
    """Scores of systems on tasks with what is known of their variance."""

    tasks: tuple[TaskScores, ...]

    @property
    def observed(self) -> FloatArray:
        """Mean over splits: (tasks, systems)."""
        return np.stack([task.scores.mean(axis=1) for task in self.tasks])

    @property
    def carries_ranks(self) -> bool:
        """Whether there are enough splits to estimate their variance, as ranks need."""
        return carries_ranks([task.splits for task in self.tasks])

    def among(self, systems: Sequence[int]) -> Scores:
        """The same for some systems alone."""
        return Scores(tuple(task.among(systems) for task in self.tasks))

    def on(self, task: int | None = None) -> Scores:
        """The same for one task, or for all."""
        return self if task is None else Scores((self.tasks[task],))

    def score(self, system: int, task: int | None = None) -> Interval:
        """A system's score on a task, or its average over all tasks: a t interval at `LEVEL`, of this score alone.

        A score is a share, so limits are clipped to the range from 0 to 1.
        """
        if task not in self._found:
            self._found[task] = self.singles(task)
        values, halves = self._found[task]
        value, half = float(values[system]), float(halves[system])
        return Interval(value, max(value - half, 0.0), min(value + half, 1.0))

    @cached_property
    def _found(self) -> dict[int | None, tuple[FloatArray, FloatArray]]:
        """Cache of `singles`: each system asks for its own."""
        return {}

    def singles(self, task: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Scores of all systems on a task or on average, and the half-widths of their intervals: (systems,) each.

        The two variances have quantiles of their own, as in Cochran & Cox's test (1950, *Experimental Designs*): where
        two degrees of freedom show a small variance by chance, those of a sum would follow the other one.
        """
        chosen = self.on(task)
        count = len(chosen.tasks)
        by_task = np.stack([np.diagonal(each.between) for each in chosen.tasks]) / count**2  # (tasks, systems)
        items = sum(np.diagonal(each.items - each.rest) for each in chosen.tasks) / count**2
        alike = [
            (each.splits - 1, each.splits - 1) for each in chosen.tasks
        ]  # what a split does to all: known no better
        df = _satterthwaite(by_task.mean(axis=1), alike)
        rest = np.sum([np.diagonal(each.rest) for each in chosen.tasks], axis=0) / count**2
        splits = _at_least(by_task.sum(axis=0), rest)
        squares = splits * _t(df) ** 2 + np.maximum(items, 0) * _t(chosen.fewest_items - 1) ** 2
        return chosen.observed.mean(axis=0), np.asarray(np.sqrt(squares))

    def differences(self, task: int | None = None) -> Differences:
        """All pairs, on a task or on average."""
        chosen = self.on(task)
        averages = chosen.observed.mean(axis=0)
        systems, count = len(averages), len(chosen.tasks)
        upper = np.triu_indices(systems, 1)
        by_task = np.stack([_of_pairs(each.between)[upper] for each in chosen.tasks]) / count**2  # (tasks, pairs)
        items = sum(_of_pairs(each.items - each.rest)[upper] for each in chosen.tasks) / count**2
        error, freedom = np.zeros((2, systems, systems))
        if len(upper[0]):
            shared = [((systems - 1) * (each.splits - 1), each.splits - 1) for each in chosen.tasks]
            df = _satterthwaite(by_task.mean(axis=1), shared)
            splits, df_splits = moderated(by_task.sum(axis=0), df, (systems - 1) * df)
            rest = np.sum([_of_pairs(each.rest)[upper] for each in chosen.tasks], axis=0) / count**2
            splits = _at_least(splits, rest)
            pair = _together(splits, np.asarray(df_splits), np.maximum(items, 0), chosen.fewest_items)
            for whole, each in zip((error, freedom), pair, strict=True):
                whole[upper] = each
                whole.T[upper] = each
        np.fill_diagonal(freedom, np.inf)
        return Differences(averages, averages[:, None] - averages, error, freedom)

    @property
    def fewest_items(self) -> int:
        """Number of items in the smallest test set."""
        return min(task.size for task in self.tasks)


def carries_ranks(splits: Sequence[int]) -> bool:
    """Whether these numbers of splits per task are enough to estimate the variance between splits, as ranks need."""
    return min(splits) > 1 and sum(splits) - len(splits) >= FEWEST_DF


def scores_of(tasks: Sequence[TaskPredictions]) -> Scores:
    """Scores of all systems on all tasks; every task must have the same systems in the same order."""
    return Scores(tuple(TaskScores.of_predictions(task) for task in tasks))


def moderated(variances: FloatArray, df: float, most: float) -> tuple[FloatArray, float]:
    """Shrink the variances of many pairs towards a common one. The more alike they are, the stronger the shrinkage.

    The true variances are taken to vary as scaled inverse chi-square; their prior degrees of freedom d0 and scale s0^2
    are fitted to the logarithms of the observed ones (Smyth 2004, Statistical Applications in Genetics and Molecular
    Biology 3(1), article 3, section 6.2). Where these spread no more than chance spreads them, all pairs have the mean.

    Deviations from the paper: no variance is made smaller than it was observed, since a few pairs that vary much more
    than the others do not follow such a prior, and it drew them down too far; the mean of variances stands in for the
    exp of a mean of logarithms where d0 is infinite; the pooled degrees of freedom are a limit (as in R's limma); pairs
    are not independent, since they share systems; and with fewer degrees of freedom than `_SHOWN` all have the mean,
    because the fit then follows chance more than differences.

    Args:
        variances: (pairs,), each with `df` degrees of freedom.
        df: of one.
        most: of all together.

    Returns:
        (df s^2 + d0 s0^2) / (df + d0) for each pair, or s^2 where that is larger; their degrees of freedom, df + d0, at
        most `most`.
    """
    if len(variances) == 1 or not variances.any():
        return variances, df
    middle = np.median(variances) or variances.mean()
    logs = np.log(np.maximum(variances, _FLOOR * middle)) - special.digamma(df / 2) + np.log(df / 2)
    spread = float(logs.var(ddof=1) - special.polygamma(1, df / 2))
    if spread <= 0 or df < _SHOWN:
        return np.full(len(variances), variances.mean()), most
    prior = 2 * _inverse_trigamma(spread)
    scale = np.exp(logs.mean() + special.digamma(prior / 2) - np.log(prior / 2))
    drawn = (df * variances + prior * scale) / (df + prior)
    return np.asarray(np.maximum(drawn, variances)), min(df + prior, most)


def _inverse_trigamma(value: float) -> float:
    """The point at which trigamma has this value, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:  # noqa: PLR2004 - relative
            break
    return x


def _of_pairs(covariance: FloatArray) -> FloatArray:
    """Variance of the difference of each two: (systems, systems) of covariances -> (systems, systems)."""
    own = np.diagonal(covariance)
    return np.asarray(own[:, None] + own - 2 * covariance)


def _satterthwaite(variances: FloatArray, freedom: Sequence[tuple[int, int]]) -> float:
    """Degrees of freedom of a sum of variances (tasks,), between those of one task and the sum over tasks.

    For each task `freedom` has how many degrees of freedom the given variance was estimated with, and how many the
    variance has whose sum is asked about. The first correct squares of estimates, which are too large on average.
    """
    estimated, own = (np.array([pair[n] for pair in freedom], dtype=np.float64) for n in (0, 1))
    known = own > 0
    total = float(own.sum())
    if not known.any() or not variances[known].any():
        return max(total, 1.0)
    v, estimated, own = variances[known], estimated[known], own[known]
    above = v.sum() ** 2 - (2 * v**2 / (estimated + 2)).sum()
    below = (v**2 * estimated / (estimated + 2) / own).sum()
    return float(np.clip(above / below, own.min(), total))


def _at_least(splits: FloatArray, rest: FloatArray) -> FloatArray:
    """Variances between splits; where they are 0 but for rounding, the noise of items that is new in each split."""
    return np.where(splits > _NOTHING * rest, splits, np.maximum(rest, 0))


def _t(freedom: float) -> float:
    """Quantile at `LEVEL` of |t|."""
    return float(stats.t.ppf((1 + LEVEL) / 2, max(freedom, 1)))


def _together(splits: FloatArray, df: FloatArray, items: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Standard error and degrees of freedom (Satterthwaite) of a sum of two variances, `items` from so many items."""
    variance = splits + items
    below = splits**2 / df + items**2 / max(size - 1, 1)
    freedom = np.divide(variance**2, below, out=np.full(np.shape(variance), np.inf), where=below > 0)
    return np.sqrt(variance), freedom
