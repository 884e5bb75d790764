"""Shows the progress of an evaluation: a live bar on a terminal, a line per cell elsewhere, JSON lines for machines."""

from __future__ import annotations

import dataclasses
import json
import time
from textwrap import indent
from typing import TYPE_CHECKING, Any, Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.errors import counted
from harness.results.status import COUNTS
from harness.sandbox.best_tier import BANNER
from harness.solving.metrics import score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from rich.console import Console

    from harness.evaluation.failures import Failure
    from harness.evaluation.referee import Cell, Verdict
    from harness.results.records import CellRecord, StoredCell
    from harness.tracks.tiers import Tier

_SHORT: dict[str, str] = {
    "accuracy": "acc",
    "macro_f1": "F1",
    "f1": "F1",
    "chrf": "chrF",
    "bleu": "BLEU",
    "rouge_l": "R-L",
    "exact_match": "EM",
    "token_f1": "F1",
}
"""How metrics are called in a line of a cell."""
_TOLD_S = 30.0
"""Seconds between two lines about test texts that are being written."""


class PlainProgress:
    """One line per cell."""

    def __init__(self, console: Console, first_round: Callable[[str, int], None] | None = None) -> None:
        """Print to `console`.

        Args:
            console: where lines go.
            first_round: called with the entry's name and the number of cells left, when every task of the entry has
                its first score and cells are left.
        """
        self.console, self._first_round = console, first_round
        self._counts: dict[str, tuple[int, int]] = {}
        """For each entry with unfinished cells: the number of finished cells, and of all cells."""
        self.given_up: dict[str, str] = {}
        """Entries that were stopped before all cells were run, with the reason."""
        self._unscored: dict[str, set[str]] = {}
        """For each entry with unfinished cells: the tasks without a finished cell."""
        self._told: float | None = None
        """When there was a line about test texts, or would have been one."""

    def __enter__(self) -> Self:
        """Start; there is nothing to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; there is nothing to do."""

    def isolated(self, tier: Tier) -> None:
        """See `harness.evaluation.run.Progress`."""
        if tier == "0":
            self.console.print(f"[bold red]{escape(BANNER)}[/bold red]", soft_wrap=True)

    def noticed(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""
        for line in lines:
            self.console.print(f"odd data: {escape(printable(line))}", soft_wrap=True)

    def served(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""
        for line in lines:
            self.console.print(f"endpoint: {escape(printable(line))}", soft_wrap=True)

    def planned(
        self, entry: str, cells: Sequence[Cell], todo: Sequence[Cell], before: Sequence[StoredCell] = ()
    ) -> None:
        """See `harness.evaluation.run.Progress`."""
        finished = len(cells) - len(todo)
        if todo:
            self._counts[entry] = finished, len(cells)
            places = {(cell.task.name, cell.split) for cell in todo}
            scored = {cell.task.name for cell in cells if (cell.task.name, cell.split) not in places}
            self._unscored[entry] = {cell.task.name for cell in cells} - scored
        done = f", {finished} of them finished before" if finished else ""
        self.console.print(f"{escape(entry)}: {counted(len(cells), 'cell')}{done}")
        for cell, stored in finished_before(cells, before):
            line = describe(cell, stored.status, stored.record, stored_score(cell, stored))
            self.console.print(f"  {escape('[before]')} {line}", soft_wrap=True)

    def began(self, entry: str, cell: Cell) -> None:
        """See `harness.evaluation.run.Progress`."""

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """See `harness.evaluation.run.Progress`. Of texts that are written, there is a line twice a minute."""
        del rows
        if "texts" in note and note["written"] < note["texts"] and self._due():
            self.console.print(f"  {_written(note)}", soft_wrap=True)

    def _due(self) -> bool:
        """Whether it is time for the next line about test texts. The first one comes half a minute after the start."""
        now = time.monotonic()
        due = self._told is not None and now - self._told >= _TOLD_S
        if due or self._told is None:
            self._told = now
        return due

    def ended(self, entry: str, cell: Cell, verdict: Verdict) -> None:
        """See `harness.evaluation.run.Progress`."""
        number, total = self._number(entry)
        whose = f"{entry} " if len(self._counts) > 1 else ""  # several entries run at once
        other = "" if verdict.stored else "  (finished by another process first; not stored twice)"
        line = describe(cell, verdict.status, verdict.record, verdict.score) + other
        self.console.print(f"  {escape(f'[{number}/{total}] {whose}')}{line}", soft_wrap=True)
        self._counts[entry] = number, total
        if number == total:
            del self._counts[entry]
        if verdict.status not in COUNTS or worth_telling(verdict.status, verdict.record):
            detail = verdict.record.detail or verdict.record.output
            self.console.print(escape(indent(printable(detail).strip()[-2000:], "    ")), soft_wrap=True)
        self._scored(entry, cell.task.name, total - number)

    def abandoned(self, entry: str, problem: str) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.given_up[entry] = problem
        self.console.print(f"{escape(entry)}: {escape(printable(problem).strip()[-2000:])}", soft_wrap=True)

    def _scored(self, entry: str, task: str, left: int) -> None:
        """Note a task's finished cell. Call `first_round` if every task now has one and cells are left."""
        unscored = self._unscored.get(entry, set())
        if task in unscored:
            unscored.remove(task)
            if not unscored and left and self._first_round is not None:
                self._first_round(entry, left)

    def _number(self, entry: str) -> tuple[int, int]:
        """The number of the entry's cell that finishes next, and the number of all its cells."""
        finished, total = self._counts.get(entry, (0, 1))
        return finished + 1, total


class LiveProgress(PlainProgress):
    """A bar per running cell: budget used, best loss so far, time left. Finished cells stay as lines above it."""

    def __init__(self, console: Console, first_round: Callable[[str, int], None] | None = None) -> None:
        """Draw on `console`. `first_round` is as in `PlainProgress`."""
        super().__init__(console, first_round)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[calls]}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._cell: Cell | None = None
        self._train_rows = 1

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def began(self, entry: str, cell: Cell) -> None:
        """See `harness.evaluation.run.Progress`."""
        super().began(entry, cell)
        number, total = self._number(entry)
        name = f"{entry} {cell.task.name}/{cell.split} ({number}/{total})"
        self._train_rows = cell.train_rows
        total = cell.spec.calls * self._train_rows
        self._task = self._bar.add_task(escape(name), total=total, calls=f"0/{cell.spec.calls} calls", note="")
        self._cell = cell

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """See `harness.evaluation.run.Progress`."""
        if self._task is None or self._cell is None:
            return
        if "texts" in note:
            self._bar.update(self._task, completed=note["written"], total=note["texts"], calls=_written(note), note="")
            return
        shown = f"loss {note['loss']:.4f}" if "loss" in note else ""
        calls = f"{rows / self._train_rows:,.0f}/{self._cell.spec.calls} calls"
        self._bar.update(self._task, completed=rows, calls=calls, note=shown)

    def ended(self, entry: str, cell: Cell, verdict: Verdict) -> None:
        """See `harness.evaluation.run.Progress`."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = None
        super().ended(entry, cell, verdict)


def _written(note: Mapping[str, float]) -> str:
    """How far the writing of test texts is."""
    return f"{note['written']:,.0f} of {note['texts']:,.0f} test texts written"


class JsonProgress(PlainProgress):
    """One JSON object per event, one object per line."""

    def __init__(self, console: Console) -> None:
        """Write to `console`'s file."""
        super().__init__(console)
        self._started = time.monotonic()

    def isolated(self, tier: Tier) -> None:
        """See `harness.evaluation.run.Progress`."""
        self._write({"event": "isolated", "sandbox": tier})

    def noticed(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""
        for line in lines:
            self._write({"event": "odd data", "line": line})

    def served(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""
        for line in lines:
            self._write({"event": "endpoint", "line": line})

    def planned(
        self, entry: str, cells: Sequence[Cell], todo: Sequence[Cell], before: Sequence[StoredCell] = ()
    ) -> None:
        """See `harness.evaluation.run.Progress`."""
        finished = len(cells) - len(todo)
        self._write({"event": "planned", "entry": entry, "cells": len(cells), "finished": finished})
        for cell, stored in finished_before(cells, before):
            place = {"event": "before", "entry": entry, "task": cell.task.name, "split": cell.split}
            known = {"status": stored.status, "score": stored_score(cell, stored)}
            self._write({**place, **known, "calls": round(stored.record.calls_spent, 4)})

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """See `harness.evaluation.run.Progress`."""
        del rows
        if "texts" in note and self._due():
            self._write({"event": "writing", "written": note["written"], "texts": note["texts"]})

    def ended(self, entry: str, cell: Cell, verdict: Verdict) -> None:
        """See `harness.evaluation.run.Progress`."""
        known = {name: value for name, value in verdict.record.plain().items() if name != "output"}
        scored = {"score": verdict.score, "stored": verdict.stored}
        place = {"event": "cell", "entry": entry, "task": cell.task.name, "split": cell.split}
        self._write({**place, "status": verdict.status, **scored, **known})

    def abandoned(self, entry: str, problem: str) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.given_up[entry] = problem
        self._write({"event": "abandoned", "entry": entry, "detail": problem})

    def failed(self, failure: Failure) -> None:
        """Write a line of the table of failures."""
        self._write({"event": "failed", **dataclasses.asdict(failure)})

    def _write(self, event: dict[str, Any]) -> None:
        event["elapsed_s"] = round(time.monotonic() - self._started, 3)
        self.console.file.write(json.dumps(event) + "\n")
        self.console.file.flush()


def printable(text: str) -> str:
    """Text from a submission without the control characters that could control a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def finished_before(cells: Sequence[Cell], before: Sequence[StoredCell]) -> list[tuple[Cell, StoredCell]]:
    """The cells that are asked for and in the database already, in the order of `cells`."""
    known = {(stored.task, stored.split): stored for stored in before}
    pairs = ((cell, known.get((cell.task.name, cell.split))) for cell in cells)
    return [(cell, stored) for cell, stored in pairs if stored is not None]


def stored_score(cell: Cell, stored: StoredCell) -> float | None:
    """Test score of a stored cell, from 0 to 1; None for a failure."""
    if stored.status not in COUNTS or 1.0 not in stored.predictions:
        return None
    # By arrays, as the ranking does it: scikit-learn would take longer to import than a finished command takes.
    return float(score(cell.task.metric, stored.predictions[1.0][None], stored.labels, len(cell.task.classes))[0])


def worth_telling(status: str, record: CellRecord) -> bool:
    """Whether a cell that counts ended in a way that its author did not want."""
    return bool(record.detail) and (status in {"timeout", "ok"} or bool(record.refused and not record.queries))


def describe(cell: Cell, status: str, record: CellRecord, score: float | None) -> str:
    """A finished cell in one line."""
    calls = f"{record.calls_spent:,.0f}/{record.calls_total} calls"
    if record.forwards is not None:  # of a reference
        calls = f"{record.forwards:,}{f'/{record.rows_total:,}' if record.rows_total else ''} forwards"
    metric = _SHORT[cell.task.metric]
    scored = "no score" if score is None else f"{metric} {score * 100:5.1f}"
    loss = f"  loss {record.note['loss']:.4f}" if "loss" in record.note else ""
    asked = "" if record.queries or not record.refused else ", but no query fitted into the budget"
    return f"{cell.task.name}/{cell.split}  {scored}  {calls}  {record.tuning_s:.1f} s{loss}  {status}{asked}"
