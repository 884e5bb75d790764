"""The parts of a ranking: cells with their scores, entries, and the division in which an entry competes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.results.measure import classes_of, metric_of
from harness.results.status import COUNTS
from harness.solving.metrics import is_text
from harness.tracks.tiers import ELSEWHERE, IN_PROCESS

if TYPE_CHECKING:
    from harness.contract import IntArray, Metric
    from harness.results.records import CellRecord

UNSANDBOXED = "0"
"""The tier without isolation."""


@dataclass(frozen=True, order=True)
class Division:
    """The conditions that runs must share to be compared."""

    external: str = ""
    """What came from outside data, for example a pre-trained prompt; empty if nothing did."""
    sandbox: str = ""
    """Tier in which the submission ran, as in `harness.tracks.tiers`; several, separated by spaces, if cells differ."""
    device: str = ""
    """``cpu``, or the driver's name of the GPU."""

    @property
    def unsandboxed(self) -> bool:
        """Whether any cell ran without isolation."""
        return UNSANDBOXED in self.sandbox.split()

    @property
    def elsewhere(self) -> bool:
        """Whether conditions were not controlled: solvers ran on their own machines, or in the referee's process."""
        return ELSEWHERE in self.sandbox or IN_PROCESS in self.sandbox

    @property
    def title(self) -> str:
        """The division in words."""
        means = (
            f"external data {self.external}" if self.external else "pure",
            self.device,
            self.sandbox and f"sandbox {self.sandbox}",
        )
        return " / ".join(each for each in means if each)


