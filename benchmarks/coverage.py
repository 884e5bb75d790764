"""How often the intervals hold the truth, and how often shared ranks call equals different. By simulation.

python benchmarks/coverage.py                    all tables of docs/statistics.md, about two minutes of one core
python benchmarks/coverage.py --repetitions 100  a quick look

One task with two systems. An item is easy or hard (its chance of being answered right is 0.2 above or below), the same
for both; a split moves both systems by 2 points (SD), and each system by another 1 point. On 30 % of the items the luck
of the draw is the same for all systems and splits, on 20 % for all splits of a system, so that about 0.6 of the
variance of an answer is common to the splits. An answer that is not right is one of the other classes, by unequal
shares, so that macro-F1 is not accuracy. The true gap is 1 point of accuracy; the true macro-F1 is computed from the
expected confusion matrix of many splits. Each repetition draws splits and items anew, so the truth is what a system
does on all splits and all items.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.leaderboard.stats import Interval, TaskPredictions, bootstrap
from harness.leaderboard.ties import shared_ranks

if TYPE_CHECKING:
    from harness.contract import Metric

CLASSES = 3
CHANCE, GAP = 0.70, 0.01
SPLIT_SD, OWN_SD, ITEM = 0.02, 0.01, 0.2
ALIKE, SETTLED = 0.3, 0.2
"""Shares of items whose luck is common to all systems and splits, and to all splits of one system."""
WRONG = np.array([0.5, 0.3, 0.2])
"""How wrong answers fall on classes, before the right class is taken out."""
RESAMPLES = 400
EQUALS = 10


@dataclass(frozen=True)
class Drawn:
    """Predictions of systems on fresh splits and items."""

    predicted: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


def draw(gaps: npt.NDArray[np.float64], splits: int, items: int, rng: np.random.Generator) -> Drawn:
    """Systems that differ by `gaps` from `CHANCE`, on splits and items drawn anew."""
    labels = rng.integers(CLASSES, size=items)
    easy = rng.choice([-ITEM, ITEM], size=items)
    chance = _chances(gaps, splits, rng)[:, :, None] + easy  # (systems, splits, items)
    right = _luck(chance.shape, rng) < chance
    return Drawn(np.where(right, labels, _wrong(labels, right.shape, rng)), labels)


def _luck(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1] for each (system, split, item), on some items the same for several."""
    systems, _, items = shape
    kind = rng.random(items)
    settled = np.where(kind < ALIKE, rng.random((1, 1, items)), rng.random((systems, 1, items)))
    return np.asarray(np.where(kind < ALIKE + SETTLED, settled, rng.random(shape)), dtype=np.float64)


def _chances(gaps: npt.NDArray[np.float64], splits: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    shared, own = rng.standard_normal((1, splits)), rng.standard_normal((len(gaps), splits))
    return CHANCE + gaps[:, None] + SPLIT_SD * shared + OWN_SD * own


def _wrong(labels: npt.NDArray[np.int64], shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A class other than the label, by `WRONG`."""
    cumulative = np.cumsum(_confusion(0.0), axis=1)[labels]  # (items, classes)
    return np.asarray((rng.random(shape)[..., None] > cumulative).sum(axis=-1), dtype=np.int64)


def _confusion(chance: float) -> npt.NDArray[np.float64]:
    """Expected share of each answer for each label: (labels, answers)."""
    off = WRONG * (1 - np.eye(CLASSES))
    return np.asarray(chance * np.eye(CLASSES) + (1 - chance) * off / off.sum(axis=1, keepdims=True))


def true_scores(metric: Metric, gaps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Expected score over splits, on infinitely many items: (systems,)."""
    if metric == "accuracy":
        return CHANCE + gaps
    chances = _chances(gaps, 20_000, np.random.default_rng(1))
    grid = np.linspace(chances.min(), chances.max(), 400)
    f1 = [np.mean([2 * c[k, k] / (1 + c[:, k].sum()) for k in range(CLASSES)]) for c in map(_confusion, grid)]
    return np.asarray(np.interp(chances, grid, f1).mean(axis=1))


def coverage(
    metric: Metric, tasks: int, splits: int, items: int, repetitions: int, rng: np.random.Generator
) -> tuple[float, ...]:
    """Share of repetitions whose interval holds the truth, and its mean half-width: of a score, of a difference.

    Both are averages over so many tasks.
    """
    gaps = np.array([0.0, GAP])
    truth = true_scores(metric, gaps)
    held, halves = np.zeros(2), np.zeros(2)
    for _ in range(repetitions):
        found = bootstrap(_tasks(metric, gaps, tasks, splits, items, rng), rng, RESAMPLES)
        pair: list[tuple[Interval, float]] = [
            (found.score(0), float(truth[0])),
            (found.difference(1, 0), float(truth[1] - truth[0])),
        ]
        held += [interval.low <= value <= interval.high for interval, value in pair]
        halves += [(interval.high - interval.low) / 2 for interval, _ in pair]
    return tuple((np.array([held, halves]) / repetitions).T.ravel().tolist())


def _tasks(
    metric: Metric, gaps: npt.NDArray[np.float64], tasks: int, splits: int, items: int, rng: np.random.Generator
) -> list[TaskPredictions]:
    drawn = [draw(gaps, splits, items, rng) for _ in range(tasks)]
    return [TaskPredictions(each.predicted, each.labels, metric, CLASSES) for each in drawn]


def false_steps(tasks: int, splits: int, items: int, repetitions: int, rng: np.random.Generator) -> float:
    """Share of repetitions in which `EQUALS` equally good systems do not all share rank 1."""
    wrong = 0
    for _ in range(repetitions):
        found = bootstrap(_tasks("accuracy", np.zeros(EQUALS), tasks, splits, items, rng), rng, 1_000)
        wrong += bool((shared_ranks(found) != 1).any())
    return wrong / repetitions


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Simulate the coverage of intervals and the errors of shared ranks.")
    parser.add_argument("--repetitions", type=int, default=1_000)
    given = parser.parse_args()
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    print("| metric | tasks | splits | items | score: coverage | ± points | difference: coverage | ± points |")
    print("|---|---|---|---|---|---|---|---|")
    metrics: tuple[Metric, ...] = ("accuracy", "macro_f1")
    single = [(metric, 1, splits, items) for metric in metrics for splits in (3, 5) for items in (200, 1_000)]
    for metric, tasks, splits, items in [*single, ("accuracy", 5, 3, 200), ("accuracy", 5, 5, 1_000)]:
        c, half, d, d_half = coverage(metric, tasks, splits, items, given.repetitions, rng)
        shown = f"{c:.1%} | {half * 100:.1f} | {d:.1%} | {d_half * 100:.1f}"
        print(f"| {metric} | {tasks} | {splits} | {items:,} | {shown} |", flush=True)
    print(f"\n| tasks | splits | items | {EQUALS} equal systems, not all at rank 1 |\n|---|---|---|---|")
    for tasks, splits, items in ((1, 3, 200), (1, 3, 1_000), (5, 3, 200)):
        wrong = false_steps(tasks, splits, items, given.repetitions, rng)
        print(f"| {tasks} | {splits} | {items:,} | {wrong:.1%} |", flush=True)
    print(f"\n{given.repetitions} repetitions, {RESAMPLES} replicates (1,000 of equals) each; ", end="")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
