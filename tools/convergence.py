"""Writes what `mini-long` shows: the table of docs/tracks.md, and docs/results/mini-long.svg, from its database.

python tools/convergence.py --store leaderboard/measured-long.db.xz

The table has the score and the training loss of each entry's last answer on each task. The text between
`<!-- convergence -->` and `<!-- end convergence -->` is written anew, and all other text is kept. The figure has the
lowest training loss that each search had logged after so many calls. The same database gives the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.errors import HarnessError
from harness.leaderboard.report.figures import COLOURS, STYLE, WIDTH, plain_numbers, write_figure
from harness.leaderboard.table import write_text
from harness.results.store import Store
from harness.tracks.track import load_track
from tools.measured import Runs
from tools.results_page import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import CellScore, Entry

ROOT = Path(__file__).resolve().parent.parent
TRACK = "mini-long"
FACTS = ROOT / "leaderboard" / "measured-long.db.xz"
PAGE = ROOT / "docs" / "tracks.md"
FIGURE = ROOT / "docs" / "results" / "mini-long.svg"
TASKS = ("sst2", "dbpedia", "snli", "qqp", "qnli")
DRAWN = ("random_search", "nevergrad[optimizer=CMA]", "bbt[dim=50]", "bbt", "bbtv2")
"""Whose losses are drawn: cross-entropy of one prompt. AJO's is that of a mixture and compares with none of these."""
BLOCK = re.compile(r"(?<=<!-- convergence -->\n).*?(?=<!-- end convergence -->)", re.DOTALL)


def entries(store: Path) -> list[Entry]:
    """What the database has of the track, best average first among those with the most cells.

    Raises:
        HarnessError: the database cannot be read.
    """
    with contextlib.closing(Store(str(store), create=False)) as opened:
        found = Runs([opened], TRACK).rank(load_track(TRACK)).entries
    return sorted(found, key=lambda entry: (-len(entry.cells), -entry.average, entry.name))


def block(found: Sequence[Entry]) -> str:
    """The table: a row for each entry, and a column for each task that any has."""
    tasks = [task for task in TASKS if any(task in entry.tasks for entry in found)]
    budget = {cell.task: cell.record.calls_total for entry in found for cell in entry.cells}
    columns = ["entry", *(f"{task}, {budget[task]:,} calls" for task in tasks), "average", "calls"]
    rows = []
    for entry in found:
        by_task = {cell.task: cell for cell in entry.cells}
        whole = len(by_task) == len(tasks)
        spent = sum(cell.record.calls_spent for cell in entry.cells)
        shown = [_shown(by_task[task]) if task in by_task else "-" for task in tasks]
        rows.append([f"`{entry.name}`", *shown, f"{100 * entry.average:.1f}" if whole else "-", f"{spent:,.0f}"])
    return table(columns, rows) + "\n"


def _shown(cell: CellScore) -> str:
    """Score, and the loss of the last answer where it was offered with one."""
    score, notes = f"{100 * cell.score:.1f}", [note for _, note in cell.record.history or ()]
    return f"{score}, loss {notes[-1]['loss']:.2f}" if notes and "loss" in notes[-1] else score


def losses(found: Sequence[Entry]) -> Figure:
    """The lowest training loss logged so far against calls: a panel for each task, a colour for each entry."""
    drawn = {entry.name: {cell.task: cell for cell in entry.cells} for entry in found}
    tasks = [task for task in TASKS if any(task in cells for name, cells in drawn.items() if name in DRAWN)]
    lines = -(-(len(tasks) + 1) // 2)  # the last panel has the names
    figure = Figure(figsize=(WIDTH, 0.36 * WIDTH * lines), layout="constrained")
    panels: Any = figure.subplots(lines, 2, squeeze=False).ravel()
    for task, axes in zip(tasks, panels, strict=False):
        for name, colour in zip(DRAWN, COLOURS, strict=False):
            cell = drawn.get(name, {}).get(task)
            logged = [(spent, note["loss"]) for spent, note in cell.record.log if "loss" in note] if cell else []
            if cell and logged:
                calls = [spent / cell.record.train_rows for spent, _ in logged]
                axes.plot(calls, list(accumulate((loss for _, loss in logged), min)), color=colour, lw=1.2, label=name)
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("calls", fontsize=8)
        axes.set_ylabel("lowest training loss", fontsize=8)
    for axes in panels[len(tasks) :]:
        axes.axis("off")
    if tasks:
        panels[len(tasks)].legend(*panels[0].get_legend_handles_labels(), loc="center", fontsize=9, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description="Write the table and the figure of mini-long.")
    parser.add_argument("--store", type=Path, default=FACTS, help="results database")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the markers of the table")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="the figure")
    given = parser.parse_args(arguments)
    try:
        found = entries(given.store)
        text = given.page.read_text(encoding="utf-8")
        if not found:
            parser.error(f"{given.store} has no run on track {TRACK}; nothing is written")
        written, count = BLOCK.subn(lambda _: block(found), text)
        if count != 1:
            parser.error(f"{given.page}: {count} tables between <!-- convergence --> and <!-- end convergence -->")
        with mpl.rc_context(STYLE):
            write_figure(losses(found), given.figure)
        write_text(written, given.page)
    except (HarnessError, OSError) as problem:
        parser.error(str(problem))
    print(f"written: {given.page} and {given.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
