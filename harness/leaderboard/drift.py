"""Checks whether the machines of one ranking compute the same numbers: compares the fingerprints of its cells.

A fingerprint holds the logits that a machine computes for fixed texts, see `harness.lm.fingerprint`. It is not in any
identity. A difference is reported and excludes no entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.leaderboard.entries import Entry


@dataclass(frozen=True)
class Drift:
    """The largest difference between fingerprints on one task."""

    task: str
    difference: float
    """Largest absolute difference of a logit."""
    between: tuple[str, str]
    """The two entries with this difference."""


def drift(entries: Iterable[Entry]) -> list[Drift]:
    """The largest difference on each task. Tasks are in alphabetical order.

    A cell is not compared if it has no fingerprint, or if the length differs from that of the first cell.
    """
    found: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for entry in entries:
        for cell in entry.cells:
            if cell.record.probe is not None:
                found.setdefault(cell.task, []).append((entry.name, cell.record.probe.logits))
    return [_furthest(task, found[task]) for task in sorted(found)]


def _furthest(task: str, cells: list[tuple[str, tuple[float, ...]]]) -> Drift:
    alike = [(name, logits) for name, logits in cells if len(logits) == len(cells[0][1])]
    values = np.array([logits for _, logits in alike])  # (cells, logits)
    at = int(np.ptp(values, axis=0).argmax())
    low, high = alike[int(values[:, at].argmin())][0], alike[int(values[:, at].argmax())][0]
    return Drift(task, float(np.ptp(values[:, at])), (low, high))
