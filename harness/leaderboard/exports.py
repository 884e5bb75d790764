"""Writes the ranking as CSV, JSON, Markdown, LaTeX and HTML, and its cells as tidy rows.

CSV and JSON hold every column. Markdown, LaTeX and HTML are tables for people, one for each division: shared ranks,
averages, and differences to the leader, with intervals. docs/leaderboard.md describes the columns.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from harness.leaderboard.formats import Format
from harness.leaderboard.headline import headline
from harness.leaderboard.pareto import money
from harness.leaderboard.table import as_csv, as_json, document, frame
from harness.leaderboard.terminal import shown_rank
from harness.results.status import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from harness.leaderboard.entries import CellScore, Division, Entry
    from harness.leaderboard.rank import Ranking


CELL_COLUMNS = (
    *("entry", "task", "split", "seed", "mark", "calls", "score", "accuracy", "status", "seconds", "tokens"),
    *("repeat", "metric", "cell_calls", "budget_calls", "division", "run", "forwards"),
)
"""Columns of the cells' CSV, in order."""


def exported(ranking: Ranking, form: Format) -> str:
    """The ranking as text that ends with a line break."""
    if form is Format.JSON:
        return as_json(document(ranking))
    if form is Format.CSV:
        return as_csv(document(ranking)["entries"])
    parts = [
        (f"Track {ranking.track}: {division.title}", headline(ranking, division) or "", presented(ranking, division))
        for division in ranking.divisions
    ]
    if form is Format.MARKDOWN:
        tables = [f"## {title}\n\n{_sentence(said)}{markdown(table)}" for title, said, table in parts]
        return "\n".join(tables) or f"No entry on track {ranking.track}.\n"
    if form is Format.LATEX:
        return "\n".join([_PREAMBLE, *(_latex(*part) for part in parts), *([] if parts else [""])])
    return _page(f"Leaderboard, track {ranking.track}", parts)


def exported_rows(title: str, rows: Sequence[dict[str, Any]], form: Format, key: str = "costs") -> str:
    """Flat records as text that ends with a line break, as a table with a title. JSON has them under `key`."""
    if not rows and form is not Format.JSON:
        return "" if form is Format.CSV else f"{title}: nothing to list.\n"
    table = frame(rows)
    if form is Format.CSV:
        return as_csv(rows)
    if form is Format.JSON:
        return as_json({key: list(rows)})
    shown = table.map(lambda value: "" if value is None else f"{value:,}" if isinstance(value, float) else str(value))
    if form is Format.MARKDOWN:
        return f"## {title}\n\n{markdown(shown)}"
    return f"{_PREAMBLE}\n{_latex(title, '', shown)}" if form is Format.LATEX else _page(title, [(title, "", shown)])


def presented(ranking: Ranking, division: Division) -> pd.DataFrame:
    """A division as a table for people: a row per entry, all cells as text, scores in points with intervals."""
    every = (*ranking.entries, *ranking.elsewhere)
    main = division == ranking.divisions[0]
    entries = [e for e in every if (main if e.white_box else e.division == division)]
    standings = [ranking.standing(entry) for entry in entries]
    ranks = [standing.rank for standing in standings if standing and standing.rank]
    rows: list[dict[str, Any]] = []
    for entry, standing in zip(entries, standings, strict=True):
        behind = standing.behind.difference if standing and standing.behind else None
        spent = money(entry, ranking.prices)
        row: dict[str, Any] = {
            "#": "ref." if entry.white_box else shown_rank(entry, standing, ranks),
            "submission": entry.name + (f" ({entry.missing} cells missing)" if entry.missing else ""),
            "average": standing.average.points() if standing else f"{100 * entry.average:.1f}",
            "behind": behind.points() if behind else "",
        }
        row |= {task: f"{100 * entry.task(task)[0]:.1f}" if task in entry.tasks else "" for task in ranking.tasks}
        row |= {"calls": "" if entry.white_box else f"{entry.calls:,.0f}", "tuning, min": f"{entry.wall_s / 60:.1f}"}
        if ranking.prices:
            row[ranking.prices.currency] = "" if spent is None else f"{spent:,.2f}"
        rows.append(row)
    return frame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A table of text in GitHub's Markdown. The `to_markdown` of pandas would need another package."""
    lines = [
        list(table.columns),
        ["---" if name in _WORDS else "---:" for name in table.columns],
        *table.to_numpy().tolist(),
    ]
    return "".join(f"| {' | '.join(_in_markdown(str(each)) for each in line)} |\n" for line in lines)


