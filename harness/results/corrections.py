"""Corrections of test labels: facts that are appended, so that scores can be computed with either labels.

A correction says that the labels of one test set were wrong, and names the test set with the same texts and the right
labels. Outcomes keep the test set on which they were scored, and predictions stay what they are. `harness rescore`
makes corrections, and whoever reads cells gets the corrected labels unless he asks for the original ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from harness.errors import InputError, counted
from harness.results import tables
from harness.results.records import run_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.contract import IntArray

ORIGINAL, CORRECTED = "original", "corrected"
"""Which labels are read: those on which runs were scored, or those of the newest correction."""
_SINCE = 4
"""Version of the database that has the table."""
LONGEST_REASON = 1000
"""Characters."""
SHORTEST_ID = 6
"""Characters of an id that name a correction; fewer may be met by chance."""


@dataclass(frozen=True)
class Correction:
    """One correction."""

    test: str
    """Digest of the test set on which runs were scored."""
    corrected: str
    """Digest of the test set with the same texts and the labels that hold from now on."""
    reason: str
    made: float
    """Unix seconds."""

    @property
    def id(self) -> str:
        """The digest by which the same correction is known again in another database."""
        facts = [self.test, self.corrected, self.reason, self.made]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def there(connection: sa.Connection) -> bool:
    """Whether a database has the table: one of an older version gets it with its first correction."""
    return sa.inspect(connection).has_table(tables.corrections.name)


def decided(connection: sa.Connection) -> list[Correction]:
    """All corrections, oldest first; none of a database that was made before there were any."""
    version = connection.execute(sa.select(tables.schema.c.version)).scalar()  # sooner read than a list of tables
    if version is None or version < _SINCE:
        return []
    columns = tables.corrections.c
    rows = connection.execute(sa.select(tables.corrections).order_by(columns.made, columns.correction)).all()
    return [Correction(row.test, row.corrected, row.reason, row.made) for row in rows]


def insert(connection: sa.Connection, correction: Correction) -> None:
    """Write a correction with its seal. A database of an older version becomes one of the present version."""
    if not there(connection):
        tables.bring_up_to_date(connection)
    facts = {"test": correction.test, "corrected": correction.corrected, "reason": correction.reason}
    row = {"correction": correction.id, **facts, "made": correction.made}
    tables.insert_sealed(connection, tables.corrections, row)


def check_reason(reason: str) -> str:
    """A reason without line breaks.

    Raises:
        InputError: it is empty or too long.
    """
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= LONGEST_REASON:
        raise InputError(
            f"--reason has {len(reason):,} characters; 1 to {LONGEST_REASON:,} are needed, for it is shown"
        )
    return reason


def in_force(corrections: Iterable[Correction], which: str) -> dict[str, Correction]:
    """The correction that holds for each test set.

    Args:
        corrections: all of them, oldest first.
        which: `CORRECTED`, `ORIGINAL`, or the id of a correction or its first `SHORTEST_ID` characters or more:
            then those up to it hold.

    Raises:
        InputError: there is no such correction.
    """
    made = list(corrections)
    if which == ORIGINAL:
        return {}
    if which != CORRECTED:
        long = len(which) >= SHORTEST_ID
        named = [n for n, each in enumerate(made) if long and each.id.startswith(which)]
        if len(named) != 1:
            ids = ", ".join(each.id[:12] for each in made) or "none"
            raise InputError(f"--labels {which}: {CORRECTED}, {ORIGINAL} or the id of a correction; there are: {ids}")
        made = made[: named[0] + 1]
    newest = {each.test: each for each in made}
    return {test: each for test, each in newest.items() if each.corrected != test}


def labels(connection: sa.Connection, which: str) -> Mapping[str, IntArray]:
    """The labels that stand in for those of a test set, by its digest; only of test sets that are corrected.

    Raises:
        InputError: there is no such correction.
    """
    holding = in_force(decided(connection), which)
    return {test: labels_of(connection, each.corrected) for test, each in holding.items()}


def labels_of(connection: sa.Connection, test: str) -> IntArray:
    """The labels of a stored test set: (texts,)."""
    columns = tables.test_sets.c
    return tables.classes_of(connection.execute(sa.select(columns.labels).where(columns.test == test)).scalar_one())


def shown(connection: sa.Connection, track: str, which: str) -> list[str]:
    """Which labels the scores of a track are computed with, in lines; none if nothing was ever corrected there.

    Raises:
        InputError: there is no such correction.
    """
    made = decided(connection)
    holding, lines = in_force(made, which), []
    for test in dict.fromkeys(each.test for each in made):
        names = _tasks(connection, test, track)
        if not names:
            continue
        of = ", ".join(names)
        newest = [each for each in made if each.test == test][-1]
        if test in holding:
            lines.append(f"{of}: {described(connection, holding[test])}")
        elif newest.corrected == test:
            lines.append(f"{of}: the labels of the runs, which hold again: {described(connection, newest)}")
        else:
            said = described(connection, newest)
            lines.append(f"{of}: the labels on which the runs were scored; they were corrected since: {said}")
    other = ""
    if which == ORIGINAL:
        other = f"; the corrected ones: --labels {CORRECTED}"
    elif holding:
        other = f"; the labels of the runs: --labels {ORIGINAL}"
    return [f"scored with {line}{other}" for line in lines]


def described(connection: sa.Connection, correction: Correction) -> str:
    """A correction in words."""
    before, after = labels_of(connection, correction.test), labels_of(connection, correction.corrected)
    changed = int(np.count_nonzero(before != after))
    many = counted(changed, "label") if changed else "no label"
    day = np.datetime64(int(correction.made), "s").astype("datetime64[D]")
    return f"{many} of {len(after):,} corrected on {day} ({correction.id[:12]}: {correction.reason})"


def faults(row: Mapping[str, Any], tests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with a stored correction, beside its seal.

    Args:
        row: as it is stored.
        tests: all stored test sets by their digests.
    """
    found = []
    if Correction(row["test"], row["corrected"], row["reason"], row["made"]).id != row["correction"]:
        found.append("its id is not the digest of what it says")
    sets = [tests.get(row[name]) for name in ("test", "corrected")]
    if None in sets:
        found.append("a test set that it names is missing")
    elif len({len(each["labels"]) for each in sets if each is not None}) != 1:
        found.append("its two test sets have different numbers of texts")
    return found


def _tasks(connection: sa.Connection, test: str, track: str) -> Sequence[str]:
    """Tasks of a track with a cell that was scored on a test set."""
    columns = tables.outcomes.c
    query = sa.select(columns.task, tables.runs.c.identity).join(tables.runs).where(columns.test == test).distinct()
    return sorted({task for task, identity in connection.execute(query) if run_key(identity).track == track})
