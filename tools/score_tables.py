"""Writes the score tables of docs/results.md and submissions/*/README.md, from docs/results-*.md.

`make results` calls it when it has written these pages. The text between `<!-- scores -->` and `<!-- end scores -->` is
written anew, and all other text is kept.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.leaderboard.table import write_text
from harness.sandbox.submission import folder_of
from tools import published
from tools.results_page import table

if TYPE_CHECKING:
    from collections.abc import Mapping

Row: TypeAlias = dict[str, str]
Results: TypeAlias = dict[str, dict[str, Row]]
"""By track: each entry's row of the page, in the page's order."""

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("sst2", "dbpedia", "snli", "qqp", "qnli")
TRACKS = ("mini", "kit")
BLOCK = re.compile(r"(?<=<!-- scores -->\n).*?(?=<!-- end scores -->)", re.DOTALL)
SECTION = re.compile(r"^## (Ranking|White-box references)$.*?(?=^## )", re.DOTALL | re.MULTILINE)


def read(folder: Path = ROOT / "docs") -> Results:
    """The ranking and the references of each track's page.

    Raises:
        ValueError: a page is not there, or has no table of entries.
    """
    found = {}
    for track in TRACKS:
        page = folder / f"results-{track}.md"
        try:
            found[track] = rows(page.read_text(encoding="utf-8"))
        except OSError as problem:
            raise ValueError(f"{page} cannot be read: {problem}; write it with: make results") from problem
        if not found[track]:
            raise ValueError(f"{page} has no entry below ## Ranking; write it with: make results")
    return found


def rows(page: str) -> dict[str, Row]:
    """Entries of a results page, those of the ranking first, by name without backticks.

    What the page has of accuracies stands in the row under ``TASK accuracy``.
    """
    found: dict[str, Row] = {}
    for section in SECTION.finditer(page):
        columns: list[str] = []
        for line in re.findall(r"^\| (.*) \|$", section.group(), flags=re.MULTILINE):
            cells = [cell.strip() for cell in line.split(" | ")]
            columns = columns or cells
            row = dict(zip(columns, cells, strict=True))
            name = row.get("submission") or row["reference"]
            if name.startswith("`"):
                found[name.strip("`")] = row
    for line in re.findall(r"^\| `(.*) \|$", page.partition("\n## Accuracy\n")[2].partition("\n## ")[0], re.MULTILINE):
        name, *values = [cell.strip() for cell in line.split(" | ")]
        tasks = [cell.strip() for cell in _header(page, "## Accuracy")][1:]
        found[name.strip("`")] |= {f"{task} accuracy": value for task, value in zip(tasks, values, strict=True)}
    return found


def _header(page: str, heading: str) -> list[str]:
    """Column names of the first table below a heading."""
    below = page.partition(f"\n{heading}\n")[2]
    (first, *_) = re.findall(r"^\| (.*) \|$", below, re.MULTILINE)
    return str(first).split(" | ")


def wanted(results: Results) -> dict[Path, str]:
    """Each page with a table, and the text it should have.

    Raises:
        ValueError: a page has no markers, or more than one pair.
    """
    tables = {ROOT / "docs" / "results.md": overview(results)}
    for path in sorted(ROOT.glob("submissions/*/README.md")):
        tables[path] = of_submission(path.parent.name, results)
    return {path: replaced(path, block) for path, block in tables.items()}


def overview(results: Results) -> str:
    """Averages of each submission on all tracks, with the options of the first one, in the order of its page."""
    columns = ["submission", *(name for track in TRACKS for name in (f"`{track}`", "calls, 15 cells"))]
    lines = []
    for name, first in by_folder(results[TRACKS[0]]).values():
        cells = [f"`{name}`" + (", white-box, not ranked" if "reference" in first else "")]
        for track in TRACKS:
            row = results[track].get(name, {})
            cells += [row.get("average", "-"), row.get("calls", "-")]
        lines.append(cells)
    return table(columns, lines) + "\n"


def of_submission(folder: str, results: Results) -> str:
    """The published scores, where there are some; then, for each track, the submission as it is and with options."""
    lines = []
    compared = folder in published.SCORES and all("dbpedia accuracy" in row for row in _own(folder, results))
    if folder in published.SCORES:
        scores = dict(zip(published.TASKS, published.SCORES[folder], strict=True))
        lines.append(["published, RoBERTa-large", *(scores.get(task, "-") for task in TASKS), "-"])
    for track, entries in results.items():
        for name, row in sorted(entries.items(), key=lambda entry: entry[0] != folder):
            if folder_of(name) == folder:
                options = name.removeprefix(folder).strip("[]")
                label = f"`{track}`" + (f", `{options}`" if options else "")
                plain = {task: row.get(task, "-") for task in TASKS}  # a page has the tasks that were measured
                scored = [row.get(f"{task} accuracy", plain[task]) if compared else plain[task] for task in TASKS]
                lines.append([label, *scored, row["average"]])
    metric = "accuracy, as in the papers" if compared else "macro-F1 on dbpedia and snli, accuracy elsewhere"
    return f"Tasks: {metric}.\n\n{table(['', *TASKS, 'average'], lines)}\n"


def _own(folder: str, results: Results) -> list[Row]:
    return [row for entries in results.values() for name, row in entries.items() if folder_of(name) == folder]


def by_folder(entries: Mapping[str, Row]) -> dict[str, tuple[str, Row]]:
    """One entry for each folder: that without options, or the first where there is none."""
    chosen: dict[str, tuple[str, Row]] = {}
    for name, row in entries.items():
        if folder_of(name) not in chosen or name == folder_of(name):
            chosen[folder_of(name)] = (name, row)
    return chosen


def replaced(path: Path, block: str) -> str:
    """The text of a file with another table between its markers.

    Raises:
        ValueError: there is not exactly one pair of markers.
    """
    text, count = BLOCK.subn(lambda _: block, path.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{path}: {count} tables between <!-- scores --> and <!-- end scores -->; put one pair there")
    return text


def main() -> int:
    """Write what has changed."""
    try:
        pages = wanted(read())
    except ValueError as problem:
        print(f"error: {problem}; nothing is written", file=sys.stderr)
        return 2
    for path, text in pages.items():
        if path.read_text(encoding="utf-8") != text:
            write_text(text, path)
            print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
