"""What entries wrote on text tasks, beside texts and references, so that one can read what was tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.results.status import COUNTS
from harness.solving.metrics import TEXT_SCALE, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.leaderboard.entries import CellScore
    from harness.leaderboard.report.facts import TaskFacts

MOST_SHOWN = 12
"""Texts of a task that a page shows."""
LONGEST_SHOWN = 400
"""Characters of a text, an output or a reference that a page shows."""


@dataclass(frozen=True)
class Written:
    """One output."""

    number: int
    """Place of its text in the test set, from 1."""
    texts: tuple[str, ...]
    """Empty where the test texts are not at hand."""
    references: tuple[str, ...]
    output: str
    score: float


def has_classes(task: TaskFacts) -> bool:
    """Whether a task has classes, and with them confusion and mistakes."""
    return not is_text(task.file.metric)


def written(task: TaskFacts, cells: Sequence[CellScore]) -> dict[str, Any] | None:
    """What an entry wrote on a text task: from its worst to its best, evenly over the ranks of its first split.

    Args:
        task: of the report.
        cells: of the entry.

    Returns:
        Task, split and outputs; None where no output is stored.
    """
    for cell in cells:
        outputs = None if cell.record.outputs is None else cell.record.outputs.at(1.0)
        if cell.task == task.file.name and cell.status in COUNTS and outputs is not None:
            order = np.argsort(cell.predicted, kind="stable")
            places = np.linspace(0, len(order) - 1, min(MOST_SHOWN, len(order))).round().astype(np.int64)
            rows = list(_rows(task, cell, outputs, order[places].tolist()))
            return {"task": task.file.name, "split": cell.split, "rows": rows, "of": len(outputs)}
    return None


def _rows(task: TaskFacts, cell: CellScore, outputs: Sequence[str], numbers: Sequence[int]) -> Iterator[Written]:
    for n in numbers:
        texts = tuple(map(shown, task.test.texts[n])) if task.test else ()
        references = tuple(map(shown, task.test.references[n])) if task.test else ()
        yield Written(n + 1, texts, references, shown(outputs[n]), float(cell.predicted[n]) / TEXT_SCALE)


def shown(text: str) -> str:
    """A text as far as a page shows it."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
