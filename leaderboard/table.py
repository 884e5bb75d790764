"""The ranking as a CSV file, as JSON, and as a table for the terminal."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from harness.errors import InputError
from harness.status import COUNTS

if TYPE_CHECKING:
    from pathlib import Path

    from leaderboard.rank import Entry, Ranking

_MARKS = {"1_16": 1 / 16, "1_8": 1 / 8, "1_4": 1 / 4, "1_2": 1 / 2}
ACCESS = ("L0 logits", "L1 input prompts", "L2 deep prompts", "L3 hidden states", "white-box")


def records(ranking: Ranking) -> list[dict[str, Any]]:
    """One flat record per entry; the columns of the CSV, in order."""
    return [_record(entry, ranking.tasks) for entry in ranking.entries]


def write_csv(ranking: Ranking, path: Path) -> None:
    """Write the CSV beside its final place and move it there, so that a reader never sees half of it.

    Raises:
        InputError: the file cannot be written.
    """
    rows = records(ranking)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["rank", "submission"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    beside = path.parent / f".{path.name}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text.getvalue(), encoding="utf-8")
        beside.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {problem}") from problem


def terminal_table(ranking: Ranking) -> Table:
    """Readable at 100 columns."""
    table = Table(title=f"track {ranking.track}", title_justify="left", box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("submission", overflow="fold")
    for task in ranking.tasks:
        table.add_column(task, justify="right", no_wrap=True)
    table.add_column("average", justify="right", style="bold")
    table.add_column("calls", justify="right")
    table.add_column("min", justify="right")
    table.add_column("failed", justify="right")
    for entry in ranking.entries:
        cells = [_mean_std(entry, task) for task in ranking.tasks]
        failed = sum(count for status, count in entry.statuses.items() if status not in COUNTS)
        state = f"{failed}" if not entry.missing else f"{failed} (+{entry.missing} to run)"
        shown = f"{entry.average * 100:.1f}"
        table.add_row(
            "white-box" if entry.white_box else str(entry.rank or "-"),
            escape(entry.name),
            *cells,
            shown,
            f"{entry.calls:,.0f}",
            f"{entry.wall_s / 60:.1f}",
            state,
        )
    return table


def _mean_std(entry: Entry, task: str) -> str:
    if task not in entry.tasks:
        return "-"
    mean, std, _ = entry.task(task)
    return f"{mean * 100:.1f} ±{std * 100:.1f}"


def _record(entry: Entry, tasks: tuple[str, ...]) -> dict[str, Any]:
    access = "white-box" if entry.white_box else f"L{entry.access}"
    row: dict[str, Any] = {"rank": entry.rank or "", "submission": entry.name, "access": access}
    for task in tasks:
        mean, std, splits = entry.task(task) if task in entry.tasks else (None, None, 0)
        row |= {f"{task}": _rounded(mean), f"{task}_std": _rounded(std), f"{task}_splits": splits}
    row |= {"average": _rounded(entry.average)}
    early = {name: None if entry.white_box else entry.at(mark) for name, mark in _MARKS.items()}  # of a budget
    row |= {f"average_at_{name}": _rounded(value) for name, value in early.items()}
    row |= {
        "calls": round(entry.calls, 2),
        "tokens": sum(cell.facts["tokens"] for cell in entry.cells),
        "bytes_up": sum(cell.facts["bytes_up"] for cell in entry.cells),
        "bytes_down": sum(cell.facts["bytes_down"] for cell in entry.cells),
        "wall_s": round(entry.wall_s, 1),
        "lm_s": round(sum(cell.facts["lm_s"] for cell in entry.cells), 1),
        "statuses": " ".join(f"{name}:{count}" for name, count in entry.statuses.items()),
        "missing_cells": entry.missing,
        "sandbox": " ".join(sorted({cell.facts["sandbox"] for cell in entry.cells})),
        "versions": " ".join(f"{name}={value}" for name, value in sorted(entry.environment["packages"].items())),
        "run": entry.run,
    }
    return row


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)
