"""The ranking in other formats, and its cells as tidy rows."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_table import FACTS, cell, ranked, ranking

from harness.errors import InputError
from harness.leaderboard.anytime import curve
from harness.leaderboard.entries import Entry
from harness.leaderboard.exports import exported, exported_rows, markdown, presented, tidy_cells
from harness.leaderboard.formats import Format, beside, format_of
from harness.leaderboard.rank import Ranking
from harness.leaderboard.table import as_csv, document, records
from harness.results.records import CellRecord
from harness.results.status import MARKS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "leaderboard.md"
HOSTILE = "[a](javascript:x) | <b>50%_of & $x$ \\input{/etc/passwd}\n#1 ~^"


@pytest.mark.parametrize(
    ("name", "form"),
    [("x.csv", "csv"), ("deep/x.JSON", "json"), ("x.md", "md"), ("x.tex", "latex"), ("x.y.html", "html")],
)
def test_the_ending_of_a_name_is_the_format(name: str, form: str) -> None:
    assert format_of(Path(name)) == form


@pytest.mark.parametrize("name", ["x", "x.txt", "x.csv.gz", "."])
def test_a_name_without_a_format_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"end it with one of \.csv, \.json, \.md, \.tex, \.html"):
        format_of(Path(name))


def test_other_tables_lie_beside_the_ranking() -> None:
    assert beside(Path("deep/x.csv"), "cost") == Path("deep/x-cost.csv")
    assert beside(Path("x-cost.csv"), "cost") == Path("x-cost.csv")


def test_people_see_shared_ranks_intervals_and_the_distance_to_the_leader() -> None:
    """As the records have them."""
    table = presented(ranked(), ranked().divisions[0])
    (_, second) = records(ranked())
    assert table["#"].tolist() == ["1", "2"]
    assert table["average"].tolist() == ["85.0 [67.8, 100.0]", "45.0 [19.8, 70.2]"]
    limits = [f"{100 * second[name]:.1f}" for name in ("behind", "behind_low", "behind_high")]
    assert table["behind"].tolist() == ["", f"{limits[0]} [{limits[1]}, {limits[2]}]"]
    first, poor = ranked().entries
    near = dataclasses.replace(poor, cells=(*first.cells[:7], cell("sst2", 4, 0.8)))
    tie = dataclasses.replace(ranked(), entries=(first, near))
    assert presented(tie, tie.divisions[0])["#"].tolist() == ["1=", "1="]


def test_markdown_is_read_back_as_the_table() -> None:
    text = exported(ranked(), Format.MARKDOWN)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith(
        "## Track tiny: pure / cpu / sandbox process\n\nnevergrad[optimizer=PSO] leads by 40.0 points"
    )
    found = [[each.strip() for each in line.strip("|").split("|")] for line in lines]
    table = presented(ranked(), ranked().divisions[0])
    assert [found[0], *found[2:]] == [list(table.columns), *table.to_numpy().tolist()]


def test_a_name_stays_in_its_cell_in_every_format() -> None:
    """Marks of Markdown, LaTeX and HTML, and a line break."""
    found = ranked(HOSTILE)
    columns = len(presented(found, found.divisions[0]).columns)
    rows = [line for line in exported(found, Format.MARKDOWN).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {columns + 1}
    assert "](javascript" not in rows[2].replace("\\](", "")
    assert "<b>" not in rows[2].replace("\\<", "")
    latex = exported(found, Format.LATEX)
    body = latex.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert len(body) == 2
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body} == {columns - 1}
    assert "\\input" not in latex
    assert "50\\%\\_of \\& \\$x\\$ \\textbackslash{}input\\{/etc/passwd\\} \\#1" in latex
    page = exported(found, Format.HTML)
    assert "<b>" not in page
    assert "&lt;b&gt;50%_of &amp; $x$" in page


def test_latex_has_the_lines_of_booktabs_and_closes_what_it_opens() -> None:
    text = exported(ranked(), Format.LATEX)
    assert [text.count(f"\\{name}rule") for name in ("top", "mid", "bottom")] == [1, 1, 1]
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1] == ["table", "tabular"]
    depth = 0
    for mark in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert exported_rows("t", [{"submission": "[x]", "n": 1}], Format.LATEX).count("{[}x] & 1") == 1


def test_html_is_one_page_with_a_table_for_each_division() -> None:
    apart = dataclasses.replace(ranked().entries[1], name="apart", device="NVIDIA H200")
    text = exported(dataclasses.replace(ranked(), elsewhere=(apart,)), Format.HTML)
    opened: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            opened.append(tag)

    Reader().feed(text)
    assert (opened.count("table"), opened.count("h1"), opened.count("html")) == (2, 2, 1)
    assert opened.count("tr") == 2 + 2 + 1  # two heads, two entries here and one elsewhere


def test_csv_and_json_are_those_that_are_written() -> None:
    assert exported(ranking(), Format.CSV) == as_csv(document(ranking())["entries"])
    assert '"version": 1' in exported(ranking(), Format.JSON)
    assert '"rank": null' in exported(ranking(), Format.JSON)


@pytest.mark.parametrize("form", list(Format))
def test_an_empty_ranking_is_written_in_every_format(form: Format) -> None:
    assert exported(Ranking("tiny", (), (), 3), form).endswith("\n")


@pytest.mark.parametrize("form", list(Format))
def test_costs_are_written_in_every_format(form: Format) -> None:
    text = exported_rows("Cost", [{"submission": "a", "task": "qqp", "score": 0.5, "user_mb": None}], form)
    assert "a" in text
    assert "None" not in text
    assert "nan" not in text


def test_markdown_shows_what_a_table_of_markdown_would_take_for_its_own() -> None:
    assert (
        markdown(pd.DataFrame({"submission": ["a|b"], "n": ["1"]}))
        == "| submission | n |\n| --- | ---: |\n| a\\|b | 1 |\n"
    )


def test_every_column_of_the_cells_is_described() -> None:
    """In their order."""
    section = DOCS.read_text(encoding="utf-8").partition("\n## Cells\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == list(tidy_cells(ranked())[0])


def test_averages_and_curves_can_be_recomputed_from_the_cells() -> None:
    """From the CSV alone: as the ranking has them."""
    cells = pd.read_csv(io.StringIO(as_csv(tidy_cells(ranked()))))
    final = cells[cells.mark == 1.0]
    averages = final.groupby(["entry", "task"]).score.mean().groupby("entry").mean()
    assert averages.round(4).to_dict() == {row["submission"]: row["average"] for row in records(ranked())}
    assert final.groupby("entry").cell_calls.sum().to_dict() == {
        row["submission"]: row["calls"] for row in records(ranked())
    }
    deviations = final.groupby(["entry", "task"]).score.std().round(4)
    assert deviations["worse", "qqp"] == records(ranked())[1]["qqp_std"]
    (entry, _) = ranked().entries
    own = cells[(cells.entry == entry.name) & (cells.task == "qqp") & (cells.split == 1)]
    assert tuple(own.drop_duplicates("calls").calls) == curve(entry.cells[0]).calls
    assert tuple(own.mark) == MARKS
    assert (own.accuracy == own.score).all()


def test_each_repeat_of_a_cell_has_its_rows() -> None:
    """And the score of the cell is their mean."""
    both = (cell("qqp", 1, 0.5), cell("qqp", 1, 0.7))
    mean = type(both[0]).mean(both)
    found = Ranking("tiny", ("qqp",), (Entry(1, "a", "run1", (mean,), 0, {"packages": {}}),), 0, identity={"seed": 3})
    rows = [row for row in tidy_cells(found) if row["mark"] == 1.0]
    assert [(row["repeat"], row["score"], row["seed"]) for row in rows] == [(0, 0.5, 3), (1, 0.7, 3)]
    assert np.mean([row["score"] for row in rows]) == pytest.approx(found.entries[0].average)


def test_where_no_answer_stood_there_are_no_calls() -> None:
    """The bare template's score stands there, if it is known."""
    late = cell("qqp", 1, 0.5)
    anytime = late.anytime | {1 / 256: 0.4}
    rows = {mark: each for mark, each in late.rows.items() if mark > 1 / 256}
    kept = {mark: each for mark, each in late.incumbents.items() if mark > 1 / 256}
    late = dataclasses.replace(late, anytime=anytime, rows=rows, incumbents=kept)
    found = Ranking("tiny", ("qqp",), (Entry(1, "a", "run1", (late,), 0, {"packages": {}}),), 0)
    first, second, *_ = tidy_cells(found)
    assert (first["calls"], first["score"], first["accuracy"]) == (None, 0.4, None)
    assert (second["calls"], second["score"], second["accuracy"]) == (1.0, 0.5, 0.5)


def test_a_reference_has_one_row_a_cell_and_no_calls() -> None:
    tuned = Entry(None, "lora", "run3", (cell("sst2", 1, 0.9, "ok"),), 0, {"packages": {}}, white_box=True)
    (row,) = tidy_cells(Ranking("tiny", ("sst2",), (tuned,), 0))
    assert (row["mark"], row["score"], row["cell_calls"], row["budget_calls"]) == (1.0, 0.9, None, None)
    table = presented(Ranking("tiny", ("sst2",), (tuned,), 0), tuned.division)
    assert table.iloc[0].tolist()[:3] == ["ref.", "lora", "90.0"]
    assert CellRecord(**FACTS).tuning_s == row["seconds"]
