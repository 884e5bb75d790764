"""How long a ranking's statistics take: intervals, all pairs, shared ranks, rank intervals.

python benchmarks/bench_stats.py                     50 submissions x 25 cells x 1,000 items
python benchmarks/bench_stats.py --submissions 500   more of them

The predictions are made up: each submission is right with a chance of its own, by task. What is timed begins with
predictions in memory and ends with everything that the CSV and the terminal table show. Numbers: docs/statistics.md.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.standing import standings
from harness.results.records import CellRecord
from harness.tracks.tasks import load_task

TASKS = ("sst2", "dbpedia", "snli", "qqp", "qnli")


def made_up(submissions: int, splits: int, items: int, rng: np.random.Generator) -> list[Entry]:
    """Complete entries, best average first."""
    labels = {task: rng.integers(len(load_task(task).classes), size=items) for task in TASKS}
    return [
        Entry(1, f"entry-{n}", f"run-{n}", _cells(labels, splits, 0.9 - 0.3 * n / submissions, rng), 0, {})
        for n in range(submissions)
    ]


def _cells(
    labels: dict[str, np.ndarray], splits: int, chance: float, rng: np.random.Generator
) -> tuple[CellScore, ...]:
    cells = []
    for task, truth in labels.items():
        for split in range(1, splits + 1):
            wrong = rng.integers(len(load_task(task).classes), size=len(truth))
            predicted = np.where(rng.random(len(truth)) < chance, truth, wrong)
            cells.append(CellScore(task, split, "ok", chance, {}, CellRecord(), {}, predicted, truth))
    return tuple(cells)


def main() -> None:
    """Make up, time, print."""
    parser = argparse.ArgumentParser(description="Time the statistics of a ranking.")
    parser.add_argument("--submissions", type=int, default=50)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--items", type=int, default=1_000)
    given = parser.parse_args()
    entries = made_up(given.submissions, given.splits, given.items, np.random.default_rng(0))
    before = time.process_time()
    found = standings(entries)
    if found is None:
        raise SystemExit("no submission: nothing to time")
    groups = len({each.rank for each in found.entries.values()})
    first = time.process_time() - before
    for name in found.names[:10]:
        found.against(name)
    pairs = (time.process_time() - before - first) / min(10, given.submissions)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{given.submissions} submissions x {len(TASKS) * given.splits} cells x {given.items:,} items: "
        f"{first:.1f} s of CPU time; one submission against all others {pairs:.2f} s; "
        f"peak {peak:,.0f} MiB; {groups} ranks, resolution {(found.resolution or 0) * 100:.2f} points"
    )


if __name__ == "__main__":
    main()