def tidy_cells(ranking: Ranking) -> list[dict[str, Any]]:
    """A row for each listed entry, cell, repeat and mark of the budget, with the columns of ``cells.csv`` in order."""
    seed = ranking.identity.get("seed")
    return [row for entry in (*ranking.entries, *ranking.elsewhere) for row in tidy_entry(entry, seed)]


def tidy_entry(entry: Entry, seed: int | None) -> list[dict[str, Any]]:
    """The rows of one entry."""
    rows: list[dict[str, Any]] = []
    division = entry.division.title  # computed once, because it reads all cells
    for cell in entry.cells:
        for repeat, each in enumerate(cell.repeats or (cell,)):
            last = {"repeat": repeat, "division": division, "run": entry.run}
            rows += [{"entry": entry.name, "seed": seed} | row | last for row in _marks(each, entry.white_box)]
    return [{name: row[name] for name in CELL_COLUMNS} for row in rows]


def _marks(cell: CellScore, white_box: bool) -> Iterator[dict[str, Any]]:
    """The facts about a cell at each mark of the budget. A reference without a budget has only the last mark."""
    record = cell.record
    free = white_box and not record.rows_total
    for mark in (1.0,) if free else MARKS:
        said = cell.predicted if mark == 1.0 else cell.incumbents.get(mark)
        right = None if said is None else cell.right(said)
        rows, score = cell.rows.get(mark), cell.anytime.get(mark)
        yield {
            "task": cell.task,
            "split": cell.split,
            "mark": mark,
            "calls": round(rows / record.train_rows, 4) if rows is not None and record.train_rows else None,
            "score": None if score is None else round(score, 6),
            "accuracy": None if right is None else round(right, 6),
            "status": cell.status,
            "seconds": round(record.tuning_s, 2),
            "tokens": record.tokens,
            "metric": cell.metric or record.metric,
            "cell_calls": round(record.calls_spent, 4) if record.train_rows and not white_box else None,
            "budget_calls": None if free else record.calls_total,
            "forwards": record.forwarded,
        }


def _sentence(said: str) -> str:
    return f"{_in_markdown(said)}.\n\n" if said else ""


def _in_markdown(text: str) -> str:
    """Text for Markdown: on one line, with special characters escaped."""
    text = " ".join(text.split())
    if text in {"---", "---:"}:
        return text
    for mark in "\\|*_`<":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("](", "\\](").replace("][", "\\][")


_WORDS = {
    *("submission", "task", "device", "deployment_efficient", "as_a_service"),
    *("run", "started", "track", "entry", "replaced", "tasks", "access", "model", "data", "submission_sha256"),
    *("status", "why", "sha256", "title", "metric", "template", "classes", "words", "packages", "first", "second"),
    *("ruling", "kind", "reason"),
}
"""Columns that are aligned left."""
_PREAMBLE = "% needs \\usepackage{booktabs} and \\usepackage{graphicx}"
_FITTED = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
"""Makes a table that is wider than the text as wide as the text."""
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
    | {mark: f"\\{mark}" for mark in "&%$#_{}"}
)


def _latex(title: str, said: str, table: pd.DataFrame) -> str:
    """A table environment with the lines of booktabs, no wider than the text."""
    escaped = table.map(_in_latex).rename(columns=_in_latex)
    whole = escaped.to_latex(
        index=False,
        escape=False,
        caption=_in_latex(f"{title}. {said}." if said else f"{title}."),
        column_format="".join("l" if name in _WORDS else "r" for name in table.columns),
        position="tbp",
    )
    return whole.replace("\\begin{tabular}", f"{_FITTED}\\begin{{tabular}}").replace(
        "\\end{tabular}", "\\end{tabular}}"
    )


def _in_latex(text: str) -> str:
    """Text for LaTeX: on one line, with special characters escaped."""
    line = " ".join(text.split()).translate(_LATEX)
    return line.replace("[", "{[}", 1) if line.startswith("[") else line  # after the end of a row it begins an option


def _page(title: str, parts: Sequence[tuple[str, str, pd.DataFrame]]) -> str:
    """A complete HTML page without styles. All text from other people is escaped."""
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
    body = (
        f"<h1>{html.escape(name)}</h1>\n"
        + (f"<p>{html.escape(said)}.</p>\n" if said else "")
        + table.to_html(index=False, border=0)
        for name, said, table in parts
    )
    return f"{head}{chr(10).join(body)}\n</html>\n"
