"""The curves of a list that pages and figures draw: scores over calls, their limits, and the front over budgets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.leaderboard.traces import Steps, Trace, envelope, traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.leaderboard.stats import FloatArray, Interval

SHOWN = 8
"""Number of entries that a plot shows at first, one for each colour."""
WIDEST = 40.0
"""Largest range of a plot's scores in points. What is further below the best is off the plot."""
STEP = 5.0
"""Limits of a plot are multiples of so many points."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Best:
    """The entry with the highest score at some budget."""

    calls: float
    """The budget, in calls of a cell."""
    run: str | None
    """None while nobody is better than the bare template."""
    score: Interval | None


@dataclass(frozen=True)
class Curves:
    """Scores over calls of the complete entries of a list, best average first."""

    calls: tuple[float, ...]
    parts: Mapping[str, Mapping[str, Steps]]
    """By run, then by task."""
    bare: Mapping[str, float] | None
    """Score of the bare template on each task; None if it is not known."""
    budgets: Mapping[str, float]
    """Calls of a cell, by task."""

    @cached_property
    def _found(self) -> dict[str | None, dict[str, Trace]]:
        return {}

    def on(self, task: str | None = None) -> dict[str, Trace]:
        """The trace of each run on a task, or on average."""
        if task not in self._found:
            made = traces(list(self.parts.values()), self.calls, task)
            self._found[task] = dict(zip(self.parts, made, strict=True))
        return self._found[task]

    def budget(self, task: str | None = None) -> float:
        """Calls of a cell of a task; on average the largest budget."""
        return self.budgets[task] if task else max(self.budgets.values(), default=1.0)

    def before(self, task: str | None = None) -> float | None:
        """The bare template's score on a task, or on average."""
        if self.bare is None or not self.budgets or not set(self.budgets) <= set(self.bare):
            return None
        return float(np.mean([self.bare[each] for each in ([task] if task else self.budgets)]))

    @cached_property
    def _fronts(self) -> dict[str | None, list[Best]]:
        return {}

    def front(self, task: str | None = None) -> list[Best]:
        """Who has the highest score at each budget."""
        if task not in self._fronts:
            self._fronts[task] = self._front(task)
        return self._fronts[task]

    def _front(self, task: str | None) -> list[Best]:
        found, before, best = self.on(task), self.before(task), list[Best]()
        if not found:
            return best
        for n, (calls, first) in enumerate(zip(self.calls, envelope(list(found.values())), strict=True)):
            run = None if first is None else list(found)[first]
            score = found[run].values[n] if run else None
            if score is None or (before is not None and score.value <= before + _ROUNDING):
                run = score = None
            best.append(Best(calls, run, score))
        return best

    def reigns(self) -> list[tuple[Best, Best]]:
        """The front in pieces: the smallest and the largest budget at which one entry is the best one."""
        pieces = [list(own) for _, own in itertools.groupby(self.front(), key=lambda best: best.run)]
        return [(own[0], own[-1]) for own in pieces]

    def chosen(self, task: str | None = None) -> list[str]:
        """The runs that a plot shows at first, best first: those of the front over budgets, and the best ones."""
        leading = {best.run for best in self.front(task)}
        order = [run for run in self.parts if run in leading] + [run for run in self.parts if run not in leading]
        kept = set(order[:SHOWN])
        return [run for run in self.parts if run in kept]

    def limits(self, runs: Iterable[str], task: str | None = None) -> tuple[float, float]:
        """The range of scores of a plot in points: all that these runs reach, but not what is far below the best.

        The ends of curves and the bare template decide. A curve that begins lower, or an entry that failed, leaves the
        plot at its lower edge and does not press the others together.
        """
        ends = [trace.values[-1] for run, trace in self.on(task).items() if run in set(runs)]
        known = [end for end in ends if end is not None]
        return limits(known, self.before(task))


def limits(ends: Sequence[Interval], before: float | None) -> tuple[float, float]:
    """Limits in points for curves with these ends, and a bare template."""
    high = max([100 * end.high for end in ends] + ([100 * before] if before is not None else []), default=100.0)
    wanted = [100 * end.low for end in ends] + ([100 * before - 1] if before is not None else [])
    low = min((each for each in wanted if each >= high - WIDEST), default=high - WIDEST)
    return max(float(np.floor(low / STEP) * STEP), 0.0), min(float(np.ceil(high / STEP) * STEP), 100.0)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> FloatArray:
    """Places of labels near `values`, at least `gap` apart and within the limits, in the same order."""
    order = np.argsort(values, kind="stable")
    places = np.clip(np.asarray(values, dtype=np.float64)[order], low, high)
    for n in range(1, len(places)):
        places[n] = max(places[n], places[n - 1] + gap)
    if len(places):
        places[-1] = min(places[-1], high)
    for n in range(len(places) - 2, -1, -1):
        places[n] = min(places[n], places[n + 1] - gap)
    found = np.empty(len(places))
    found[order] = places
    return found


def columns(calls: Sequence[float], most: int = 9) -> list[int]:
    """Places of the numbers of calls that a table shows: evenly spread, with the first and the last."""
    return sorted(set(np.linspace(0, len(calls) - 1, min(most, len(calls))).round().astype(int).tolist()))


def shown_calls(calls: float) -> str:
    """A number of calls for people."""
    return f"{calls:,.0f}" if calls >= 10 else f"{calls:.2g}"  # noqa: PLR2004 - two digits below
