"""What is running, read from the database alone."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key
from rich.console import Console

from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.leaderboard.watch import Look, Open, Progress, look, watch_view
from harness.results.audit import audit
from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TRACK = load_track("mini")
FACTS = {"rows_spent": 64, "train_rows": 32, "level": 1}
LABELS = np.array([0, 1, 1, 0])
KEPT = [KeptAnswer(1.0, 1, b"a", LABELS)]
ROWS = LedgerRow(640, 1, 1, 1, 0.1, 1, "x")


@pytest.fixture
def store() -> Any:
    made = Store("sqlite://")
    yield made
    made.close()


def printed(seen: Look) -> list[list[str]]:
    """Words of each line on a terminal of 100 columns, bars as they are."""
    console = Console(width=100)
    with console.capture() as shown:
        console.print(watch_view(seen.runs, "mini"))
    assert max(map(len, shown.get().splitlines())) <= 100
    return [line.split() for line in shown.get().splitlines()]


def test_a_run_in_progress_is_seen_cell_by_cell(store: Store) -> None:
    """Finished cells, those that have begun, the calls they have used, and how long that will take."""
    run = store.open_run(key("mine[a=1]", track="mini"), {})
    store.open_run(key("elsewhere", track="kit"), {})
    store.begin(run, "sst2", 1).finish("ok", CellRecord(**FACTS), "t", LABELS, KEPT)
    attempt = store.begin(run, "sst2", 2)
    began = store.open_cells(run)[0].started
    for _ in range(3):
        attempt.record(ROWS)
    seen = look(store, TRACK, now=began + 30)
    (mine,) = seen.runs
    assert (mine.entry, mine.finished, mine.planned, mine.last) == ("mine[a=1]", 1, 15, "sst2/1 100.0 ok")
    assert mine.open == (Open("sst2", 2, attempt.number, 60, 300, 2.0),)  # 1,920 rows of 32 a call in 30 s
    assert mine.open[0].left_s == 120
    assert mine.left_s is not None
    lines = printed(seen)
    assert [word for word in lines[2] if "━" not in word][:2] == ["mine[a=1]", "1/15"]
    assert [word for word in lines[3] if "━" not in word] == ["sst2/2", "60/300", "2.0", "2:00"]
    attempt.finish("ok", CellRecord(**FACTS), "t", LABELS, KEPT)
    assert look(store, TRACK).runs[0].open == ()


def test_rates_are_those_since_the_last_look(store: Store) -> None:
    """A cell whose worker was killed makes no progress, and no end is predicted for it."""
    attempt = store.begin(store.open_run(key("mine", track="mini"), {}), "sst2", 1)
    attempt.record(ROWS)
    first = look(store, TRACK)
    attempt.record(ROWS)
    second = look(store, TRACK, first, first.at + 10)
    assert second.runs[0].open[0].calls_per_s == 2  # 20 calls
    stopped = look(store, TRACK, second, first.at + 20).runs[0]
    assert (stopped.open[0].calls_per_s, stopped.open[0].left_s, stopped.left_s) == (0, None, None)


def test_cells_that_run_at_once_have_a_bar_each_and_one_begun_again_has_one(store: Store) -> None:
    run = store.open_run(key("mine", track="mini"), {})
    for task, split in (("sst2", 2), ("sst2", 1), ("qqp", 3), ("sst2", 1)):
        newest = store.begin(run, task, split)
    newest.record(ROWS)
    (mine,) = look(store, TRACK).runs
    found = [(cell.task, cell.split, cell.calls) for cell in mine.open]
    assert found == [("qqp", 3, 0), ("sst2", 1, 20), ("sst2", 2, 0)]


def test_a_finished_run_is_not_shown(store: Store) -> None:
    """A finished run has no progress to show."""
    run = store.open_run(key("done", track="mini"), {})
    for task, spec in TRACK.tasks.items():
        for split in spec.splits:
            store.begin(run, task, int(split)).finish("ok", CellRecord(**FACTS), "t", LABELS, [])
    seen = look(store, TRACK)
    assert seen.runs == ()
    assert " ".join(printed(seen)[0]) == "track mini: nothing is running, and no run lacks cells"


def test_names_are_shown_as_they_are_and_hours_as_hours() -> None:
    runs = (Progress("[bold]x", 1, 15, "", (Open("sst2", 1, 1, 1, 300, 0.05),), 7_322.0),)
    lines = printed(Look(0.0, runs))
    assert lines[2][0] == "[bold]x"
    assert "2:02:02" in lines[2]
    assert "1:39:40" in lines[3]


def test_a_look_reads_no_ledger_and_the_predictions_of_one_cell(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database counts the rest, so reading a large store costs as much as reading a small one."""
    run = store.open_run(key("mine", track="mini"), {})
    for split in range(1, 60):
        store.begin(run, "sst2", split).finish("ok", CellRecord(**FACTS), "t", LABELS, KEPT)
    store.begin(run, "sst2", 60).record(ROWS)
    read = []
    monkeypatch.setattr(
        "harness.results.tables.classes_of", lambda blob: read.append(blob) or np.frombuffer(blob, "<i2")
    )
    for name in ("ledger", "cells"):
        monkeypatch.setattr(Store, name, lambda *_: pytest.fail("a look reads everything"))
    (mine,) = look(store, TRACK).runs
    assert (mine.finished, mine.last, mine.open[0].calls) == (59, "sst2/59 100.0 ok", 20)
    assert len(read) == 2  # labels and final predictions of the cell that ended last


