"""What is running, from the database alone."""

from __future__ import annotations

import numpy as np
from made_up import key
from rich.console import Console

from harness.lm.broker import LedgerRow
from harness.store import KeptAnswer, Store
from harness.track import load_track
from leaderboard.watch import look, watch_table

TRACK = load_track("mini")
FACTS = {"rows_spent": 64, "train_rows": 32, "level": 1}
LABELS = np.array([0, 1, 1, 0])


def test_a_run_in_progress_is_seen_cell_by_cell() -> None:
    """Finished cells, the one that was begun last, and the calls it has used."""
    store = Store("sqlite://")
    run = store.open_run(key("mine[a=1]", track="mini"), {})
    store.open_run(key("elsewhere", track="kit"), {})
    kept = [KeptAnswer(1.0, 1, b"a", LABELS)]
    store.begin(run, "sst2", 1).finish("ok", FACTS, "t", LABELS, kept)
    attempt = store.begin(run, "sst2", 2)
    for _ in range(3):
        attempt.record(LedgerRow(640, 1, 1, 1, 0.1, 1, "x"))
    (seen,) = look(store, TRACK)
    assert (seen.entry, seen.finished, seen.planned) == ("mine[a=1]", 1, 15)
    assert seen.last == "sst2/1 100.0 ok"
    assert seen.open is not None
    assert (seen.open.task, seen.open.split, seen.open.rows) == ("sst2", 2, 1_920)
    assert (seen.open.calls, seen.open.budget) == (60, 300)
    console = Console(width=100)
    with console.capture() as shown:
        console.print(watch_table([seen], "mini"))
    assert shown.get().splitlines()[2].split() == ["mine[a=1]", "1/15", "sst2/2", "60/300", "sst2/1", "100.0", "ok"]
    attempt.finish("ok", FACTS, "t", LABELS, kept)
    assert look(store, TRACK)[0].open is None
    store.close()


def test_a_finished_run_is_not_shown() -> None:
    """There is nothing to watch."""
    store = Store("sqlite://")
    run = store.open_run(key("done", track="mini"), {})
    for task, spec in TRACK.tasks.items():
        for split in spec.splits:
            store.begin(run, task, int(split)).finish("ok", FACTS, "t", LABELS, [])
    assert look(store, TRACK) == []
    store.close()
