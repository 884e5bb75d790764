"""CSV, TSV and JSONL with named columns: what is written is read back, and what is wrong is told with file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.tracks.files import FORMATS, column_names, read_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def read(path: Path, *columns: str) -> tuple[list[tuple[int, tuple[str, ...], str]], list[str]]:
    rows, problems = read_table(path, columns or ("text",), "label")
    return [(row.line, row.texts, row.label) for row in rows], [str(each) for each in problems]


@pytest.mark.parametrize("form", FORMATS)
@given(rows=st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["a", "b c", "1"])), max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, form: str, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path / f"x.{form}"
    write_table(path, ("one", "two"), "label", [((a, b), label) for a, b, label in rows])
    found, problems = read(path, "one", "two")
    assert problems == []
    assert [(*texts, label) for _, texts, label in found] == rows


def test_columns_are_found_by_name_and_others_are_notes(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes('\ufeffid,label,text\r\n1,good,"a ""fine"", long\nfilm"\r\n\r\n2,bad,dull\r\n'.encode())
    assert column_names(path) == ["id", "label", "text"]
    assert read(path) == ([(2, ('a "fine", long\nfilm',), "good"), (5, ("dull",), "bad")], [])


def test_labels_of_jsonl_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "fine", "label": 1, "more": null}\n\n{"label": 0, "text": "dull"}\n', encoding="utf-8")
    assert column_names(path) == ["text", "label", "more"]
    assert read(path) == ([(1, ("fine",), "1"), (3, ("dull",), "0")], [])


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        ("x.csv", "text,lable\nfine,1\n", 1, "0 columns are named 'label'; one is needed. There are: text, lable"),
        ("x.csv", "text,label,label\nfine,1,1\n", 1, "2 columns are named 'label'"),
        ("x.csv", "", 1, "0 columns are named 'text'; one is needed. There are: none"),
        ("x.csv", "text,label\nfine,1\nfine, too,1\n", 3, "3 fields, and the header has 2; put a field"),
        ("x.csv", 'text,label\n"a\nb",1\nlonely\n', 4, "1 fields, and the header has 2"),
        ("x.csv", "text,label\nfine,1\n ,0\n", 3, "text is empty; a text is needed"),
        ("x.csv", 'text,label\n"never closed,1\n', 2, "cannot be read as CSV"),
        ("x.tsv", "text\tlabel\nfine,1\n", 2, "1 fields, and the header has 2"),
        ("x.jsonl", '{"text": "fine", "label": 1}\nfine\n', 2, "not JSON"),
        ("x.jsonl", "[1]\n", 1, "not a JSON object; one with 'text', 'label' is needed"),
        ("x.jsonl", '{"text": "fine"}\n', 1, "'label' is not there; a string is needed"),
        ("x.jsonl", '{"text": ["fine"], "label": 1}\n', 1, """'text' is ["fine"]; a string is needed"""),
        ("x.jsonl", '{"text": "fine", "label": true}\n', 1, "'label' is true; a string is needed"),
        ("x.jsonl", '{"text": "fine", "label": 0.5}\n', 1, "'label' is 0.5; a string is needed"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, name: str, content: str, line: int, says: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    _, problems = read(path)
    assert any(each.startswith(f"{path}:{line}: ") and says in each for each in problems), problems


def test_all_problems_are_found_and_the_good_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\nfine,1\nalone\n,0\ndull,0\n", encoding="utf-8")
    rows, problems = read(path)
    assert [row[0] for row in rows] == [2, 5]
    assert [each.split(": ")[0].rpartition(":")[2] for each in problems] == ["3", "4"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.txt", b"", "ends in .txt; .csv, .tsv or .jsonl is needed"),
        ("x.csv", b"text,label\n\xff,1\n", ":2: byte 0xff"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_an_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "another.csv")
