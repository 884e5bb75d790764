"""Helpers for tests of whole evaluations: a watcher, submissions, and reads of a results database."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outer_models import ROWS

from harness.results.audit import audit
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.evaluation.referee import Cell, Verdict
    from harness.tracks.tiers import Tier

SEARCH = "tune = search"

SLOW = """
def tune(lm, task, shots, rng, config):
    for answer in search(lm, task, shots, rng, config):
        yield answer
        time.sleep(0.05)
"""

REFERENCE = """
from dataclasses import dataclass
import numpy as np
from harness.evaluation.white_box import Predictor

access = "white-box"


@dataclass(frozen=True)
class Config:
    pass


def tune(lm, task, shots, rng, config):
    yield Predictor(lambda texts: np.full((len(texts), 2), 0.5))
"""


class Watcher:
    """Records all progress messages."""

    def __init__(self) -> None:
        self.plans: list[tuple[int, int]] = []
        self.cells: list[tuple[str, int, str]] = []
        self.rows: list[int] = []
        self.given_up: dict[str, str] = {}

    def planned(self, entry: str, cells: Sequence[Cell], todo: Sequence[Cell], before: object = ()) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.plans.append((len(cells), len(cells) - len(todo)))

    def began(self, entry: str, cell: Cell) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.rows.clear()

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.rows.append(rows)

    def ended(self, entry: str, cell: Cell, verdict: Verdict) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.cells.append((cell.task.name, cell.split, verdict.status))

    def served(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""

    def noticed(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""

    def isolated(self, tier: Tier) -> None:
        """See `harness.evaluation.run.Progress`."""

    def abandoned(self, entry: str, problem: str) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.given_up[entry] = problem


def check(path: Path, run: str, cells: int) -> None:
    """The database is complete, each cell has one outcome, and the ledger agrees with it."""
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        doubled = "select count(*) from outcomes group by run, task, split having count(*) > 1"
        assert raw.execute(doubled).fetchall() == []
    raw.close()
    store = Store(str(path))
    found = list(store.cells(run))
    assert len(found) == cells
    for cell in found:
        ledger = store.ledger(cell.attempt)
        assert sum(row.rows for row in ledger) == cell.record.rows_spent == ROWS
    assert audit(store).findings == ()
    store.close()


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def kill_group(pid: int) -> None:
    """Kill a process and its group; it may have ended, or not have a group of its own yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


class Forking:
    """A program that loads everything once, then forks a process for each line that it reads.

    The program prints the process's number, and its wait status when it has ended.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        """Start it with the folder of these helpers as its first argument."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(Path(__file__).parent), *arguments], text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def begin(self, line: str) -> int:
        """Send a line; return the number of the process that was forked for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.number()

    def number(self) -> int:
        """Read the next number, such as the wait status of the process."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)
