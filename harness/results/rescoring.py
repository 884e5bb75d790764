"""`harness rescore`: labels were wrong, so corrections are appended; no run is run again.

The database has no test texts, only the digest of texts and labels. So a test set whose labels were corrected is known
again by this: its texts with the stored labels have the stored digest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from harness.contract import Examples
from harness.errors import DataError, counted
from harness.results import corrections, tables
from harness.results.corrections import CORRECTED, Correction
from harness.tracks.examples import Source, examples_sha256, load_test, private_tests

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.contract import IntArray
    from harness.results.store import Store
    from harness.tracks.tasks import TaskFile

_NAMED = 10
"""Most changed texts that are named."""


@dataclass(frozen=True)
class Change:
    """A stored test set with other labels than those in force."""

    file: TaskFile
    test: str
    """Digest on which runs were scored."""
    given: Examples
    before: IntArray
    """The labels in force until now."""

    @property
    def rows(self) -> list[int]:
        """Places of the texts whose labels change, from 0 on."""
        return np.flatnonzero(self.before != self.given.labels).tolist()

    def lines(self) -> list[str]:
        """What changes, for people."""
        said = [f"{self.file.name}: {counted(len(self.rows), 'label')} of {len(self.given):,} {_were(len(self.rows))}"]
        names = self.file.classes
        for row in self.rows[:_NAMED]:
            old, new = names[self.before[row]], names[self.given.labels[row]]
            said.append(f"  text {row + 1:,}: {old} -> {new}: {self.given.texts[row][0][:60]!r}")
        return said + [f"  and {len(self.rows) - _NAMED:,} more"] * (len(self.rows) > _NAMED)


def changes(store: Store, files: Iterable[TaskFile], directory: Path) -> list[Change]:
    """Find the stored test sets whose labels differ from those in a directory.

    Args:
        store: the database.
        files: the tasks to look at.
        directory: corrected test sets, laid out as for ``--test-data``. A task that it lacks is left as it is.

    Returns:
        The changes; none if all labels are as they were.

    Raises:
        DataError: the directory has no test set of these tasks, or none whose texts are those of a stored one.
    """
    found: list[Change] = []
    texts_differ, looked = [], 0
    for file in files:
        if not any(path.is_file() for path in private_tests(file, directory)):
            continue
        given = load_test(file, Source("embedded", test=directory))
        looked += 1
        with store.snapshot() as connection:
            stored = _stored(connection, file.name)
            holding = corrections.labels(connection, CORRECTED)
        same = {test: labels for test, labels in stored.items() if _is(test, labels, given)}
        if not same:
            sizes = ", ".join(sorted({f"{len(labels):,}" for labels in stored.values()})) or "no"
            texts_differ.append(f"{file.name} has {len(given):,} texts, and the stored test sets have {sizes} texts")
        found += [Change(file, test, given, holding.get(test, labels)) for test, labels in same.items()]
    if not looked:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{directory} has no test set of {names}; DIR/<task>/test.csv is expected, as for --test-data")
    if texts_differ and not found:
        raise DataError(
            f"{'; '.join(texts_differ)}: no run was scored on these texts in this order. Change labels alone, and "
            "keep every text and the order"
        )
    return [each for each in found if each.rows]


def apply(store: Store, found: Iterable[Change], reason: str) -> list[Correction]:
    """Append the corrections, all of them or none.

    Args:
        store: the database.
        found: what `changes` found.
        reason: why; it is shown with the ranking.

    Raises:
        InputError: the reason is empty or too long.
    """
    reason, made = corrections.check_reason(reason), time.time()
    appended = []
    with store.changes() as connection:
        for change in found:
            corrected = examples_sha256(change.given)
            row = {"test": corrected, "labels": tables.class_bytes(change.given.labels)}
            columns = tables.test_sets.c
            if connection.execute(sa.select(columns.test).where(columns.test == corrected)).scalar() is None:
                tables.insert_sealed(connection, tables.test_sets, row)
            appended.append(Correction(change.test, corrected, reason, made))
            corrections.insert(connection, appended[-1])
    return appended


def _stored(connection: sa.Connection, task: str) -> dict[str, IntArray]:
    """Labels of the test sets on which cells of a task were scored, by digest."""
    outcomes, sets = tables.outcomes.c, tables.test_sets.c
    query = sa.select(sets.test, sets.labels).join(tables.outcomes, outcomes.test == sets.test)
    rows = connection.execute(query.where(outcomes.task == task).distinct())
    return {test: tables.classes_of(blob) for test, blob in rows}


def _is(test: str, labels: IntArray, given: Examples) -> bool:
    """Whether a stored test set has the given texts."""
    return len(labels) == len(given) and examples_sha256(Examples(given.texts, labels)) == test


def _were(number: int) -> str:
    return "changes" if number == 1 else "change"