@dataclass(frozen=True)
class CellScore:
    """One finished cell with its scores."""

    task: str
    split: int
    status: str
    score: float
    anytime: dict[float, float | None]
    """Score of the incumbent at each fraction of the budget. Before the first answer it is the score of the bare
    template, or None if that is not known. Fractions at which an older cell did not keep its incumbent are missing. A
    failed cell has the same score everywhere: that of the majority class, or 0 where the answer is text."""
    record: CellRecord
    rows: dict[float, int] = field(default_factory=dict)
    """Rows that were spent when the incumbent of each fraction was offered; only for fractions with an incumbent."""
    predicted: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False, repr=False)
    """(items,): the predicted classes that are scored, also for a failed cell; empty if there are no predictions.
    The integer type is the smallest possible one, because a leaderboard has 100,000 cells."""
    labels: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False, repr=False)
    """(items,), one array for all cells of a test set."""
    incumbents: dict[float, IntArray] = field(default_factory=dict, compare=False, repr=False)
    """Predictions of each answer of `rows`: (items,), like `predicted`. Marks with the same answer share the array."""
    metric: Metric | None = None
    """The metric of `score`; None in scores made without predictions."""
    repeats: tuple[CellScore, ...] = field(default=(), compare=False, repr=False)
    """For a cell with several repeats, all of them, the first included. Then `score` and `anytime` are means over all
    repeats, and the other fields are those of the first."""

    @classmethod
    def mean(cls, repeats: tuple[CellScore, ...]) -> CellScore:
        """Combine the repeats of a cell into one. Its other facts are those of the first repeat."""
        first = repeats[0]
        marks = [mark for mark in first.anytime if all(mark in each.anytime for each in repeats)]
        values = {mark: [each.anytime[mark] for each in repeats] for mark in marks}
        return replace(
            first,
            score=float(np.mean([each.score for each in repeats])),
            anytime={mark: None if None in v else float(np.mean(v)) for mark, v in values.items()},  # type: ignore[arg-type]
            repeats=repeats,
        )

    @property
    def accuracy(self) -> float | None:
        """Share of correctly predicted items, whatever the metric is; None without predictions, and of a text task."""
        return self.right(*(each.predicted for each in self.repeats or (self,)))

    def right(self, *said: IntArray) -> float | None:
        """Share of items of its test set that some answers predict correctly, as in `accuracy`."""
        if not len(self.labels) or (self.metric is not None and is_text(self.metric)):
            return None
        return float(np.mean([each == self.labels for each in said]))

    @property
    def scored_by(self) -> tuple[Metric, int]:
        """The metric of the cell, and its number of classes.

        Raises:
            TaskError: the cell does not say them, and no such task ships.
        """
        return self.metric or metric_of(self.task, self.record), classes_of(self.task, self.record)

    def before_answers(self, bare: float) -> CellScore:
        """The same with the bare template's score before the first answer."""
        if None not in self.anytime.values():
            return self
        if self.repeats:
            return CellScore.mean(tuple(each.before_answers(bare) for each in self.repeats))
        return replace(self, anytime={mark: bare if v is None else v for mark, v in self.anytime.items()})


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard."""

    rank: int | None
    """Place by average in its division: 1 is best, and equal averages share a place. None if cells are missing, and for
    white-box references. `Ranking.standing` has the ranks that entries share if no difference was shown."""
    name: str
    """Name with its team: ``team/name[options]``."""
    run: str
    cells: tuple[CellScore, ...]
    missing: int
    environment: dict[str, Any]
    white_box: bool = False
    """Whether it is a reference that trained with the model's weights."""
    device: str = "cpu"
    """The device that it ran on: ``cpu``, or the driver's name of the GPU."""
    external: str = ""
    """What came from outside data, as in `RunKey`. Such an entry is never ranked with entries without outside data."""
    runs: int = 1
    """Number of tries on the track: all runs under its team and name, with any code, options, choices and outcome
    (`harness.results.rulings.tries`)."""

    @cached_property
    def attempts(self) -> tuple[CellScore, ...]:
        """Its cells, each repeat of a cell by itself."""
        return tuple(each for cell in self.cells for each in cell.repeats or (cell,))

    @property
    def test_texts(self) -> int | None:
        """Number of test texts that it queried, over its cells; None if any cell did not count them."""
        found = [each.record.test_texts for each in self.attempts]
        known = [number for number in found if number is not None]
        return sum(known) if len(known) == len(found) else None

    @cached_property
    def division(self) -> Division:
        """The division in which it may be compared."""
        return Division(self.external, " ".join(sorted({each.record.sandbox for each in self.attempts})), self.device)

    @property
    def access(self) -> int:
        """Highest access level used: 0 logits, 1 input prompts, 2 deep prompts, 3 hidden states, 5 weights changed.

        References have 4.
        """
        return max((each.record.level for each in self.attempts), default=0)

    @cached_property
    def average(self) -> float:
        """Mean over tasks of the mean over splits."""
        return float(np.mean([self.task(task)[0] for task in self.tasks])) if self.cells else float("nan")

    @property
    def tasks(self) -> list[str]:
        """Tasks with at least one finished cell, in the order of the store."""
        return list(dict.fromkeys(cell.task for cell in self.cells))

    def task(self, name: str) -> tuple[float, float, int]:
        """Mean and sample standard deviation over splits, and the number of splits."""
        values = [cell.score for cell in self.cells if cell.task == name]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return float(np.mean(values)), std, len(values)

    def accuracy(self, name: str) -> float | None:
        """Mean accuracy over splits on a task, whatever the metric is; None if predictions are not known."""
        values = [cell.accuracy for cell in self.cells if cell.task == name]
        return float(np.mean([v for v in values if v is not None])) if values and None not in values else None

    def at(self, mark: float, task: str | None = None) -> float | None:
        """Score of the incumbents at a fraction of the budget: on a task, or averaged like `average`.

        None if the incumbent of any cell was not kept at that fraction, or the bare template's score is not known.
        """
        tasks = self.tasks if task is None else [task]
        found = [[cell.anytime.get(mark) for cell in self.cells if cell.task == name] for name in tasks]
        known = [[score for score in scores if score is not None] for scores in found]
        if [len(scores) for scores in known] != [len(scores) for scores in found]:
            return None
        return float(np.mean([np.mean(scores) for scores in known]))

    @property
    def calls(self) -> float:
        """Calls used, summed over cells."""
        return float(sum(cell.record.calls_spent for cell in self.cells))

    @property
    def wall_s(self) -> float:
        """Seconds of tuning, summed over cells."""
        return float(sum(cell.record.tuning_s for cell in self.cells))

    @property
    def statuses(self) -> dict[str, int]:
        """Number of cells by status; each repeat of a cell counts, because the score is the mean over them."""
        return dict(sorted(Counter(each.status for each in self.attempts).items()))

    @property
    def failed(self) -> int:
        """Number of cells that failed, each repeat of a cell by itself."""
        return sum(each.status not in COUNTS for each in self.attempts)
