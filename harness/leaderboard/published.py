"""Compares a published leaderboard with the one from the results database, record by record."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.leaderboard.table import document, write_records

if TYPE_CHECKING:
    from harness.leaderboard.rank import Ranking


def differences(published: Path, ranking: Ranking) -> list[str]:
    """The differences between a CSV file of `harness leaderboard` and the present ranking, one line for each.

    Columns that were added after the file was written do not count.

    Raises:
        InputError: the file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="harness-audit-") as folder:
        write_records(document(ranking)["entries"], Path(folder) / "now.csv")
        now = _lines(Path(folder) / "now.csv")
    then, found = _lines(published), []
    for run in [*then, *(run for run in now if run not in then)]:
        one, two = then.get(run), now.get(run)
        if one is None or two is None:
            name = (one or two or {}).get("submission", "")
            found.append(f"{name} (run {run}): {'only in the file' if one else 'not in the file'}")
            continue
        found += [
            f"{two['submission']} (run {run}), {column}: "
            f"{one.get(column)!r} in the file, {two.get(column)!r} by the database"
            for column in one  # a file of an older version lacks columns that came later
            if one[column] != two.get(column)
        ]
    return found


def _lines(path: Path) -> dict[str, dict[str, str]]:
    """Records by run."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            records = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path} cannot be read as a leaderboard: {problem}") from problem
    return {record.get("run") or f"line {number}": record for number, record in enumerate(records, start=2)}
