"""The DataFrames of a notebook hold what the leaderboard's files hold."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import key

import harness
from harness.errors import StoreError, TrackError
from harness.leaderboard.rank import rank
from harness.leaderboard.table import frame, records, write_records
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.array([0, 1, 1, 0])


@pytest.fixture
def database(tmp_path: Path) -> Path:
    track, path = load_track("mini"), tmp_path / "r.db"
    store = Store(str(path))
    for entry, right in (("good", 4), ("fair", 3)):
        named = key(entry=entry, track="mini", track_fingerprint=track.fingerprint, rules=track.rules)
        run = store.open_run(named, {"packages": {}})
        attempt = store.begin(run, "sst2", 1)
        predicted = np.where(np.arange(4) < right, LABELS, 1 - LABELS)
        record = CellRecord(rows_spent=64, train_rows=32, queries=2, level=1, format="int8")
        attempt.finish("ok", record, "0" * 64, LABELS, [KeptAnswer(1.0, 64, b"", predicted)])
    store.close()
    return path


def test_cells_are_tidy(database: Path) -> None:
    found = harness.cells(database).set_index("entry")
    assert found.score.to_dict() == {"good": 1.0, "fair": 0.75}
    assert found.accuracy.equals(found.score)  # sst2 is scored by accuracy
    assert found.loc["good", ["task", "split", "status", "calls", "format"]].tolist() == ["sst2", 1, "ok", 2.0, "int8"]


def test_the_ranking_is_the_one_that_the_csv_is_written_from(database: Path, tmp_path: Path) -> None:
    track, store = load_track("mini"), Store(str(database))
    ranking = rank(store, track.name, track.fingerprint, track.planned, track.ranks)
    write_records(records(ranking), tmp_path / "x.csv")
    given = harness.ranking("mini", store)
    store.runs()  # a store that was handed in stays open
    store.close()
    with (tmp_path / "x.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(given.columns) == list(read[0])
    assert [row["submission"] for row in read] == given.submission.tolist()
    shown = [{name: "" if value is None else str(value) for name, value in row.items()} for row in records(ranking)]
    assert read == shown


def test_an_integer_beside_a_gap_is_written_as_an_integer(tmp_path: Path) -> None:
    write_records([{"rank": 1, "share": 0.1}, {"rank": "", "share": None}], tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "rank,share\n1,0.1\n,\n"
    assert list(frame([]).columns) == ["rank", "submission"]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        harness.cells(tmp_path / "none.db")
    with pytest.raises(TrackError):
        harness.ranking("none", tmp_path / "none.db")
