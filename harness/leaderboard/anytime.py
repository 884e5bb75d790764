"""The score of an entry over its calls: step curves of the incumbent's test score, areas, ECDFs, calls to a target.

The referee keeps and scores the incumbents at `harness.results.status.MARKS` of the budget, with the rows that had
been spent when each was offered. So the curve of a cell is known from each offer to its mark. Between a mark and the
next known offer, the last known score is used. Older cells (`harness.results.status.FIRST_MARKS`) kept no incumbent
before 1/16 of the budget. Their earlier answers are known only if they were still the incumbent at 1/16.

Areas are normalised by a frozen reference (`references.toml`): 0 is the manual prompt, which costs nothing, and 1 is
the reference at full budget. Let s(c) be the score after c calls, B the budget, and m and r the two reference scores.
Means are over splits, then over tasks:

    area = (mean 1/log10(B) * integral from 1 to B of s(c) dlog10(c)  -  mean m) / (mean r - mean m)

Before the first answer, s(c) is the score of the bare template (`bare_scores`), as in every table and plot of scores by
calls. Tasks have the same weights as in the ranking; with a ratio per task, the task with the smallest gap would
dominate. The area is not clipped: below 0 is worse than no tuning, above 1 is better than the reference.

The ECDF follows COCO (Hansen et al. 2016, arXiv:1605.03560). For each number of calls it gives the share of all (task,
split, target) that were reached within them. The targets are at `TARGETS` of the way from m to r on the task. A target
is reached when the incumbent first has its score. There are no simulated restarts: a cell that misses a target never
reaches it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import InputError
from harness.results.status import COUNTS, MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.stats import FloatArray

BARE = "manual"
"""The submission that answers with the bare template."""
TARGETS = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the way from the manual prompt to the reference."""
_PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = _PACKAGE.parent / "leaderboard" / "references.toml"
"""The file of references of a checkout, which `harness leaderboard --freeze` writes."""
REFERENCES = CHECKOUT if CHECKOUT.is_file() else _PACKAGE / "_references.toml"
_IDENTITY = ("track_fingerprint", "model_sha256", "data_sha256")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Curve:
    """One cell's test score of the incumbent, a step function of calls."""

    calls: tuple[float, ...]
    """Calls after which each score holds, ascending; empty if there was no answer."""
    scores: tuple[float, ...]
    budget: float
    """The budget in calls."""
    spent: float
    """Number of calls used."""

    def weights(self) -> FloatArray:
        """Shares of log10(calls), from 1 call to the budget: before the first answer, and for each answer as incumbent.

        The shape is (1 + steps,) and the sum is 1. With a budget of one call, the last answer has the whole weight.
        """
        end = np.log10(max(self.budget, 1.0))
        if end <= 0:
            return np.array([0.0] * len(self.calls) + [1.0])
        starts = np.clip(np.log10(np.maximum(self.calls, 1.0)), 0.0, end)
        return np.asarray(np.diff([0.0, *starts, end]) / end)

    def area(self, before: float) -> float:
        """Mean score over log10(calls) from 1 call to the budget. Before the first answer the score is `before`."""
        return float(self.weights() @ np.array([before, *self.scores]))

    def runtime(self, target: float) -> float:
        """Calls after which the incumbent first has at least this score; inf if never."""
        reached = [c for c, score in zip(self.calls, self.scores, strict=True) if score >= target - _ROUNDING]
        return min(reached, default=float("inf"))


@dataclass(frozen=True)
class Reference:
    """Frozen scores of one version of a track, by task."""

    manual: Mapping[str, float]
    """Score of the manual prompt, which is 0 on the scale."""
    reference: Mapping[str, float]
    """Score of the reference, which is 1 on the scale."""
    origin: str
    """The runs in which the scores were measured."""

    def targets(self, task: str) -> tuple[float, ...]:
        """Scores on a task at `TARGETS`."""
        low, high = self.manual[task], self.reference[task]
        return tuple(low + share * (high - low) for share in TARGETS)


