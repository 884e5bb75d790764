"""The tables of scores in the READMEs are those of the results pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools import score_tables
from tools.score_tables import TASKS, of_submission, overview, read, replaced, rows, wanted

if TYPE_CHECKING:
    from pathlib import Path

NOT_YET = {"bdpl", "grips", "instruction_search", "private_selection", "random_template_search"}
"""Submissions that the published results do not have yet; their pages say so."""
SCORES = "dbpedia | qnli | qqp | snli | sst2"
MINI = f"""# Measured

## Ranking

| rank | submission | access | {SCORES} | average | calls | min |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | `solver[dim=5]` | L1 | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | 3.0 [2.0, 4.0] | 10 | 0.1 |
| 2 | `solver` | L1 | 1.1 | 2.1 | 3.1 | 4.1 | 5.1 | 3.1 [2.1, 4.1] | 11 | 0.1 |
| 3 | `other[optimizer=PSO]` | L1 | 1.2 | 2.2 | 3.2 | 4.2 | 5.2 | 3.2 [2.2, 4.2] | 12 | 0.1 |

Entries share ranks.

## White-box references

| reference | {SCORES} | average | min | failed |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| `lora` | 6.0 | 7.0 | 8.0 | 9.0 | 10.0 | 8.0 [7.0, 9.0] | 1.0 | 0 |

## Differences

| difference | {SCORES} | average |
| --- | --- | --- | --- | --- | --- | --- |
| `solver` - `other` | 0 | 0 | 0 | 0 | 0 | 0 |
"""
KIT = MINI[: MINI.index("| 3 |")] + "\n## Differences\n"
RESULTS = {"mini": rows(MINI), "kit": rows(KIT)}


def test_the_readmes_of_the_project_say_what_the_pages_say() -> None:
    stale = [path for path, text in wanted(read()).items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run: python tools/score_tables.py"


def test_every_submission_has_a_measured_score_on_the_default_track() -> None:
    measured = set(score_tables.by_folder(read()["mini"]))
    assert not measured & NOT_YET, "measured: take them out of NOT_YET"
    there = {path.parent.name for path in score_tables.ROOT.glob("submissions/*/submission.py")}
    assert measured | NOT_YET == there


def test_rows_are_read_from_the_ranking_and_the_references_alone() -> None:
    assert list(RESULTS["mini"]) == ["solver[dim=5]", "solver", "other[optimizer=PSO]", "lora"]
    assert RESULTS["mini"]["lora"]["sst2"] == "10.0"


def test_a_submission_has_a_row_for_each_track_and_option_first_as_it_is() -> None:
    _, _, _, _, *lines = of_submission("solver", RESULTS).splitlines()
    assert lines == [
        "| `mini` | 5.1 | 1.1 | 4.1 | 3.1 | 2.1 | 3.1 [2.1, 4.1] |",
        "| `mini`, `dim=5` | 5.0 | 1.0 | 4.0 | 3.0 | 2.0 | 3.0 [2.0, 4.0] |",
        "| `kit` | 5.1 | 1.1 | 4.1 | 3.1 | 2.1 | 3.1 [2.1, 4.1] |",
        "| `kit`, `dim=5` | 5.0 | 1.0 | 4.0 | 3.0 | 2.0 | 3.0 [2.0, 4.0] |",
    ]


def test_published_scores_come_first_under_the_tasks_that_have_them() -> None:
    said, _, header, _, first, *_ = of_submission("lora", RESULTS).splitlines()
    assert said == "Tasks: macro-F1 on dbpedia and snli, accuracy elsewhere."
    cells = dict(zip(["", *TASKS], [cell.strip() for cell in first.split("|")[1:]], strict=False))
    assert header == f"|  | {' | '.join(TASKS)} | average |"
    assert cells == {
        "": "published, RoBERTa-large",
        "sst2": "88.49 ± 2.90",
        "dbpedia": "97.86 ± 0.17",
        "snli": "61.03 ± 8.55",
        "qqp": "-",
        "qnli": "-",
    }


def test_measured_scores_beside_published_ones_are_accuracies_too_where_they_are_known() -> None:
    """From the page's section, whatever the tasks are ranked by."""
    page = """## Ranking

| submission | sst2 | dbpedia | snli | qqp | qnli | average |
| --- | --- | --- | --- | --- | --- | --- |
| `lora` | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | 3.0 |

## Accuracy

Text.

| submission | dbpedia | snli |
| --- | --- | --- |
| `lora` | 22.0 | 33.0 |

## Findings
"""
    said, *lines = of_submission("lora", {"mini": score_tables.rows(page)}).splitlines()
    assert said == "Tasks: accuracy, as in the papers."
    assert lines[-1] == "| `mini` | 1.0 | 22.0 | 33.0 | 4.0 | 5.0 | 3.0 |"


def test_the_overview_takes_one_entry_of_each_folder_and_marks_what_is_not_ranked() -> None:
    _, _, *lines = overview(RESULTS).splitlines()
    assert lines == [
        "| `solver` | 3.1 [2.1, 4.1] | 11 | 3.1 [2.1, 4.1] | 11 |",
        "| `other[optimizer=PSO]` | 3.2 [2.2, 4.2] | 12 | - | - |",
        "| `lora`, white-box, not ranked | 8.0 [7.0, 9.0] | - | - | - |",
    ]


def test_the_overview_never_shows_other_options_of_a_submission_under_its_name() -> None:
    """A track on which a submission was measured with other options alone has no number of it."""
    kit = {name: row for name, row in RESULTS["kit"].items() if name != "solver"}
    line = overview({"mini": RESULTS["mini"], "kit": kit}).splitlines()[2]
    assert line == "| `solver` | 3.1 [2.1, 4.1] | 11 | - | - |"


@pytest.mark.parametrize("text", ["no markers", "<!-- scores -->\n<!-- end scores -->\n" * 2])
def test_a_readme_without_one_pair_of_markers_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="tables between"):
        replaced(path, "table")


def test_what_stands_around_the_markers_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- scores -->\nold\n<!-- end scores -->\nafter\n", encoding="utf-8")
    assert replaced(path, "new\n") == "before\n<!-- scores -->\nnew\n<!-- end scores -->\nafter\n"


def test_a_page_that_is_not_there_or_empty_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results-mini.md").write_text(MINI, encoding="utf-8")
    with pytest.raises(ValueError, match=r"results-kit\.md cannot be read: .*write it with: make results"):
        read(tmp_path)
    (tmp_path / "results-kit.md").write_text("# Measured\n", encoding="utf-8")
    monkeypatch.setattr(score_tables, "read", lambda: read(tmp_path))
    assert score_tables.main() == 2
    assert "results-kit.md has no entry below ## Ranking" in capsys.readouterr().err


def test_a_task_that_a_page_does_not_have_is_a_dash() -> None:
    """A measurement of some tasks has a page with their columns alone."""
    part = rows(
        """## Ranking

| rank | submission | access | dbpedia | average | calls | min |
| --- | --- | --- | --- | --- | --- | --- |
| 1 | `solver` | L1 | 1.1 | 1.1 [1.0, 1.2] | 11 | 0.1 |

## Differences
"""
    )
    (line,) = [line for line in of_submission("solver", {"mini": part}).splitlines() if line.startswith("| `mini` |")]
    by_task = dict(zip(TASKS, [cell.strip() for cell in line.strip("|").split("|")][1:], strict=False))
    assert by_task["sst2"] == "-"
    assert by_task["dbpedia"] == "1.1"
