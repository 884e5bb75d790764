"""By what a stored cell is scored: its metric and the number of its classes.

Both are facts of the cell, so a cell is scored without its task's files. Cells from before these facts were stored are
of tasks that ship, and their task files say it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from harness.solving.metrics import TEXT_SCALE, is_text
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from harness.contract import Metric
    from harness.results.records import CellRecord
    from harness.tracks.tasks import TaskFile


def metric_of(task: str, record: CellRecord) -> Metric:
    """The metric of a cell.

    Raises:
        TaskError: the cell does not say it, and no such task ships.
    """
    return record.metric or _shipped(task).metric


def classes_of(task: str, record: CellRecord) -> int:
    """Number of classes of a cell; of a text task, of the scores that an output can have (`solving.metrics`).

    Raises:
        TaskError: the cell does not say it, and no such task ships.
    """
    if is_text(metric_of(task, record)):
        return TEXT_SCALE + 1
    return len(record.words) or len(_shipped(task).classes)


@cache
def _shipped(name: str) -> TaskFile:
    """A task file. It is read once, because reading takes 3 ms, longer than scoring a cell."""
    return load_task(name)
