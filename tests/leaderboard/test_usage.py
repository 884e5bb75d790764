"""What each team has done on a track: runs and archives, in all and today, whatever came of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import key

from harness.leaderboard.usage import usage, usage_records, usage_table
from harness.results import tables
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.competition import DAY_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.results.records import RunAccess


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store("sqlite://")
    yield made
    made.close()


def cell(store: Store, run: str, rows: int, tokens: int, access: RunAccess = "black-box") -> None:
    labels = np.zeros(4, dtype=np.int64)
    record = CellRecord(train_rows=8, rows_spent=rows, tokens=tokens, tuning_s=30.0, access=access)
    store.begin(run, "sst2", 1).finish("ok", record, "test", labels, [KeptAnswer(1.0, 0, b"a", labels)])


def test_runs_and_archives_are_counted_by_team(store: Store) -> None:
    cell(store, store.open_run(key("a", team="alice"), {}), 16, 100)
    cell(store, store.open_run(key("a[x=1]", team="alice", calls=3, modified=("calls",)), {}), 4, 50)
    cell(store, store.open_run(key("up", team="alice", access="predictions"), {}), 0, 0, "predictions")
    store.open_run(key("alone"), {})
    store.open_run(key("alone[x=1]"), {})
    store.open_run(key("elsewhere", track="another"), {})
    found = {each.team: each for each in usage(store, "tiny")}
    assert set(found) == {"alice", "alone"}
    alice = found["alice"]
    assert (alice.entries, alice.runs, alice.uploads, alice.today, alice.cells) == (2, 2, 1, 3, 3)
    assert (alice.calls, alice.tokens, alice.tuning_s) == (2.5, 150, 60.0)  # an archive has no budget
    assert (found["alone"].entries, found["alone"].runs, found["alone"].cells) == (1, 2, 0)
    assert usage_table(list(found.values()), "tiny").row_count == 2
    assert [row["team"] for row in usage_records(usage(store, "tiny"))] == ["alone", "alice"]  # the newest run first


def test_today_is_the_day_of_utc(store: Store) -> None:
    store.open_run(key("a"), {})
    with store.changes() as connection:
        connection.execute(tables.runs.update().values(started=time.time() - DAY_S))
    (found,) = usage(store, "tiny")
    assert (found.runs, found.today) == (1, 0)
    assert usage(store, "tiny", time.time() - DAY_S)[0].today == 1
