"""How often the leaderboard's rule is wrong, and what it sees. By simulation, with two generators of answers.

python benchmarks/ranks.py                          the whole grid of docs/statistics.md, about half an hour of one core
python benchmarks/ranks.py --repetitions 100        a quick look
python benchmarks/ranks.py --generator probit       one of the two generators
python benchmarks/ranks.py --unequal                the same where systems vary unequally from split to split
python benchmarks/ranks.py --out FILE.md            writes the table there, too, line by line

Ten or twenty equally good systems answer the test items of each task after tuning on each split. On a split all
systems are better or worse by 2 points (SD), and each system by another 1, 2 or 3 points, its own. Each repetition
draws splits and items anew and asks `harness.leaderboard` for all pairs:

false       any pair is told apart, accuracy and macro-F1: should be 5 % or less
ladder      known steps of 0.1, 0.5 or 1 point are added to the averages: how often all rank intervals together hold
            the true ranks; the worst of the three. Should be 95 % or more
seen        share of pairs told apart at the lead that the same rule sees in 9 of 10 cases where it knows the variance
            of a difference (taken from all repetitions), divided by 0.9
score       how often the interval of a single score holds the mean of all repetitions: should be 95 %

*chances*: an item is easy or hard by 20 points, the same for all. On 30 % of the items the luck of the draw is the same
for all systems and splits, on 20 % for all splits of a system. A wrong answer is one of the other classes, by unequal
shares. *probit*: an answer is right where a normal variable is positive that adds up effects of item (half of its
variance), of system on item (a fifth), of split, and chance; the rarest class is the hardest, and a wrong answer falls
on the class that this item looks like. The two were written apart from each other; the first has the effects of splits
on the scale of accuracy, the second on that of the normal variable.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.leaderboard.stats import Scores, TaskPredictions, TaskScores
from harness.leaderboard.ties import Pairs, critical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.contract import Metric

Floats = npt.NDArray[np.float64]

CLASSES = 3
SHARED_SD = 0.02
ALIKE, SETTLED, LIKELY = 0.3, 0.2, 0.65
"""Of *chances*: items whose luck all share, or all splits of a system; wrong answers that are the frequent mistake."""
SYSTEMS = 20
FIELDS = (10, 20)
"""Sizes of the field; the smaller one is the first and the second half of the larger."""
METRICS: tuple[Metric, ...] = ("accuracy", "macro_f1")
ITEMS, OWN = (200, 1_000, 5_000), (0.01, 0.02, 0.03)
DESIGNS = ((1, 3), (5, 3), (7, 3), (5, 5))
"""Tasks x splits."""
STEPS = (0.001, 0.005, 0.01)
SEEN = 0.9
Generator = np.random.Generator


def chances(own: Floats, splits: int, items: int, rng: Generator) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Answers (systems, splits, items) and labels (items,) of one task: effects on the scale of accuracy."""
    labels = rng.integers(CLASSES, size=items, dtype=np.int8)
    easy = rng.choice(np.array([-0.2, 0.2], dtype=np.float32), size=items)
    level = 0.7 + SHARED_SD * rng.standard_normal(splits) + own[:, None] * rng.standard_normal((len(own), splits))
    kind = rng.random(items)
    luck = rng.random((len(own), splits, items), dtype=np.float32)
    alike, settled = kind < ALIKE, (kind >= ALIKE) & (kind < ALIKE + SETTLED)
    luck[..., alike] = rng.random(alike.sum(), dtype=np.float32)
    luck[..., settled] = rng.random((len(own), 1, settled.sum()), dtype=np.float32)
    right = luck < level.astype(np.float32)[..., None] + easy
    likely = np.where(labels == 0, 1, 0).astype(np.int8)  # the frequent mistake, and the rare one
    rare = (3 - labels - likely).astype(np.int8)
    wrong = np.where(rng.random(right.shape, dtype=np.float32) < LIKELY, likely, rare)
    return np.where(right, labels, wrong), labels


def probit(own: Floats, splits: int, items: int, rng: Generator) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """The same with effects on a normal variable: correlated between systems by item."""
    labels = rng.choice(CLASSES, size=items, p=[0.5, 0.3, 0.2]).astype(np.int8)
    middle = stats.norm.ppf(0.7)
    slope = stats.norm.pdf(middle)  # accuracy by level of a variable of variance 1
    shift = np.array([0.1, 0.0, -0.25], dtype=np.float32)[labels]
    level = middle + rng.standard_normal(splits) * SHARED_SD / slope
    level = level + own[:, None] / slope * rng.standard_normal((len(own), splits))
    variable = np.sqrt(0.3, dtype=np.float32) * rng.standard_normal((len(own), splits, items), dtype=np.float32)
    variable += np.sqrt(0.5) * rng.standard_normal(items, dtype=np.float32) + shift
    variable += np.sqrt(0.2, dtype=np.float32) * rng.standard_normal((len(own), 1, items), dtype=np.float32)
    variable += level.astype(np.float32)[..., None]
    looks_like = ((labels + rng.integers(1, CLASSES, size=items)) % CLASSES).astype(np.int8)
    return np.where(variable > 0, labels, looks_like), labels


GENERATORS: dict[str, Callable[..., tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]]] = {
    "chances": chances,
    "probit": probit,
}


@dataclass(frozen=True)
class Measured:
    """Shares of repetitions; NaN where nothing was asked."""

    false: float
    ladder: float
    seen: float
    score: float
    lead: float
    """That `seen` is about."""


@dataclass(frozen=True)
class Repetition:
    """What is kept of one field of equal systems."""

    values: Floats
    """(systems, systems) differences."""
    halves: Floats
    scores: Floats
    """(systems,)"""
    score_halves: Floats


