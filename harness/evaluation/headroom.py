"""Whether tuning will beat the bare template on a task and a model, told from two calls, with an interval.

Two calls, the bare template on train and on dev, give its score on the labelled texts, and what the score becomes when
each class's mean log-probability is taken off (batch calibration). The difference is what a lean to one class hides.
The gain of tuning is a linear function of it, fitted on cells that were measured (`leaderboard/headroom.csv`):

    gain = b0 + b1 (centred - bare)

This signal was chosen among four (the score, the centred score, both, their difference) by the error below.

The interval is conformal: the residuals come from fits that have not seen the cell's task (leave one task out), and
their quantile is the half-width (Barber et al., *Predictive inference with the jackknife+*, Annals of Statistics 49,
2021; here with one group left out for each task). It holds for models like the measured ones, and says so.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.contract.heads import log_softmax
from harness.errors import InputError
from harness.solving.metrics import score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.contract import FloatArray, Shots, Task
    from harness.lm.served import Served

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent / "leaderboard" / "headroom.csv"
POINTS = _CHECKOUT if _CHECKOUT.is_file() else _PACKAGE / "_headroom.csv"
COVERAGE = 0.9
"""Share of cells whose gain lies in their interval."""
_LEAST_TASKS = 3
_RIDGE = 1e-3
_MARGIN = 0.05
"""How far outside the measured signals a cell's may lie."""


@dataclass(frozen=True)
class Signals:
    """What two calls say of the bare template."""

    bare: float
    """Its score on the labelled texts, by the task's metric, 0 to 1."""
    centred: float
    """The same with each class's mean log-probability taken off."""
    texts: int
    """Labelled texts that were asked about: train and dev."""

    @property
    def hidden(self) -> float:
        """What a lean to one class hides of the score."""
        return self.centred - self.bare


@dataclass(frozen=True)
class Point:
    """A measured cell."""

    model: str
    track: str
    task: str
    split: int
    signals: Signals
    gain: float
    """Mean over tuning entries of their test score, minus that of the bare template."""
    entries: int
    """How many entries tuned there."""


@dataclass(frozen=True)
class Forecast:
    """What tuning is expected to add to the bare template."""

    gain: float
    low: float
    high: float
    cells: int
    """Measured cells behind it."""
    doubt: str
    """Why the interval may not hold for this cell; empty where nothing speaks against it."""

    @property
    def verdict(self) -> str:
        """``yes``, ``no`` or ``cannot tell``."""
        if self.doubt or self.low <= 0 <= self.high:
            return "cannot tell"
        return "yes" if self.low > 0 else "no"


def signals(lm: Served, task: Task, shots: Shots) -> Signals:
    """Ask the bare template about train and dev: two calls.

    Args:
        lm: the model, here or behind an endpoint.
        task: with the template and label words to ask with.
        shots: the labelled texts of one split.

    Raises:
        ModelError: an endpoint does not answer.
    """
    words = lm.single_ids(task.words)
    parts = [
        lm.forward(None, lm.text_set(task.template, part.texts, None), words).logits[0]
        for part in (shots.train, shots.dev)
    ]
    labels = np.concatenate([shots.train.labels, shots.dev.labels])
    q: FloatArray = log_softmax(np.concatenate(parts).astype(np.float64))  # (texts, classes)
    both = np.stack([q, q - q.mean(axis=0)]).argmax(axis=-1)  # (2, texts)
    bare, centred = score(task.metric, both, labels, len(task.classes)).tolist()
    return Signals(bare, centred, len(labels))


def read_points(path: Path = POINTS) -> tuple[Point, ...]:
    """The measured cells that ship, or those of another file that ``tools/headroom_points.py`` wrote.

    Raises:
        InputError: it cannot be read, lacks a column, or has no number where one belongs. The message has the line.
    """
    line = 1
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found, rows = list[Point](), csv.DictReader(stream)
            for row in rows:
                line = rows.line_num
                found.append(_point(row))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as problem:
        said = f"no column {problem}" if isinstance(problem, KeyError) else str(problem)
        raise InputError(
            f"{path}:{line} is no file of measured cells: {said}; write one with: python tools/headroom_points.py STORE"
        ) from problem
    return tuple(found)


