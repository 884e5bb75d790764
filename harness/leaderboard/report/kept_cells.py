"""Scored cells of a run as a value that can be kept: reading and scoring them is most of a large report's time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Metric  # noqa: TC001 - msgspec reads the types
from harness.leaderboard.entries import CellScore
from harness.results.records import CellRecord  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.contract import IntArray


@dataclass(frozen=True)
class KeptCell:
    """A `CellScore` without arrays."""

    task: str
    split: int
    status: str
    score: float
    anytime: dict[float, float | None]
    record: CellRecord
    rows: dict[float, int]
    labels: int
    """Place in `KeptCells.labels`."""
    predicted: bytes
    incumbents: dict[float, int]
    """For each mark, the place of its predictions in `answers`."""
    answers: list[bytes]
    kind: str
    """NumPy's name of the integer type of the predictions."""
    metric: Metric | None


@dataclass(frozen=True)
class KeptCells:
    """The cells of a run."""

    labels: list[bytes]
    """Labels of the test sets, int64."""
    cells: list[KeptCell]

    @classmethod
    def of(cls, cells: Iterable[CellScore]) -> KeptCells:
        """Pack scored cells; those of one run have no repeats."""
        labels: dict[bytes, int] = {}
        packed = []
        for cell in cells:
            answers: dict[int, int] = {}
            for each in cell.incumbents.values():
                answers.setdefault(id(each), len(answers))
            arrays = {id(each): each for each in cell.incumbents.values()}
            place = labels.setdefault(cell.labels.astype(np.int64).tobytes(), len(labels))
            packed.append(
                KeptCell(
                    cell.task, cell.split, cell.status, cell.score, cell.anytime, cell.record, cell.rows, place,
                    cell.predicted.tobytes(), {mark: answers[id(each)] for mark, each in cell.incumbents.items()},
                    [arrays[key].tobytes() for key in answers], cell.predicted.dtype.name, cell.metric,
                )
            )  # fmt: skip
        return cls(list(labels), packed)

    def scores(self) -> list[CellScore]:
        """The cells as they were. Those of a test set share its labels."""
        labels = [_labels(each) for each in self.labels]
        found = []
        for each in self.cells:
            answers = [np.frombuffer(blob, dtype=each.kind) for blob in each.answers]
            kept = {mark: answers[place] for mark, place in each.incumbents.items()}
            predicted = np.frombuffer(each.predicted, dtype=each.kind)
            where = (each.task, each.split, each.status, each.score, each.anytime, each.record, each.rows)
            found.append(CellScore(*where, predicted, labels[each.labels], kept, each.metric))
        return found


@cache
def _labels(blob: bytes) -> IntArray:
    """One array for all runs on a test set."""
    return np.frombuffer(blob, dtype=np.int64)
