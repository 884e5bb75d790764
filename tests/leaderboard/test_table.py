"""The ranking as CSV, records and a terminal table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from harness.errors import InputError
from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.headline import headline
from harness.leaderboard.rank import Ranking
from harness.leaderboard.table import SCHEMA, document, records, write_document, write_records
from harness.leaderboard.terminal import BAR, bars, terminal_table
from harness.results.records import CellRecord
from harness.results.status import FIRST_MARKS, MARKS
from harness.tracks.prices import Prices

FACTS = {
    "rows_spent": 64, "train_rows": 32, "tuning_s": 30.0, "level": 1, "tokens": 7, "bytes_up": 5, "bytes_down": 6,
    "lm_s": 0.25, "sandbox": "process", "calls_total": 100,
}  # fmt: skip
LABELS = np.array([0, 1] * 5)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "leaderboard.md"


def cell(task: str, split: int, score: float, status: str = "budget_exhausted") -> CellScore:
    """A cell with this share of ten test items right, from the first answer on, which came after 32 rows."""
    predicted = np.where(np.arange(10) < round(score * 10), LABELS, 1 - LABELS)
    scores: dict[float, float | None] = dict.fromkeys(MARKS, score)
    rows, said = dict.fromkeys(MARKS, 32), dict.fromkeys(MARKS, predicted)
    record = CellRecord(**FACTS)
    return CellScore(task, split, status, score, scores, record, rows, predicted, LABELS, said)


def ranked(name: str = "nevergrad[optimizer=PSO]", prices: Prices | None = None) -> Ranking:
    """Two complete entries on four splits of two tasks, which carry ranks, with a bare template that is at 0.4."""
    packages: dict[str, Any] = {"packages": {"torch": "2.6", "numpy": "2.0"}}
    first, second = (
        tuple(cell(task, split, score) for task in ("qqp", "sst2") for split, score in enumerate(scores, start=1))
        for scores in ((0.8, 0.9, 0.8, 0.9), (0.5, 0.4, 0.5, 0.4))
    )
    entries = (Entry(1, name, "run1", first, 0, packages), Entry(2, "worse", "run3", second, 0, packages))
    return Ranking("tiny", ("qqp", "sst2"), entries, 0, bare={"qqp": 0.4, "sst2": 0.4}, prices=prices)


def ranking(name: str = "nevergrad[optimizer=PSO]") -> Ranking:
    """Two entries that are complete and one that is not."""
    packages: dict[str, Any] = {"packages": {"torch": "2.6", "numpy": "2.0"}}
    whole = (cell("qqp", 1, 0.5), cell("sst2", 1, 0.9), cell("sst2", 2, 0.8, "crashed"))
    worse = (cell("qqp", 1, 0.3), cell("sst2", 1, 0.4), cell("sst2", 2, 0.4))
    entries = (
        Entry(1, name, "run1", whole, 0, packages),
        Entry(2, "worse", "run3", worse, 0, packages),
        Entry(None, "part", "run2", whole[1:2], 2, packages),
    )
    return Ranking("tiny", ("qqp", "sst2"), entries, 0)


SNAPSHOT = (
    "rank,submission,access,division,rank_low,rank_high,qqp,qqp_std,qqp_splits,sst2,sst2_std,sst2_splits,average,"
    "average_low,average_high,behind,behind_low,behind_high,behind_p,efficiency_rank,efficiency_rank_low,"
    "efficiency_rank_high,efficiency,efficiency_low,efficiency_high,anytime_area,average_at_1_256,"
    "average_at_1_64,average_at_1_16,average_at_1_8,average_at_1_4,average_at_1_2,calls,tokens,bytes_up,"
    "bytes_down,wall_s,lm_s,money,pareto,statuses,missing_cells,runs,test_texts,device,sandbox,versions,run\n"
    "1,nevergrad[optimizer=PSO],L1,pure / cpu / sandbox process,1,1,0.85,0.0577,4,0.85,0.0577,4,0.85,0.6782,"
    "1.0,,,,,1,1,1,0.85,0.6782,1.0,,0.85,0.85,0.85,0.85,0.85,0.85,16.0,56,40,48,240.0,2.0,,"
    "calls tokens bytes seconds,budget_exhausted:8,0,1,,cpu,process,numpy=2.0 torch=2.6,run1\n"
    "2,worse,L1,pure / cpu / sandbox process,2,2,0.45,0.0577,4,0.45,0.0577,4,0.45,0.1978,0.7022,0.4,0.1661,"
    "0.6339,0.0029,2,2,2,0.45,0.1978,0.7022,,0.45,0.45,0.45,0.45,0.45,0.45,16.0,56,40,48,240.0,2.0,,,"
    "budget_exhausted:8,0,1,,cpu,process,numpy=2.0 torch=2.6,run3\n"
    ",part,L1,pure / cpu / sandbox process,,,,,0,0.9,0.0,1,0.9,,,,,,,,,,,,,,0.9,0.9,0.9,0.9,0.9,0.9,2.0,7,5,6,"
    "30.0,0.2,,,budget_exhausted:1,2,1,,cpu,process,numpy=2.0 torch=2.6,run2\n"
)


def snapshot() -> Ranking:
    """Two that are ranked and one that lacks cells."""
    return dataclasses.replace(ranked(), entries=(*ranked().entries, ranking().entries[2]))


def test_the_csv_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tiny.csv"
    write_records(records(snapshot()), path)
    assert path.read_text(encoding="utf-8") == SNAPSHOT
    assert [p.name for p in path.parent.iterdir()] == ["tiny.csv"]


def test_every_column_is_described() -> None:
    """In docs/leaderboard.md; those of a task under a stand-in for its name."""
    section = DOCS.read_text(encoding="utf-8").partition("\n## CSV\n")[2].partition("\n## ")[0]
    described = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    columns = {name.replace("qqp", "TASK").replace("sst2", "TASK") for name in records(ranking())[0]}
    assert columns == described


def test_the_json_has_a_list_per_division_and_ceiling(tmp_path: Path) -> None:
    """With shared ranks and resolution; entries are the records of the CSV."""
    path = tmp_path / "tiny.json"
    write_document(document(ranked()), tmp_path / "tiny.csv", path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(each["division"], each["up_to"], each["ranks"]) for each in found["lists"]] == [
        ("pure / cpu / sandbox process", "L1", {"nevergrad[optimizer=PSO]": 1, "worse": 2})
    ]
    assert found["efficiency"] == [
        {"division": "pure / cpu / sandbox process", "ranks": {"nevergrad[optimizer=PSO]": 1, "worse": 2}}
    ]
    power = found["lists"][0]["power"]
    assert (power["entries"], power["ranked"]) == (2, True)
    assert power["lead_seen"]["0.5"] == pytest.approx(found["lists"][0]["resolution"], rel=0.2)
    assert found["entries"] == records(ranked()) == document(ranked())["entries"]


def test_marks_that_an_old_run_did_not_keep_are_empty() -> None:
    """Of one cell is enough: an average over the others would be one of something else."""
    old = dataclasses.replace(cell("qqp", 1, 0.5), anytime=dict.fromkeys(FIRST_MARKS, 0.5))
    entry = Entry(1, "old", "run1", (old, cell("sst2", 1, 0.9)), 0, {"packages": {}})
    (record,) = records(Ranking("tiny", ("qqp", "sst2"), (entry,), 0))
    assert [record[f"average_at_1_{n}"] for n in (256, 64, 16)] == [None, None, 0.7]


@pytest.mark.parametrize("of", ["ranked", "unranked", "empty", "elsewhere"])
def test_the_json_is_valid_by_the_schema_that_ships(of: str, tmp_path: Path) -> None:
    apart = dataclasses.replace(ranked().entries[1], name="apart", device="NVIDIA H200")
    made = {
        "ranked": ranked(prices=Prices("EUR", per_call=0.5)),
        "unranked": ranking(),
        "empty": Ranking("tiny", (), (), 3),
        "elsewhere": dataclasses.replace(ranked(), elsewhere=(apart,), identity={"seed": 0}),
    }[of]
    write_document(document(made), tmp_path / "x.csv", tmp_path / "x.json")
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("field", "value"), [("rank", ""), ("average", "0.85"), ("average", 85.0), ("access", "L9"), ("run", None)]
)
def test_the_schema_refuses_what_no_ranking_says(field: str, value: object) -> None:
    found = document(ranked())
    found["entries"][0][field] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_the_schema_names_every_column() -> None:
    """In the order of the CSV; those of tasks are left open, since tracks have different ones."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    columns = [name for name in records(ranked())[0] if not name.startswith(("qqp", "sst2"))]
    assert schema["$defs"]["entry"]["required"] == list(schema["$defs"]["entry"]["properties"]) == columns
    assert list(document(ranked())) == schema["required"]