def frozen_tables(track: str, path: Path = REFERENCES) -> Mapping[str, Any]:
    """What a file of references has of a track; nothing if it has none.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig")).get(track, {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InputError(f"{path} is not a file of references: {problem}; mend it or move it away") from problem
    return found if isinstance(found, dict) else {}


def load_reference(track: str, identity: Mapping[str, Any], path: Path = REFERENCES) -> Reference | None:
    """The frozen scores of a track; None if there are none for this version, model and data, or only a power.

    Raises:
        InputError: the file cannot be read, or lacks scores of the track.
    """
    found = frozen_tables(track, path)
    if not found or any(found.get(name) != identity.get(name) for name in _IDENTITY):
        return None
    if "power" in found and not {"manual", "reference"} & set(found):
        return None
    lacks = [name for name in ("manual", "reference", "origin") if name not in found]
    if lacks:
        raise InputError(
            f"{path}: [{track}] has no {lacks[0]}; mend it, or take the track's tables out and freeze anew"
        )
    return Reference(found["manual"], found["reference"], found["origin"])


def curve(cell: CellScore) -> Curve:
    """The step curve of a cell. A failed cell has the failure's score everywhere.

    A reference with a budget of forward passes has a curve as well: its calls are forward passes over training texts.
    """
    train_rows = cell.record.train_rows
    budget, spent = float(cell.record.calls_total), cell.record.forward_calls or 0.0
    if cell.status not in COUNTS:
        return Curve((0.0,), (cell.score,), budget, spent)
    found = ((cell.rows[mark] / train_rows, cell.anytime[mark]) for mark in MARKS if mark in cell.rows)
    steps = {calls: score for calls, score in found if score is not None}
    return Curve(tuple(steps), tuple(steps.values()), budget, spent)


def bare_scores(reference: Reference | None, entries: Iterable[Entry]) -> Mapping[str, float] | None:
    """Score of the bare template on each task. It counts before the first answer.

    It is the frozen score. If none is frozen for these runs, it is the score of the entry `BARE` if that is complete,
    and None otherwise.
    """
    if reference is not None:
        return reference.manual
    found = [entry for entry in entries if entry.name == BARE and not (entry.missing or entry.white_box)]
    return {task: found[0].task(task)[0] for task in found[0].tasks} if found else None


def normalised_area(entry: Entry, reference: Reference) -> float | None:
    """The area of an entry; None without a budget (white-box), or if its tasks differ from the reference's."""
    if entry.white_box or set(entry.tasks) != set(reference.manual):
        return None
    areas = [
        np.mean([curve(cell).area(reference.manual[task]) for cell in entry.cells if cell.task == task])
        for task in entry.tasks
    ]
    manual, best = np.mean(list(reference.manual.values())), np.mean(list(reference.reference.values()))
    return float((np.mean(areas) - manual) / (best - manual))


def runtimes(entry: Entry, reference: Reference) -> FloatArray:
    """Calls to each target in each cell, inf if it is never reached: (cells, targets), cells in the entry's order."""
    found = [[curve(c).runtime(target) for target in reference.targets(c.task)] for c in entry.cells]
    return np.array(found, dtype=np.float64)


def ecdf(times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Steps of the ECDF: calls (n,), ascending and 1 at least, and the share of all `times` reached by then (n,)."""
    finite = np.sort(np.maximum(times[np.isfinite(times)], 1.0))
    return finite, np.arange(1, len(finite) + 1) / max(times.size, 1)


def profile(times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Performance profiles: calls to one target, as a multiple of the fewest calls that any entry needs in that place.

    Source: Dolan & More 2002, Mathematical Programming 91, 201-213. `times` (entries, places) are calls, inf if the
    target is never reached. Less than one call counts as one call. Places where no entry reaches the target are
    included in the total.

    Returns:
        Ratios (n,), ascending from 1, at which any entry's share grows; shares (entries, n) of places within each.
    """
    calls = np.maximum(times, 1.0)
    best = calls.min(axis=0)
    ratios = np.divide(calls, best, out=np.full(calls.shape, np.inf), where=np.isfinite(best))
    steps = np.unique(ratios[np.isfinite(ratios)])
    return steps, np.asarray((ratios[:, None] <= steps[:, None] * (1 + _ROUNDING)).mean(axis=2))


def expected_calls(times: Sequence[float], spent: Sequence[float]) -> float | None:
    """COCO's average runtime to one target: calls used in all cells, until success or the end, per success.

    `times` (cells,) are calls to the target, inf if never reached. `spent` (cells,) are all calls used. None without
    success.
    """
    successes = int(np.isfinite(times).sum())
    return float(np.minimum(times, spent).sum() / successes) if successes else None