class Curious:
    """Watches a real run, and looks at it in the middle of its second cell: from here, and from another process."""

    def __init__(self, track: Path, database: Path) -> None:
        self.track, self.database, self.cells, self.rows = track, database, 0, 0
        self.seen: list[Look] = []
        self.printed = ""

    def planned(self, *_: object) -> None:
        """See `harness.evaluation.run.Progress`."""

    def began(self, *_: object) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.cells += 1

    def ended(self, *_: object) -> None:
        """See `harness.evaluation.run.Progress`."""

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """See `harness.evaluation.run.Progress`."""
        if self.cells == 2 and rows > self.rows and len(self.seen) < 2:
            self.rows = rows
            store = Store(str(self.database))
            time.sleep(0.05)
            before = self.seen[0] if self.seen else None
            self.seen.append(look(store, load_track(str(self.track)), before))
            store.close()
            if len(self.seen) == 2:
                words = ["watch", "--once", "--track", str(self.track), "--store", str(self.database)]
                command = [sys.executable, "-m", "harness.cli", *words]
                self.printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_real_run_is_watched_while_it_runs(tiny_track: Path, tmp_path: Path) -> None:
    """The second cell has begun and its calls go up from look to look; afterwards all that is left is to run qqp."""
    from outer_models import write_submission

    database, chosen = tmp_path / "results.db", load_track(str(tiny_track))
    curious, store = Curious(tiny_track, database), Store(str(database))
    made = Evaluation(chosen, Overrides(tasks=("sst2",)), store)
    made.run(find(write_submission(tmp_path, "tune = search")), {}, curious)
    first, second = (each.runs[0] for each in curious.seen)
    assert (first.finished, first.planned) == (second.finished, second.planned) == (1, 3)
    assert first.last.startswith("sst2/1 ")
    assert 0 < first.open[0].calls < second.open[0].calls < second.open[0].budget
    assert second.open[0].calls_per_s > 0
    assert second.left_s is not None
    assert "sst2/2" in curious.printed
    assert "1/3" in curious.printed
    (after,) = look(store, chosen).runs
    assert (after.finished, after.open) == (2, ())
    store.close()


@pytest.mark.parametrize("body", ["import nothing_there", "def tune(lm, task:"])
def test_a_submission_that_was_refused_is_not_shown_as_unfinished_for_ever(
    tiny_track: Path, tmp_path: Path, body: str
) -> None:
    from outer_models import write_submission

    store, chosen = Store(str(tmp_path / "results.db")), load_track(str(tiny_track))
    made = Evaluation(chosen, Overrides(tasks=("sst2",)), store)
    made.run(find(write_submission(tmp_path, f"{body}\ntune = search")), {}, Curious(tiny_track, tmp_path))
    (run,) = look(store, chosen).runs
    assert (run.finished, run.open) == (2, ())
    assert {cell.status for cell in store.cells(store.runs()[0].id)} == {"crashed"}
    assert audit(store).unfinished == 0
    store.close()


def test_an_attempt_with_queries_is_not_taken_back(store: Store) -> None:
    attempt = store.begin(store.open_run(key("mine"), {}), "sst2", 1)
    attempt.record(LedgerRow(8, 100, 10, 20, 0.1, 1, "0"))
    attempt.withdraw()
    assert audit(store).unfinished == 1
