"""The power fails: the files of the store as they are at a random moment, torn or not, hold what was acknowledged."""

# ruff: noqa: S311 - chance picks moments and bytes
from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from made_up import key

from harness.results.audit import audit
from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.store import Store
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Callable

Cut = Literal["whole", "torn", "zeroed", "noise"]
QUERIES = 20


def write(path: str, acknowledged: str, seconds: float) -> None:
    """Run cells into a store for a while; a byte goes into another file after each commit of a query."""
    store, rng, until, number = Store(path), np.random.default_rng(0), time.monotonic() + seconds, 0
    test = load_test(load_task("sst2"), Source("embedded"))
    file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while time.monotonic() < until:
        number += 1
        run = store.open_run(key(seed=number // 5), {})
        attempt = store.begin(run, "sst2", number)
        for _ in range(QUERIES):
            attempt.record(LedgerRow(1, 1, 1, 1, 0.5, 1, rng.bytes(32).hex()))
            os.write(file, b".")
        kept = [KeptAnswer(1.0, QUERIES, rng.bytes(30_000), rng.integers(2, size=len(test)))]
        record = CellRecord(
            rows_spent=QUERIES, rows_total=QUERIES, queries=QUERIES, tokens=QUERIES, bytes_up=QUERIES,
            bytes_down=QUERIES, lm_s=QUERIES / 2, level=1,
        )  # fmt: skip
        attempt.finish("ok", record, examples_sha256(test), test.labels, kept)


FRAME = 24 + 4096
"""Bytes of a frame of SQLite's write-ahead log: its header and a page."""


def copied_back(index: bytes, log: bytes) -> int:
    """Bytes of the log that the database file may hold already: SQLite syncs them before it copies the first page.

    `index` is the file `-shm` at the same moment (sqlite.org/walformat.html, section 2): salts at 32, the last
    frame a checkpoint set out to copy at 128. Between two rounds of the log, when the salts differ, it is all of it.
    """
    if index[32:40] != log[16:24]:
        return len(log)
    return 32 + FRAME * int.from_bytes(index[128:132], sys.byteorder)


def cut(log: bytes, spared: int, how: Cut, chance: random.Random) -> bytes:
    """What a disk may make of bytes that no fsync had confirmed: cut off, never written, or something else.

    It goes further back than a disk would, into commits that were confirmed: an older state must be whole too.
    """
    if how == "whole" or spared >= len(log):
        return log
    data, place = bytearray(log), chance.randrange(spared, len(log))
    tail = len(data) - place
    if how == "torn":
        del data[place:]
    else:
        data[place:] = bytes(tail) if how == "zeroed" else chance.randbytes(tail)
    return bytes(data)


def power_cuts(folder: Path, seconds: float, seed: int, report: Callable[[str], None]) -> int:
    """Freeze a writer at random moments and look at copies of its files; returns how many."""
    path, acknowledged = folder / "results.db", folder / "acknowledged"
    program = (
        f"import sys; sys.path[:0] = sys.argv[1:3]; import test_power; test_power.write(*sys.argv[3:5], {seconds})"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    chance, copies, cells, held = random.Random(seed), 0, 0, 0
    with subprocess.Popen([sys.executable, "-c", program, *folders, str(path), str(acknowledged)]) as writer:
        while not acknowledged.exists() and writer.poll() is None:
            time.sleep(0.01)
        while writer.poll() is None:
            time.sleep(chance.uniform(0, 0.1))
            copy = folder / f"copy{copies}" / "results.db"
            copy.parent.mkdir()
            os.kill(writer.pid, signal.SIGSTOP)
            try:
                confirmed = acknowledged.stat().st_size
                for suffix in ("", "-wal", "-shm"):
                    if Path(f"{path}{suffix}").exists():
                        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
            finally:
                os.kill(writer.pid, signal.SIGCONT)
            how: Cut = chance.choice(["whole", "whole", "torn", "zeroed", "noise"])
            log, index = Path(f"{copy}-wal"), Path(f"{copy}-shm")
            if log.exists() and index.exists():
                log.write_bytes(cut(before := log.read_bytes(), copied_back(index.read_bytes(), before), how, chance))
            if chance.random() < 0.5:
                index.unlink(missing_ok=True)
            store = Store(str(copy))
            found = audit(store)
            store.close()
            assert found.findings == (), how
            if how == "whole":
                assert found.rows["queries"] >= confirmed, "a query whose reply was sent is not in the ledger"
                held += 1
            cells = max(cells, len(found.cells))
            copies += 1
            shutil.rmtree(copy.parent)
    assert writer.returncode == 0
    queries = acknowledged.stat().st_size
    report(f"{copies} power cuts, {held} of them with nothing torn; up to {cells} cells, {queries} queries")
    return copies


def test_after_a_power_cut_every_acknowledged_commit_is_complete(tmp_path: Path) -> None:
    assert power_cuts(tmp_path, seconds=3, seed=1, report=print) >= 2


@pytest.mark.slow
def test_many_power_cuts(tmp_path: Path) -> None:
    assert power_cuts(tmp_path, seconds=60, seed=2, report=print) >= 20
