"""SIGKILL at random moments: nothing is lost, nothing counted twice, and the end is that of an undisturbed run.

The model lives in the referee's process, so that killing the referee kills the model. `HARNESS_KILLS_S` says for how
many seconds the slow test goes on; 60 where it is not set.
"""

# ruff: noqa: S311, T201 - chance picks moments and bytes, the slow tests tell their counts
from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from evaluating import Forking
from outer_models import write_submission

from harness.results.at_hand import labels_at_hand
from harness.results.audit import audit
from harness.results.store import Store
from harness.tracks.examples import Source
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_HAND = labels_at_hand([load_task("sst2"), load_task("qqp")], Source("embedded"))
CELLS = 3
SLOW = """
def tune(lm, task, shots, rng, config):
    for answer in search(lm, task, shots, rng, config):
        yield answer
        time.sleep(0.03)
"""
NURSERY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from evaluating import Watcher
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

evaluation = Evaluation(load_track(sys.argv[2]), Overrides(), Store(sys.argv[3]))
evaluation.store.close()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        evaluation.store = Store(line.strip())
        evaluation.run(find(sys.argv[4]), {}, Watcher())
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""
"""Loads the model once, then evaluates into the store that each line names, in a process group of its own."""


class Nursery(Forking):
    """Starts evaluating processes quickly."""

    def __init__(self, folder: Path, track: Path) -> None:
        submission = write_submission(folder, SLOW)
        super().__init__(NURSERY, str(track), str(folder / "unused.db"), str(submission))

    def start(self, path: Path) -> int:
        """Evaluate into a store; return the process's number."""
        return self.begin(str(path))

    def ended(self) -> int:
        """Wait for it; return its wait status."""
        return self.number()


@pytest.fixture
def nursery(tmp_path: Path, tiny_track: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path, tiny_track)
    yield made
    made.close()


def outcomes(path: Path) -> dict[tuple[str, int], Any]:
    """What counts of each finished cell, to the last bit."""
    store = Store(str(path))
    try:
        (run,) = [found.id for found in store.runs()]
        return {
            (cell.task, cell.split): (
                cell.status,
                [row.sha256 for row in store.ledger(cell.attempt)],
                {mark: p.tolist() for mark, p in cell.predictions.items()},
                {mark: store.answer(run, cell.task, cell.split, mark) for mark in cell.predictions},
                cell.rows,
                cell.record.rows_spent,
                cell.record.note,
                cell.record.probe,
            )
            for cell in store.cells(run)
        }
    finally:
        store.close()


def check(path: Path) -> None:
    """The store opens, nothing in it is broken, and no cell counts twice."""
    if not path.exists():
        return  # killed before there was one
    store = Store(str(path))
    found = audit(store, AT_HAND)
    store.close()
    assert found.findings == ()
    cells = Counter((cell.run, cell.task, cell.split) for cell in found.cells)
    assert not cells or max(cells.values()) == 1
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def children(pid: int) -> set[int]:
    """All descendants."""
    try:
        found = {int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()}
    except OSError:
        return set()
    return found.union(*map(children, found))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def alive(pids: set[int]) -> set[int]:
    def running(pid: int) -> bool:
        try:
            return b"sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    return set(filter(running, pids))


def kill_referees(nursery: Nursery, folder: Path, seconds: float, seed: int) -> tuple[int, int]:
    """Kill referees at random moments until time is up, up to twelve per store, then finish each; (kills, stores)."""
    chance, until = random.Random(seed), time.monotonic() + seconds
    undisturbed = folder / "undisturbed.db"
    nursery.start(undisturbed)
    began = time.monotonic()
    assert nursery.ended() == 0
    whole_s = time.monotonic() - began
    expected, kills, stores = outcomes(undisturbed), 0, 0
    assert len(expected) == CELLS
    while time.monotonic() < until or not kills:
        path = folder / f"{stores}.db"
        for _ in range(12):
            pid = nursery.start(path)
            time.sleep(chance.uniform(0, whole_s / 4))
            workers = children(pid)
            if chance.random() < 0.3 and group(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            kill(pid)
            killed = nursery.ended() == signal.SIGKILL
            kills += killed
            check(path)
            gone = time.monotonic() + 10
            while alive(workers) and time.monotonic() < gone:
                time.sleep(0.01)
            assert not alive(workers), "a worker outlived its referee"
            if not killed or time.monotonic() > until:
                break  # it was finished
        nursery.start(path)
        assert nursery.ended() == 0
        check(path)
        assert outcomes(path) == expected
        stores += 1
    return kills, stores


def group(pid: int) -> bool:
    """Whether it has a group of its own yet."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def asked(path: Path) -> int:
    """Queries in the ledger so far."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
            return int(raw.execute("SELECT count(*) FROM queries").fetchone()[0])
    except sqlite3.Error:
        return 0


def kill_workers(nursery: Nursery, folder: Path, count: int, seed: int) -> Counter[str]:
    """Kill the worker alone at random moments, once per run; how cells ended."""
    chance, ends = random.Random(seed), Counter[str]()
    for number in range(count):
        path = folder / f"worker{number}.db"
        pid = nursery.start(path)
        queries, until = chance.randrange(1, 14), time.monotonic() + 30  # of 15, so that it falls into a cell
        while asked(path) < queries and time.monotonic() < until:
            time.sleep(0.002)
        for worker in children(pid):
            kill(worker)
        assert nursery.ended() == 0, "the referee goes on with the next cell"
        check(path)
        found = outcomes(path)
        assert len(found) == CELLS
        ends.update(status for status, *_ in found.values())
    return ends


def test_referees_killed_at_random_lose_and_double_nothing(nursery: Nursery, tmp_path: Path) -> None:
    kills, stores = kill_referees(nursery, tmp_path, seconds=4, seed=1)
    assert kills >= 1
    assert stores >= 1


@pytest.mark.slow
def test_referees_killed_for_a_minute_lose_and_double_nothing(nursery: Nursery, tmp_path: Path) -> None:
    seconds = float(os.environ.get("HARNESS_KILLS_S", "60"))
    print("kills, stores:", kill_referees(nursery, tmp_path, seconds, seed=2))


def test_killed_workers_end_only_their_own_cell_and_are_reported_as_killed(nursery: Nursery, tmp_path: Path) -> None:
    ends = kill_workers(nursery, tmp_path, count=3, seed=3)
    assert set(ends) <= {"budget_exhausted", "out_of_memory", "crashed"}
    assert ends["budget_exhausted"] >= 6
    assert len(ends) > 1, "no kill fell into a cell"


@pytest.mark.slow
def test_many_killed_workers_end_their_cell_alone(nursery: Nursery, tmp_path: Path) -> None:
    print("ends:", kill_workers(nursery, tmp_path, count=30, seed=4))