def repetitions(
    generator: str, tasks: int, splits: int, items: int, own: Floats, count: int, seed: int
) -> Iterator[dict[str, Scores]]:
    """Scores of equal systems by metric, splits and items drawn anew each time."""
    rng = np.random.default_rng([seed, tasks, splits, items, round(own.sum() * 1e6), len(generator)])
    for _ in range(count):
        drawn = [GENERATORS[generator](own, splits, items, rng) for _ in range(tasks)]
        yield {
            metric: Scores(
                tuple(
                    TaskScores.of_predictions(TaskPredictions(said, labels, metric, CLASSES)) for said, labels in drawn
                )
            )
            for metric in METRICS
        }


def looked_at(scores: Scores) -> Repetition:
    """All pairs and all scores."""
    pairs = Pairs(scores.differences())
    values, halves = scores.singles()
    return Repetition(pairs.found.values, pairs.halves, values, halves)


def measured(found: list[Repetition]) -> Measured:
    """Error rates and power of a list of repetitions of one kind."""
    systems = len(found[0].values)
    off = ~np.eye(systems, dtype=bool)
    values = np.stack([each.values for each in found])
    halves = np.stack([each.halves for each in found])
    false = (values > halves).any(axis=(1, 2)).mean()
    spread = float(np.sqrt((values[:, off] ** 2).mean()))
    lead = float(critical(systems, np.array([np.inf]))[0] + stats.norm.ppf(SEEN)) * spread
    seen = (values[:, off] + lead > halves[:, off]).mean() / SEEN
    truth = np.arange(systems)  # the first is the best
    ladders = []
    for step in STEPS:
        better = values + step * (truth[None, :] - truth[:, None]) > halves
        low, high = better.sum(axis=1), systems - 1 - better.sum(axis=2)
        ladders.append(((low <= truth) & (truth <= high)).all(axis=1).mean())
    scores = np.stack([each.scores for each in found])
    held = (abs(scores - scores.mean()) <= np.stack([each.score_halves for each in found])).mean()
    return Measured(float(false), float(min(ladders)), float(seen), float(held), lead)


def cell(
    generator: str, tasks: int, splits: int, items: int, own: Floats, count: int, seed: int = 0
) -> dict[tuple[str, int], Measured]:
    """One place of the grid: by metric and size of the field."""
    found: dict[tuple[str, int], list[Repetition]] = {}
    for scores in repetitions(generator, tasks, splits, items, own, count, seed):
        for metric, each in scores.items():
            for systems in FIELDS:
                for first in range(0, len(own) - systems + 1, systems):
                    part = each.among(range(first, first + systems))
                    found.setdefault((metric, systems), []).append(looked_at(part))
    return {key: measured(each) for key, each in found.items()}


def unequal(sd: float) -> dict[str, Floats]:
    """Own split SDs that differ between systems: every second one a third, or one in five three times as much."""
    half, few = np.full(SYSTEMS, sd), np.full(SYSTEMS, sd)
    half[::2] = 0.3 * sd
    few[::5] = 3 * sd
    return {"half vary 0.3 times as much": half, "a fifth vary 3 times as much": few}


KINDS = tuple(f"{metric} {systems}" for metric in METRICS for systems in FIELDS)


def grid(generators: Sequence[str], count: int) -> Iterator[str]:
    """Lines of the main table."""
    yield f"| generator | tasks x splits | items | own SD | false: {' | '.join(KINDS)} | ladder | seen | score |"
    yield "|" + "---|" * (7 + len(KINDS))
    for generator, (tasks, splits), items, sd in itertools.product(generators, DESIGNS, ITEMS, OWN):
        each = list(cell(generator, tasks, splits, items, np.full(SYSTEMS, sd), count).values())
        shown = " | ".join(f"{one.false:.1%}" for one in each)
        worst = (
            f"{min(m.ladder for m in each):.1%} | {min(m.seen for m in each):.2f} | {min(m.score for m in each):.1%}"
        )
        yield f"| {generator} | {tasks}x{splits} | {items:,} | {sd:.0%} | {shown} | {worst} |"


def unequal_grid(generators: Sequence[str], count: int) -> Iterator[str]:
    """Lines of the table of systems that vary unequally: 1,000 items, an own SD of 2 points in the middle."""
    yield f"| generator | systems | tasks x splits | false: {' | '.join(KINDS)} |"
    yield "|" + "---|" * (3 + len(KINDS))
    for generator, (name, own), (tasks, splits) in itertools.product(generators, unequal(0.02).items(), DESIGNS):
        found = cell(generator, tasks, splits, 1_000, own, count)
        yield f"| {generator} | {name} | {tasks}x{splits} | {' | '.join(f'{m.false:.1%}' for m in found.values())} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Simulate false separations, coverage of ranks and power.")
    parser.add_argument("--repetitions", type=int, default=1_000)
    parser.add_argument("--generator", action="append", choices=tuple(GENERATORS), help="default both")
    parser.add_argument("--unequal", action="store_true", help="systems that vary unequally from split to split")
    parser.add_argument("--out", type=Path, help="a file to write the table to as well, line by line")
    given = parser.parse_args()
    started = time.perf_counter()
    written: list[str] = []
    for line in (unequal_grid if given.unequal else grid)(given.generator or tuple(GENERATORS), given.repetitions):
        print(line, flush=True)
        written.append(line)
        if given.out:
            given.out.write_text("\n".join(written) + "\n", encoding="utf-8")
    print(f"\n{given.repetitions} repetitions, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
