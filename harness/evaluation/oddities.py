"""Finds unusual data in the examples of a task. Such data can be scored, but the scores are misleading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import counted
from harness.solving.metrics import score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract import Examples, Shots
    from harness.tracks.tasks import TaskFile

_METRICS: dict[str, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1", "f1": "F1"}
_NAMED = 5
"""Largest number of classes that a line names."""


def oddities(file: TaskFile, shots: Mapping[int, Shots], test: Examples) -> list[str]:
    """Find classes without texts, and test texts that a submission has seen.

    Args:
        file: the task.
        shots: the few-shot data by split.
        test: the test set.

    Returns:
        A line for each problem, with the count. Empty if there is none.
    """
    found = []
    for split, each in shots.items():
        for name, part in (("train", each.train), ("dev", each.dev)):
            lacking = _lacking(part, file)
            if lacking:
                found.append(f"{file.name}/{split}: {name} has {_texts(part)}, none of {_named(lacking)}")
    seen = {text for each in shots.values() for part in (each.train, each.dev) for text in part.texts}
    known = sum(text in seen for text in test.texts)
    if known:
        splits = "split" if len(shots) == 1 else "splits"
        where = f"{splits} {', '.join(map(str, shots))}"
        found.append(f"{file.name}: {known:,} of {_texts(test)} of the test set stand in train or dev of {where}")
    return found + odd_test(file, test)


def odd_test(file: TaskFile, test: Examples) -> list[str]:
    """Find classes that a test set lacks.

    Args:
        file: the task.
        test: its test set.

    Returns:
        A line with the missing classes and the score of perfect predictions. Empty if no class is missing.
    """
    lacking = _lacking(test, file)
    if not lacking:
        return []
    best = float(score(file.metric, test.labels, test.labels, len(file.classes)))
    perfect = f"perfect predictions score {100 * best:.1f} {_METRICS[file.metric]}"
    return [f"{file.name}: the test set has {_texts(test)}, none of {_named(lacking)}; {perfect}"]


def _lacking(examples: Examples, file: TaskFile) -> list[str]:
    there = set(np.unique(examples.labels).tolist())
    return [name for k, name in enumerate(file.classes) if k not in there]


def _texts(examples: Examples) -> str:
    return counted(len(examples), "text")


def _named(classes: list[str]) -> str:
    shown = ", ".join(classes[:_NAMED]) + (", ..." if len(classes) > _NAMED else "")
    return f"{counted(len(classes), 'class', 'classes')}: {shown}"
