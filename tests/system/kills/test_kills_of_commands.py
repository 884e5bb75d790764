"""SIGKILL at random moments of merge, leaderboard, `evaluate --again` and the scoring of the service.

Each command is begun again until it ends by itself; then everything is as if it had never been killed.
`HARNESS_KILLS` says how many kills each slow test deals: 12 where it is not set, 125 for a campaign of 500.
"""

# ruff: noqa: S311, T201 - chance picks moments, the slow tests tell their counts
from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from evaluating import Forking
from made_up import key
from outer_models import write_submission

from harness.contract import Answer
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.audit import audit
from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.store import Store
from harness.service.accounts import Accounts
from harness.service.serve import track_id
from harness.solving.answers import to_bytes
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SST2 = load_task("sst2")
TEST = load_test(SST2, Source("embedded"))
FLAKY = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    lm.logits(None, shots.train.texts)
    space = Subspace(1_000_000, (1.0,), 2, seed=1)
    lm.logits(space.at(np.zeros(1_000_000)), shots.train.texts)
"""
NURSERY = """
import os, sys, traceback
sys.path.insert(0, sys.argv[1])
from evaluating import Watcher
from harness.blackbox import memory
from harness.cli import app
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.merge import merge
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.service.accounts import Accounts
from harness.service.serve import settle
from harness.tracks.track import load_track

evaluation = Evaluation(load_track(sys.argv[2]), Overrides(), Store(sys.argv[3]))
evaluation.store.close()


def merging(folder):
    for name in ("a.db", "b.db"):
        merge(Store(f"{folder}/{name}"), Store(f"{folder}/target.db"))


def leaderboard(folder):
    app(["leaderboard", "--track", sys.argv[2], "--store", f"{folder}/a.db", "--out", f"{folder}/tiny.csv"])


def evaluate(folder, available=lambda: None, again=True):
    memory.available = available
    evaluation.store = Store(f"{folder}/results.db")
    evaluation.run(find(f"{folder}/entry"), {}, Watcher(), again=again)


def failing(folder):
    evaluate(folder, lambda: 300 << 20, again=False)


def scoring(folder):
    evaluation.store = Store(f"{folder}/results.db")
    while settle(evaluation, Accounts(f"{folder}/service.db"), set()):
        pass


print(os.getpid(), flush=True)
for line in sys.stdin:
    name, folder = line.rstrip().split(" ", 1)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        sys.stdout = sys.stderr = open(f"{folder}/output", "w")
        try:
            globals()[name](folder)
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""
"""Loads everything once, then does what each line says, in a process of its own."""


class Nursery(Forking):
    """Starts commands quickly."""

    def __init__(self, folder: Path, track: Path) -> None:
        super().__init__(NURSERY, str(track), str(folder / "unused.db"))
        self.number()  # it is loaded: from now on a command takes the time that it takes

    def run(self, name: str, folder: Path, kill_after_s: float | None = None) -> bool:
        """Run a command; kill it after a while, if it has not ended by then. Whether it was killed."""
        pid = self.begin(f"{name} {folder}")
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signal.SIGKILL)
        code = self.number()
        assert code in {0, signal.SIGKILL}, (folder / "output").read_text(encoding="utf-8")
        return code != 0


@pytest.fixture
def nursery(tmp_path: Path, tiny_track: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path, tiny_track)
    yield made
    made.close()


def killed(
    nursery: Nursery, name: str, prepared: Path, kills: int, look: Callable[[Path], Any], seed: int
) -> tuple[int, int]:
    """Kill a command until so many kills met one, finishing it after up to four; every end is the undisturbed one.

    Args:
        nursery: runs it.
        name: which command.
        prepared: the folder in which it works; each round works on a copy.
        kills: how many.
        look: what there is afterwards, in a form that can be compared; it also checks that all is whole.
        seed: of the moments.

    Returns:
        Kills, and rounds.
    """
    chance, undisturbed = random.Random(seed), prepared.with_name("undisturbed")
    shutil.copytree(prepared, undisturbed)
    began = time.monotonic()
    assert not nursery.run(name, undisturbed)
    whole_s, expected = time.monotonic() - began, look(undisturbed)
    met = rounds = 0
    while met < kills:
        folder = prepared.with_name(f"round{rounds}")
        shutil.copytree(prepared, folder)
        for _ in range(min(4, kills - met)):  # a fifth one would give a scoring up
            was_killed = nursery.run(name, folder, chance.uniform(0, whole_s))
            met += was_killed
            look(folder)
            if not was_killed:
                break
        nursery.run(name, folder)
        assert look(folder) == expected
        rounds += 1
        shutil.rmtree(folder)
    return met, rounds


def sound(path: Path) -> Store | None:
    """The database, of which nothing is broken; None where there is none yet."""
    if not path.exists():
        return None
    store = Store(str(path))
    assert audit(store).findings == ()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return store


def facts(path: Path) -> list[Any]:
    """What counts of each finished cell."""
    store = sound(path)
    if store is None:
        return []
    found = [
        (run.key.entry, cell.task, cell.split, cell.status, cell.record.replaced, cell.record.rows_spent,
         {mark: p.tolist() for mark, p in cell.predictions.items()},
         [row.sha256 for row in store.ledger(cell.attempt)])
        for run in store.runs()
        for cell in store.cells(run.id)
    ]  # fmt: skip
    store.close()
    return sorted(found, key=lambda each: each[:3])


