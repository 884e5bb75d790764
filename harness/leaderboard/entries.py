"""What a ranking is made of: cells with their scores, entries, and the division that an entry competes in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.tracks.tiers import ELSEWHERE, IN_PROCESS

if TYPE_CHECKING:
    from harness.contract import IntArray, Metric
    from harness.results.records import CellRecord

UNSANDBOXED = "0"
"""The tier that is none."""


@dataclass(frozen=True, order=True)
class Division:
    """The means that runs must share to be compared."""

    external: str = ""
    """What came from outside data, e.g. a pre-trained prompt; empty where nothing did."""
    sandbox: str = ""
    """Tier the submission ran in, as `harness.tracks.tiers`; several, space between, where cells differ."""
    device: str = ""
    """``cpu``, or the GPU as its driver names it."""

    @property
    def unsandboxed(self) -> bool:
        """Whether some of it ran without isolation."""
        return UNSANDBOXED in self.sandbox.split()

    @property
    def elsewhere(self) -> bool:
        """Whether nothing was under control: solvers ran on machines of their own, or in the referee's process."""
        return ELSEWHERE in self.sandbox or IN_PROCESS in self.sandbox

    @property
    def title(self) -> str:
        """In words."""
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
    """Score of the incumbent per fraction of the budget. Before the first answer that is the score of the bare
    template; None where this is not known. Without the fractions at which an older cell had an incumbent that was not
    kept. A failed cell has the score of the majority class throughout."""
    record: CellRecord
    rows: dict[float, int] = field(default_factory=dict)
    """Rows that were spent when the incumbent of each fraction was offered; only where there was one."""
    predicted: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False, repr=False)
    """(items,): the classes that count, those of a failed cell included; empty in scores made up without any. In the
    smallest integers that hold them: a leaderboard has 100,000 cells."""
    labels: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False, repr=False)
    """(items,), one array for all cells of a test set."""
    incumbents: dict[float, IntArray] = field(default_factory=dict, compare=False, repr=False)
    """What each answer of `rows` predicts: (items,), like `predicted`; marks that share an answer share the array."""
    metric: Metric | None = None
    """What `score` is; None in scores made up without any."""
    repeats: tuple[CellScore, ...] = field(default=(), compare=False, repr=False)
    """Of a cell that was run several times, each of its runs, the first included. Then `score` and `anytime` are means
    over all of them, and the rest is the first one's."""

    @classmethod
    def mean(cls, repeats: tuple[CellScore, ...]) -> CellScore:
        """One cell from its runs, the first of which is shown."""
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
        """Share of items whose class is the label, whatever the metric; None in scores made up without predictions."""
        said = [each.predicted for each in self.repeats or (self,)]
        return float(np.mean([each == self.labels for each in said])) if len(self.labels) else None

    def before_answers(self, bare: float) -> CellScore:
        """With the bare template's score where there was no answer yet."""
        if None not in self.anytime.values():
            return self
        if self.repeats:
            return CellScore.mean(tuple(each.before_answers(bare) for each in self.repeats))
        return replace(self, anytime={mark: bare if v is None else v for mark, v in self.anytime.items()})


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard."""

    rank: int | None
    """Place by average in its division: 1 is best, equal averages share one; None where cells are missing, and for
    white-box references. Ranks shared by all who cannot be told apart are in `Ranking.standing`."""
    name: str
    """With its team: ``team/name[options]``."""
    run: str
    cells: tuple[CellScore, ...]
    missing: int
    environment: dict[str, Any]
    white_box: bool = False
    """Whether it is a reference that trained with the model's weights."""
    device: str = "cpu"
    """What it ran on: ``cpu``, or the GPU as its driver names it."""
    external: str = ""
    """What came from outside data, as in `RunKey`; such an entry is never ranked with pure ones."""
    runs: int = 1
    """How often it was tried on the track: runs under its team and name, whatever their code, options and choices, and
    however they ended (`harness.results.rulings.tries`)."""

    @property
    def test_texts(self) -> int | None:
        """How many texts of test sets it queried, over its cells; None where some cell does not say."""
        found = [each.record.test_texts for cell in self.cells for each in cell.repeats or (cell,)]
        known = [number for number in found if number is not None]
        return sum(known) if len(known) == len(found) else None

    @property
    def division(self) -> Division:
        """What it may be compared with."""
        return Division(self.external, " ".join(sorted({cell.record.sandbox for cell in self.cells})), self.device)

    @property
    def access(self) -> int:
        """Highest access level used: 0 logits, 1 input prompts, 2 deep prompts, 3 hidden states, 4 the weights."""
        return max((cell.record.level for cell in self.cells), default=0)

    @property
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
        """Mean accuracy over splits on a task, whatever the metric; None where predictions are not known."""
        values = [cell.accuracy for cell in self.cells if cell.task == name]
        return float(np.mean([v for v in values if v is not None])) if values and None not in values else None

    def at(self, mark: float, task: str | None = None) -> float | None:
        """Score of the incumbents at a fraction of the budget: on a task, or averaged as `average` is.

        None where the incumbent of some cell was not kept at that fraction, or the bare template's score is not known.
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
        """How many cells ended how."""
        return dict(sorted(Counter(cell.status for cell in self.cells).items()))
