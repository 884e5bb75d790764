"""What each access level buys."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import key

from harness.cli.ranking import _levels
from harness.leaderboard.levels import bought, level_records, level_table
from harness.leaderboard.rank import rank
from harness.results.records import CellRecord, Run, StoredCell

if TYPE_CHECKING:
    from harness.results.rulings import Ruling

LABELS = np.array([0, 1] * 50)


class Results:
    """Entries with an access level, calls and a number of hits on each of three splits."""

    def __init__(self, **entries: tuple[int, int, int]) -> None:
        self._entries = entries

    def runs(self) -> list[Run]:
        """One run for each entry."""
        return [Run(name, key(name), {}, 0.0) for name in self._entries]

    def cells(self, run: str) -> list[StoredCell]:
        """Three cells."""
        level, calls, hits = self._entries[run]
        said = np.where(np.arange(100) < hits, LABELS, 1 - LABELS)
        record = CellRecord(train_rows=32, rows_spent=32 * calls, calls_total=300, rows_total=9600, level=level)
        return [StoredCell(run, "sst2", split, split, "ok", record, LABELS, {1.0: said}, 0.0) for split in (1, 2, 3)]

    def rulings(self) -> list[Ruling]:
        """None."""
        return []


def test_the_best_entry_of_each_level_and_its_gain_over_the_bare_template() -> None:
    results = Results(manual=(0, 0, 50), text=(0, 100, 60), worse=(1, 300, 55), soft=(1, 200, 70), deep=(2, 300, 65))
    ranking = rank(results, key().track)
    found = bought(ranking)
    assert [(each.level, each.entry, each.calls) for each in found] == [
        (0, "text", 100),
        (1, "soft", 200),
        (2, "deep", 300),
    ]
    assert [each.gain for each in found] == [pytest.approx(value) for value in (0.1, 0.2, 0.15)]
    assert [each.per_hundred for each in found] == [pytest.approx(value) for value in (10.0, 10.0, 5.0)]
    assert level_records(found)[0]["points_per_100_calls"] == pytest.approx(10.0)
    assert level_table(found, "t").row_count == 3


def test_without_the_bare_template_or_calls_there_is_no_price() -> None:
    (only,) = bought(rank(Results(text=(0, 100, 60)), key().track))
    assert (only.gain, only.per_hundred) == (None, None)
    (free,) = bought(rank(Results(manual=(0, 0, 50)), key().track))
    assert (free.gain, free.per_hundred) == (0.0, None)


def test_without_a_complete_entry_the_command_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    ranking = dataclasses.replace(rank(Results(manual=(0, 0, 50)), key().track), entries=(), elsewhere=())
    _levels(ranking, as_json=False)
    assert "no entry has all cells of track" in capsys.readouterr().out
    _levels(ranking, as_json=True)
    assert capsys.readouterr().out.strip() == "[]"