def filled(path: Path, track: Path, *entries: str) -> None:
    """Made-up runs of two cells each with forty queries."""
    store, fingerprint = Store(str(path)), load_track(str(track)).fingerprint
    for number, entry in enumerate(entries):
        run = store.open_run(key(entry, track_fingerprint=fingerprint), {"packages": {}})
        for split in (1, 2):
            attempt = store.begin(run, "sst2", split)
            for n in range(40):
                attempt.record(LedgerRow(1, 10, 10, 20, 0.5, 1, f"{entry}/{split}/{n}"))
            record = CellRecord(
                rows_spent=40, rows_total=80, train_rows=8, calls_total=10, queries=40, tokens=400, bytes_up=400,
                bytes_down=800, lm_s=20.0, level=1, sandbox="A",
            )  # fmt: skip
            predicted = np.where(np.arange(len(TEST)) < 100 + number + split, TEST.labels, 1 - TEST.labels)
            attempt.finish(
                "ok", record, examples_sha256(TEST), TEST.labels, [KeptAnswer(1.0, 40, entry.encode(), predicted)]
            )
    store.close()


def kill_merges(nursery: Nursery, folder: Path, track: Path, kills: int) -> tuple[int, int]:
    prepared = folder / "prepared"
    prepared.mkdir()
    filled(prepared / "a.db", track, "one", "two", "three")
    filled(prepared / "b.db", track, "four", "five")
    return killed(nursery, "merging", prepared, kills, lambda place: facts(place / "target.db"), seed=1)


def kill_leaderboards(nursery: Nursery, folder: Path, track: Path, kills: int) -> tuple[int, int]:
    """The table is whole whenever it is there, the one before or the new one, and the database is untouched."""
    prepared = folder / "prepared"
    prepared.mkdir()
    filled(prepared / "a.db", track, "one", "two", "three")
    (prepared / "tiny.csv").write_text("before\n", encoding="utf-8")
    (prepared / "tiny.json").write_text("before\n", encoding="utf-8")
    whole: dict[str, set[bytes]] = {"tiny.csv": set(), "tiny.json": set()}

    def look(place: Path) -> Any:
        for name, known in whole.items():
            known.add((place / name).read_bytes())
            assert len(known) <= 2
        return facts(place / "a.db"), [(place / name).read_bytes() for name in whole]

    look(prepared)
    return killed(nursery, "leaderboard", prepared, kills, look, seed=2)


def kill_again(nursery: Nursery, folder: Path, kills: int) -> tuple[int, int]:
    """Three failed cells that run once more: each counts once, as the failure until its new outcome is there."""
    prepared = folder / "prepared"
    write_submission(prepared, FLAKY)
    nursery.run("failing", prepared)

    def look(place: Path) -> Any:
        found = facts(place / "results.db")
        assert len(found) == 3
        assert {(status, replaced) for _, _, _, status, replaced, *_ in found} <= {
            ("out_of_memory", ()), ("ok", ("out_of_memory",)),
        }  # fmt: skip
        return found

    return killed(nursery, "evaluate", prepared, kills, look, seed=3)


def kill_scorings(nursery: Nursery, folder: Path, track: Path, kills: int) -> tuple[int, int]:
    """Three answers that were handed in: each is scored once, and none is lost."""
    prepared = folder / "prepared"
    prepared.mkdir()
    store, book = Store(str(prepared / "results.db")), Accounts(str(prepared / "service.db"))
    evaluation = Evaluation(load_track(str(track)), Overrides(), store)
    book.new_token("alice")
    for cell in evaluation.cells:
        account = book.account("alice", track_id(evaluation), cell.task.name, cell.split, 80)
        book.submit(account, to_bytes(Answer.of(cell.task)))
    name = track_id(evaluation)
    store.close()
    book.close()

    def look(place: Path) -> Any:
        kept = Accounts(str(place / "service.db"))
        waiting = len(kept.unscored(name))
        kept.close()
        found = facts(place / "results.db")
        assert len({each[:3] for each in found}) == len(found) >= 3 - waiting
        assert {each[3] for each in found} <= {"ok"}
        return found, waiting

    return killed(nursery, "scoring", prepared, kills, look, seed=4)


MANY = int(os.environ.get("HARNESS_KILLS", "12"))
KILLS = [4, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(600 + 20 * MANY)])]


@pytest.mark.parametrize("kills", KILLS)
def test_killed_merges_lose_and_double_nothing(nursery: Nursery, tmp_path: Path, tiny_track: Path, kills: int) -> None:
    print("kills, rounds:", kill_merges(nursery, tmp_path, tiny_track, kills))


@pytest.mark.parametrize("kills", KILLS)
def test_killed_leaderboards_leave_whole_tables(nursery: Nursery, tmp_path: Path, tiny_track: Path, kills: int) -> None:
    print("kills, rounds:", kill_leaderboards(nursery, tmp_path, tiny_track, kills))


@pytest.mark.parametrize("kills", KILLS)
def test_cells_that_run_again_lose_and_double_nothing_when_killed(nursery: Nursery, tmp_path: Path, kills: int) -> None:
    print("kills, rounds:", kill_again(nursery, tmp_path, kills))


@pytest.mark.parametrize("kills", KILLS)
def test_killed_scorings_of_the_service_lose_and_double_nothing(
    nursery: Nursery, tmp_path: Path, tiny_track: Path, kills: int
) -> None:
    print("kills, rounds:", kill_scorings(nursery, tmp_path, tiny_track, kills))
