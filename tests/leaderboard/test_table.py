"""The ranking as CSV, records and a terminal table."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.errors import InputError
from leaderboard import table
from leaderboard.rank import CellScore, Entry, Ranking
from leaderboard.table import records, terminal_table, write_csv

FACTS = {
    "rows_spent": 64, "train_rows": 32, "tuning_s": 30.0, "level": 1, "tokens": 7, "bytes_up": 5, "bytes_down": 6,
    "lm_s": 0.25, "sandbox": "process",
}  # fmt: skip
MARKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def cell(task: str, split: int, score: float, status: str = "budget_exhausted") -> CellScore:
    return CellScore(task, split, status, score, dict.fromkeys(MARKS, score), FACTS)


def ranking(name: str = "nevergrad[optimizer=PSO]") -> Ranking:
    packages: dict[str, Any] = {"packages": {"torch": "2.6", "numpy": "2.0"}}
    whole = (cell("qqp", 1, 0.5), cell("sst2", 1, 0.9), cell("sst2", 2, 0.8, "crashed"))
    entries = (Entry(1, name, "run1", whole, 0, packages), Entry(None, "part", "run2", whole[1:2], 2, packages))
    return Ranking("tiny", ("qqp", "sst2"), entries, 0)


SNAPSHOT = (
    "rank,submission,access,qqp,qqp_std,qqp_splits,sst2,sst2_std,sst2_splits,average,average_at_1_16,average_at_1_8,"
    "average_at_1_4,average_at_1_2,calls,tokens,bytes_up,bytes_down,wall_s,lm_s,statuses,missing_cells,sandbox,versions,"
    "run\n"
    "1,nevergrad[optimizer=PSO],L1,0.5,0.0,1,0.85,0.0707,2,0.675,0.675,0.675,0.675,0.675,6.0,21,15,18,90.0,0.8,"
    "budget_exhausted:2 crashed:1,0,process,numpy=2.0 torch=2.6,run1\n"
    ",part,L1,,,0,0.9,0.0,1,0.9,0.9,0.9,0.9,0.9,2.0,7,5,6,30.0,0.2,budget_exhausted:1,2,process,"
    "numpy=2.0 torch=2.6,run2\n"
)


def test_the_csv_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tiny.csv"
    write_csv(ranking(), path)
    assert path.read_text(encoding="utf-8") == SNAPSHOT
    assert [p.name for p in path.parent.iterdir()] == ["tiny.csv"]


def test_names_with_commas_and_quotes_stay_one_column(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    write_csv(ranking('ng[a=1,b="x"]'), path)
    assert next(csv.DictReader(io.StringIO(path.read_text())))["submission"] == 'ng[a=1,b="x"]'


def test_an_empty_ranking_is_a_header(tmp_path: Path) -> None:
    write_csv(Ranking("tiny", (), (), 3), tmp_path / "tiny.csv")
    assert (tmp_path / "tiny.csv").read_text() == "rank,submission\n"


def test_records_are_json_without_nan() -> None:
    assert not any(isinstance(v, float) and math.isnan(v) for record in records(ranking()) for v in record.values())
    assert json.loads(json.dumps(records(ranking()), allow_nan=False))


def test_half_a_csv_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.csv"
    write_csv(ranking("before"), path)
    before = path.read_text()

    def cut_short(self: Path, text: str, encoding: str) -> int:
        with self.open("w", encoding=encoding) as file:
            file.write(text[:20])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(InputError, match="no space left"):
        write_csv(ranking("after"), path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["tiny.csv"]  # noqa: PTH208


@pytest.mark.parametrize("place", ["/dev/null/tiny.csv", "."])
def test_a_place_that_cannot_be_written_is_an_error(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        write_csv(ranking(), Path(place))


def shown(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(terminal_table(ranking()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_table_shows_names_scores_and_failures() -> None:
    text = shown(100)
    assert "nevergrad[optimizer=PSO]" in text
    assert "85.0 ±7.1" in text
    assert "67.5" in text
    assert "(+2 to run)" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_access_levels_have_names() -> None:
    assert len(table.ACCESS) == 5
    assert table.ACCESS[4] == "white-box"


def test_a_reference_is_marked_white_box_and_has_no_anytime_scores(tmp_path: Path) -> None:
    tuned = Entry(None, "lora", "run3", (cell("sst2", 1, 0.9, "ok"),), 0, {"packages": {}}, white_box=True)
    found = Ranking("tiny", ("sst2",), (tuned,), 0)
    (row,) = records(found)
    assert (row["rank"], row["access"], row["average"]) == ("", "white-box", 0.9)
    assert {value for name, value in row.items() if name.startswith("average_at")} == {""}
    write_csv(found, tmp_path / "tiny.csv")
    assert next(csv.DictReader(io.StringIO((tmp_path / "tiny.csv").read_text())))["access"] == "white-box"
    console = Console(file=io.StringIO(), width=100, highlight=False)
    console.print(terminal_table(found))
    assert isinstance(console.file, io.StringIO)
    assert "white-box" in console.file.getvalue()