def _point(row: Mapping[str, str]) -> Point:
    shown = Signals(float(row["bare"]), float(row["centred"]), int(row["texts"]))
    numbers = (int(row["split"]), shown, float(row["gain"]), int(row["entries"]))
    if not all(map(math.isfinite, (shown.bare, shown.centred, numbers[2]))):
        raise ValueError("a score or a gain is not finite")
    return Point(row["model"], row["track"], row["task"], *numbers)


def forecast(points: Sequence[Point], found: Signals, model: str) -> Forecast:
    """The expected gain of tuning, with its interval, and what speaks against it.

    Args:
        points: measured cells.
        found: of the cell to tell about.
        model: its model's name.

    Returns:
        The forecast. With too few measured tasks the interval is infinite.
    """
    fitted = float(_features([found])[0] @ _fit(points)) if points else 0.0
    width = _half_width([abs(error) for errors in residuals(points).values() for error in errors])
    doubts = []
    known = sorted({each.model for each in points})
    if model not in known:
        doubts.append(f"measured cells are of {', '.join(known) or 'no model'}, and this is {model}")
    seen, value = [each.signals.hidden for each in points] or [math.nan], found.hidden
    if not min(seen) - _MARGIN <= value <= max(seen) + _MARGIN:
        doubts.append(
            f"centring adds {100 * value:.1f} points, and {100 * min(seen):.1f} to {100 * max(seen):.1f} were measured"
        )
    if not math.isfinite(width):
        doubts.append(f"{len(points)} measured cells are too few for an interval of {COVERAGE:.0%}")
    return Forecast(fitted, fitted - width, fitted + width, len(points), "; ".join(doubts))


def residuals(points: Sequence[Point]) -> dict[str, list[float]]:
    """Measured gain minus the one foretold by a fit without the task, for each task; none with too few tasks."""
    tasks = sorted({each.task for each in points})
    if len(tasks) < _LEAST_TASKS:
        return {}
    found = {}
    for task in tasks:
        coefficients = _fit([each for each in points if each.task != task])
        own = [each for each in points if each.task == task]
        told = _features([each.signals for each in own]) @ coefficients
        found[task] = [each.gain - float(value) for each, value in zip(own, told, strict=True)]
    return found


@dataclass(frozen=True)
class Validation:
    """How forecasts for one task came out whose fit and interval had not seen it."""

    task: str
    cells: int
    error: float
    """Mean absolute error of the gain."""
    constant: float
    """The same where the mean gain of the other tasks is foretold: what two calls must beat."""
    covered: int
    """Cells whose gain lay in the interval."""
    told: int
    """Cells with a verdict."""
    right: int
    """Verdicts that were right."""


def validate(points: Sequence[Point]) -> list[Validation]:
    """Foretell each task's cells from those of the other tasks, fit and interval alike."""
    found = []
    for task in sorted({each.task for each in points}):
        others = [each for each in points if each.task != task]
        if not others:
            break  # nothing is foretold from no cell
        own = [each for each in points if each.task == task]
        told = [forecast(others, each.signals, each.model) for each in own]
        mean = float(np.mean([each.gain for each in others]))
        verdicts = [(each, f) for each, f in zip(own, told, strict=True) if f.verdict != "cannot tell"]
        found.append(
            Validation(
                task,
                len(own),
                float(np.mean([abs(each.gain - f.gain) for each, f in zip(own, told, strict=True)])),
                float(np.mean([abs(each.gain - mean) for each in own])),
                sum(f.low <= each.gain <= f.high for each, f in zip(own, told, strict=True)),
                len(verdicts),
                sum((each.gain > 0) == (f.verdict == "yes") for each, f in verdicts),
            )
        )
    return found


def _features(found: Iterable[Signals]) -> FloatArray:
    return np.array([[1.0, each.hidden] for each in found])


def _fit(points: Sequence[Point]) -> FloatArray:
    """Least squares with a small ridge, which only keeps the matrix regular."""
    x, y = _features([each.signals for each in points]), np.array([each.gain for each in points])
    return np.asarray(np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y))


def _half_width(errors: Sequence[float]) -> float:
    """The conformal quantile of absolute residuals: the ceil((n + 1) COVERAGE)-th smallest; infinite for few."""
    place = math.ceil((len(errors) + 1) * COVERAGE)
    return sorted(errors)[place - 1] if place <= len(errors) else math.inf