def test_names_with_commas_and_quotes_stay_one_column(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    write_records(records(ranking('ng[a=1,b="x"]')), path)
    assert next(csv.DictReader(io.StringIO(path.read_text())))["submission"] == 'ng[a=1,b="x"]'


def test_an_empty_ranking_is_a_header(tmp_path: Path) -> None:
    write_records(records(Ranking("tiny", (), (), 3)), tmp_path / "tiny.csv")
    assert (tmp_path / "tiny.csv").read_text() == "rank,submission\n"


def test_records_are_json_without_nan() -> None:
    assert not any(isinstance(v, float) and math.isnan(v) for record in records(ranking()) for v in record.values())
    assert json.loads(json.dumps(records(ranking()), allow_nan=False))


def test_half_a_csv_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.csv"
    write_records(records(ranking("before")), path)
    before = path.read_text()

    def cut_short(self: Path, text: str, encoding: str) -> int:
        with self.open("w", encoding=encoding) as file:
            file.write(text[:20])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(InputError, match="no space left"):
        write_records(records(ranking("after")), path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["tiny.csv"]  # noqa: PTH208


@pytest.mark.parametrize("place", ["/dev/null/tiny.csv", "."])
def test_a_place_that_cannot_be_written_is_an_error(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        write_records(records(ranking()), Path(place))


def shown(width: int, found: Ranking | None = None) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(terminal_table(found or ranking()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str) -> list[str]:
    """The lines of the first table, and what follows."""
    lines = text.splitlines()
    return lines[1 + next(n for n, line in enumerate(lines) if line.lstrip().startswith("#")) :]


def test_the_terminal_table_shows_names_scores_and_failures() -> None:
    text = shown(100)
    assert "nevergrad[optimizer=PSO]" in text
    assert "85.0" in text
    assert "67.5 [" in text
    assert "+2 to run" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_who_cannot_be_told_apart_shares_a_rank_and_it_is_seen() -> None:
    """Two entries that differ in one answer of ten: both are ``1=``, and the lines below say what that means."""
    first, second = ranked().entries
    near = dataclasses.replace(second, cells=(*first.cells[:7], cell("sst2", 4, 0.8)))
    text = shown(100, dataclasses.replace(ranked(), entries=(first, near)))
    assert [line.split()[0] for line in rows(text)[:2]] == ["1=", "1="]
    assert "= cannot be told apart from anybody of the same rank" in text
    assert "what this can tell: with 2 entries, a lead of" in " ".join(text.split())
    assert rows(shown(100, ranked()))[1].split()[0] == "2"


def test_a_design_without_ranks_says_so() -> None:
    """Three cells of two tasks: intervals alone, no rank in the table, in the CSV and in the JSON."""
    text = " ".join(shown(100).split())
    assert "no ranks, intervals alone: 2 x 1 (tasks x splits)" in text
    assert rows(shown(100))[0].split()[0] == "-"
    assert [(row["rank"], row["rank_low"], row["efficiency_rank"]) for row in records(ranking())] == [
        (None, None, None)
    ] * 3
    assert document(ranking())["lists"][0]["ranks"] == {"nevergrad[optimizer=PSO]": None, "worse": None}


def test_the_efficiency_list_stands_below_with_what_it_cost() -> None:
    """Every answer came after one call: the areas are the averages; money only with a price list."""
    text = shown(100, ranked())
    start = text.splitlines().index(next(line for line in text.splitlines() if "efficiency" in line))
    assert [line.split()[:2] for line in text.splitlines()[start + 2 : start + 4]] == [
        ["1", "nevergrad[optimizer=PSO]"], ["2", "worse"],
    ]  # fmt: skip
    (first, _), priced = records(ranked()), ranked(prices=Prices("EUR", per_call=0.5, per_hour=60))
    assert (first["efficiency"], first["efficiency_rank"], first["money"]) == (0.85, 1, None)
    assert records(priced)[0]["money"] == 16 * 0.5 + 4.0
    assert "EUR" in shown(100, priced)
    assert "EUR" not in text


def test_without_the_bare_template_there_is_no_efficiency_list() -> None:
    """And what to run is said."""
    text = " ".join(shown(100, dataclasses.replace(ranked(), bare=None)).split())
    assert "no efficiency list: the bare template's score is not known for these runs; run submissions/manual" in text


def test_the_first_words_say_who_leads_and_who_ties_for_less() -> None:
    """As `harness.leaderboard.headline` has them, above the table."""
    found = ranked()
    assert shown(200, found).splitlines()[0].strip() == headline(found, found.divisions[0])


def test_each_complete_entry_has_a_bar_as_long_as_its_score() -> None:
    """Of fifty characters for 100 points; entries that lack cells have none."""
    console = Console(file=io.StringIO(), width=100, highlight=False)
    console.print(bars(snapshot()))
    assert isinstance(console.file, io.StringIO)
    drawn = [line.split() for line in console.file.getvalue().splitlines()]
    assert [(name, points) for name, *_, points in drawn] == [("nevergrad[optimizer=PSO]", "85.0"), ("worse", "45.0")]
    lengths = [len(line[1]) for line in drawn]
    assert lengths == [pytest.approx(0.85 * BAR, abs=1), pytest.approx(0.45 * BAR, abs=1)]


def test_the_first_under_a_lower_access_level_is_named() -> None:
    """The best asks for hidden states; who is first without is said."""
    first, second = ranked().entries
    deep = tuple(dataclasses.replace(each, record=CellRecord(**FACTS | {"level": 3})) for each in first.cells)
    text = shown(100, dataclasses.replace(ranked(), entries=(dataclasses.replace(first, cells=deep), second)))
    assert "first up to L1 input prompts: worse" in text


def test_other_devices_are_listed_last_with_their_names(tmp_path: Path) -> None:
    """In the terminal and in the CSV, in a division of their own and with ranks in that."""
    apart = dataclasses.replace(ranked().entries[1], name="apart", device="NVIDIA H200")
    part = ranking().entries[2]
    found = dataclasses.replace(ranked(), entries=(*ranked().entries, part), elsewhere=(apart,))
    assert [(row["rank"], row["submission"], row["division"]) for row in records(found)] == [
        (1, "nevergrad[optimizer=PSO]", "pure / cpu / sandbox process"),
        (2, "worse", "pure / cpu / sandbox process"),
        (None, "part", "pure / cpu / sandbox process"),
        (1, "apart", "pure / NVIDIA H200 / sandbox process"),
    ]
    assert "track tiny: pure / NVIDIA H200 / sandbox process" in shown(100, found)
    assert "apart on NVIDIA H200" in shown(100, found)
    assert "part on cpu" not in shown(100, found)


def test_a_reference_is_marked_white_box_and_has_no_anytime_scores(tmp_path: Path) -> None:
    tuned = Entry(None, "lora", "run3", (cell("sst2", 1, 0.9, "ok"),), 0, {"packages": {}}, white_box=True)
    found = Ranking("tiny", ("sst2",), (tuned,), 0)
    (row,) = records(found)
    assert (row["rank"], row["access"], row["average"]) == (None, "white-box", 0.9)
    assert {value for name, value in row.items() if name.startswith("average_at")} == {None}
    write_records(records(found), tmp_path / "tiny.csv")
    assert next(csv.DictReader(io.StringIO((tmp_path / "tiny.csv").read_text())))["access"] == "white-box"
    console = Console(file=io.StringIO(), width=100, highlight=False)
    console.print(terminal_table(found))
    assert isinstance(console.file, io.StringIO)
    assert "white-box" in console.file.getvalue()
