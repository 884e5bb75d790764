"""The command line: every command, its exit codes, its JSON, and errors without tracebacks."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import transformers
from outer_models import write_submission

from harness import cli
from harness.results.store import Store
from harness.service.accounts import Accounts
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import ROUNDING

ROOT = Path(cli.__file__).resolve().parents[2]
KIT = ROOT.parent / "shared" / "data" / "competition"
COMMANDS = (
    "evaluate",
    "bench",
    "plan",
    "merge",
    "leaderboard",
    "compare",
    "watch",
    "runs",
    "log",
    "report",
    "predict",
    "check",
    "new",
    "tracks",
    "tasks",
    "fetch",
    "score",
    "pretrain-prompt",
    "doctor",
)


class Done:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """Its standard output as JSON, strictly."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run a command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), dict(sys.modules)

    def run(*arguments: object, traceback: bool = False) -> Done:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert ("Traceback" in captured.err + captured.out) == traceback
        return Done(code, captured.out, captured.err)

    yield run
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if name in {"submission", "helper"}:
            del sys.modules[name]


@pytest.mark.parametrize("width", ["80", "100"])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_the_terminal(command: tuple[str, ...], width: str, harness: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERMINAL_WIDTH", width)
    done = harness(*command, "--help")
    assert done.code == 0
    assert all(len(line) <= int(width) for line in done.out.splitlines())
    for name in COMMANDS if not command else ():
        assert name in done.out


def test_the_version_is_that_of_the_package(harness: Any) -> None:
    done = harness("--version")
    assert (done.code, done.out) == (0, f"harness {version('gradient-free-harness')}\n")
    assert "Show the version" in harness("--help").out


def test_options_that_mean_less_in_a_command_are_explained_by_what_they_mean_there(harness: Any) -> None:
    assert harness("replay", "--help").out.count("As the run had it.") == 3
    shown = " ".join(harness("pretrain-prompt", "--help").out.replace("│", " ").split())
    assert "cpu or cuda; default the track's. " in shown


def test_examples_stand_on_lines_of_their_own(harness: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    lines = [line.strip() for line in harness("evaluate", "--help").out.splitlines()]
    assert "harness evaluate submissions/ajo" in lines
    assert "harness evaluate submissions/nevergrad --config optimizer=PSO" in lines
    lines = [line.strip() for line in harness("predict", "--help").out.splitlines()]
    assert 'harness predict --entry ajo "A warm and funny film."' in lines


def test_a_new_submission_can_be_checked_at_once(harness: Any) -> None:
    made = harness("new", "mysolver")
    assert made.code == 0
    assert "harness check submissions/mysolver" in made.out
    done = harness("check", "submissions/mysolver")
    assert done.code == 0
    assert "harness evaluate submissions/mysolver" in done.out
    report = harness("check", "submissions/mysolver", "--json", "-c", "dim=20").json
    assert report["calls"] == 200


def test_tracks_and_tasks_are_listed(harness: Any) -> None:
    assert {track["name"] for track in harness("tracks", "--json").json} == {
        "api",
        "kit",
        "mini",
        "mini-causal",
        "mini-long",
        "mini-text",
        "official",
        "paper",
        "text",
    }
    assert {task["name"] for task in harness("tasks", "--json").json} == {"dbpedia", "qnli", "qqp", "snli", "sst2"}
    found = {task["name"] for task in harness("tasks", "--track", "paper", "--json").json}
    assert found == {"agnews", "dbpedia", "mrpc", "rte", "snli", "sst2", "yelp"}
    shown = harness("tracks").out
    assert "mini: with " in shown
    assert "is seen in 9 of 10 cases" in shown
    assert "paper: no noise was measured on it yet" in shown
    tells = {track["name"]: track["tells"] for track in harness("tracks", "--json").json}
    assert tells["mini"]["lead_seen"]["0.9"] > tells["mini"]["lead_seen"]["0.1"] > 0
    assert tells["paper"] is None
    assert "sst2" in harness("tasks").out
    assert "[ Category : {mask} ]" in harness("tasks").out


def test_without_the_tokenizer_label_words_are_shown_as_written_with_a_note(
    harness: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    """The cache is empty here; `test_official.py` tests the other case. Other wordings print no such note."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: 1 / 0)
    shown = " ".join(harness("tasks", "--track", "official").out.split())
    assert "Athlete=Athlete" in shown
    assert "get it with harness fetch --track official" in shown
    assert all(task["words_as_written"] for task in harness("tasks", "--track", "official", "--json").json)
    assert "first token" not in harness("tasks").out
    assert not any(task["words_as_written"] for task in harness("tasks", "--json").json)


def test_doctor_looks_at_the_machine(harness: Any) -> None:
    found = {finding["name"]: finding for finding in harness("doctor", "--json").json}
    assert found["python"]["good"]
    assert found["isolation"]["fact"].startswith("tier ")
    assert found["isolation"]["good"] == found["isolation"]["fact"].startswith("tier A")
    assert "python" in harness("doctor").out


def test_a_run_without_isolation_says_so_and_has_no_rank(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    folder, where = write_submission(tmp_path, "tune = search"), ("--track", tiny_track, "--store", tmp_path / "r.db")
    done = harness("evaluate", folder, *where, "--sandbox", "0")
    assert done.code == 0
    assert "NO ISOLATION" in done.err
    assert "NO ISOLATION" not in done.out
    (entry,) = harness("leaderboard", *where, "--json").json["entries"]
    assert (entry["rank"], entry["division"]) == (None, "pure / cpu / sandbox 0")
    assert "1 entry ran without isolation" in harness("leaderboard", *where).out
    (entry,) = harness("leaderboard", *where, "--json", "--allow-unsandboxed").json["entries"]
    assert entry["rank"] == 1


def test_a_tier_that_does_not_exist_is_refused(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    done = harness("evaluate", write_submission(tmp_path, "tune = search"), "--track", tiny_track, "--sandbox", "Z")
    assert done.code == 2
    assert "A, B, B', 0" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate", "nowhere"], 2, "harness new"),
        (["evaluate", "submissions/a", "--track", "grand"], 2, "no track 'grand'"),
        (["evaluate", "submissions/a", "--track", "missing.toml"], 2, "missing.toml"),
        (["evaluate", "submissions/a", "--config", "dim"], 2, "NAME=VALUE"),
        (["evaluate", "submissions/a", "--task", "mnli"], 2, "no task 'mnli'"),
        (["evaluate", "submissions/a", "--split", "99"], 2, "split 99"),
        (["evaluate", "submissions/a", "--calls", "0"], 2, "--calls 0"),
        (["evaluate", "submissions/a", "--data", "nowhere"], 2, "--data nowhere"),
        (["evaluate", "submissions/a", "--seed", "-1"], 2, "--seed"),
        (["evaluate", "submissions/a", "--seed", "nan"], 2, "--seed"),
        (["evaluate", "submissions/a", "--store", "nosuch://x"], 1, "--store"),
        (["evaluate", "submissions/a", "--model", "./nowhere"], 1, "no such directory"),
        (["evaluate"], 2, "name a submission folder"),
        (["leaderboard"], 2, "no such results database"),
        (["leaderboard", "--out", "x.txt"], 2, "x.txt: the name says no format; end it with one of .csv, .json"),
        (["predict", "text"], 2, "--answer FILE"),
        (["predict", "text", "--entry", "bbt"], 2, "no such results database"),
        (["predict", "text", "--answer", "nowhere"], 2, "cannot be read"),
        (["predict", "one", "two", "--answer", "nowhere"], 2, "2 texts; sst2 takes 1"),
        (["predict", "text", "--task", "mnli", "--answer", "nowhere"], 2, "no task 'mnli'"),
        (["check", "nowhere"], 2, "harness new"),
        (["check", "submissions/a", "-c", "size=1"], 2, "no option 'size'"),
        (["new", "1st"], 2, "1st"),
        (["new", "a"], 2, "exists already"),
        (["fetch", "--source", "anli"], 2, "--source 'anli': choose one of mnli"),
        (["score", "nowhere.zip", "--track", "mini"], 2, "nowhere.zip"),
        (["score", "submissions/a/submission.py", "--track", "mini"], 2, "zip"),
        (["score", "submissions/a/submission.py", "--track", "mini"], 2, "make one of <Task>/<split>.csv"),
        (["evaluate", "submissions"], 2, "name one of the folders in it: submissions/a"),
        (["tasks", "--from", "nowhere"], 2, "--from nowhere: no such directory"),
        (["evaluate", "submissions/a", "--from", "nowhere"], 2, "--from nowhere: no such directory"),
        (["compare", "a", "a"], 2, "name two different entries"),
        (["fetch", "--track", "mini"], 1, "run: harness evaluate submissions/ajo --track mini"),
        (["fetch", "--track", "kit"], 1, "harness evaluate submissions/ajo --track kit --data DIR"),
        (["fly"], 2, "fly"),
    ],
)
def test_errors_are_one_message_and_a_code(harness: Any, arguments: list[str], code: int, message: str) -> None:
    harness("new", "a")
    done = harness(*arguments)
    assert done.code == code
    assert message in " ".join((done.err).split())
    assert done.out == ""


def test_a_submission_that_cannot_be_imported_is_shown_without_commands_to_the_terminal(
    harness: Any, tiny_track: Path, tmp_path: Path
) -> None:
    place = write_submission(tmp_path, "raise OSError('\\x1b[31mred [bold]alert[/bold]')")
    done = harness("evaluate", place, "--track", tiny_track, "--task", "qqp", traceback=True)
    assert done.code == 1
    assert "cannot be imported or configured" in done.err
    assert "[bold]alert[/bold]" in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("stepp=1", "no option 'stepp' (did you mean 'step'?); Config has step"),
        ("step=abc", "option step='abc': a number is expected"),
        ("step=-1", "step=-1.0; a positive one is needed"),
    ],
)
def test_an_option_that_does_not_fit_is_told_without_a_traceback(
    harness: Any, tiny_track: Path, tmp_path: Path, option: str, message: str
) -> None:
    place = write_submission(tmp_path, "tune = search")
    refusal = 'raise ValueError(f"step={self.step}; a positive one is needed")'
    strict = f"    step: float = 1.0\n    def __post_init__(self):\n        if self.step <= 0: {refusal}\n"
    source = place / "submission.py"
    source.write_text(source.read_text().replace("    step: float = 1.0\n", strict))
    done = harness("evaluate", place, "--track", tiny_track, "--task", "qqp", "--config", option)
    assert done.code == 2
    assert done.err.rstrip().endswith(f"{place}: {message}")


@pytest.fixture
def evaluated(harness: Any, tiny_track: Path, tmp_path: Path) -> Done:
    """A finished run in results/harness.db."""
    return harness("evaluate", write_submission(tmp_path, "tune = search"), "--track", tiny_track, "--json")


def test_an_evaluation_tells_its_cells_as_json_lines(evaluated: Done) -> None:
    assert evaluated.code == 0
    found = [json.loads(line) for line in evaluated.out.splitlines()]
    assert found[0].keys() == {"event", "sandbox", "elapsed_s"}
    assert found[0]["event"] == "isolated"
    assert found[1] | {"elapsed_s": 0} == {
        "event": "planned",
        "entry": "entry",
        "cells": 3,
        "finished": 0,
        "elapsed_s": 0,
    }
    cells = found[2:]
    assert [(cell["task"], cell["split"], cell["status"]) for cell in cells] == [
        ("sst2", 1, "budget_exhausted"), ("qqp", 1, "budget_exhausted"), ("sst2", 2, "budget_exhausted"),
    ]  # fmt: skip
    assert all(0 <= cell["score"] <= 1 and cell["stored"] for cell in cells)


def test_the_leaderboard_is_printed_and_written(evaluated: Done, harness: Any, tiny_track: Path) -> None:
    assert evaluated.code == 0
    shown = harness("leaderboard", "--track", tiny_track)
    assert shown.code == 0
    assert "entry" in shown.out
    assert "written: leaderboard/tiny.csv" in shown.out
    with Path("leaderboard/tiny.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["rank"], row["submission"], row["missing_cells"]) == ("1", "entry", "0")
    ((entry,),) = (harness("leaderboard", "--track", tiny_track, "--json", "--out", "x.csv").json["entries"],)
    assert entry["average"] == float(row["average"])
    assert Path("x.csv").is_file()


def test_a_ranking_is_printed_in_a_format_or_written_to_a_file_of_its_own(
    evaluated: Done, harness: Any, tiny_track: Path
) -> None:
    """The ending of --out is the format; --format alone prints it, and no file is made."""
    assert evaluated.code == 0
    where = ("leaderboard", "--track", tiny_track)
    before = set(Path.cwd().iterdir())
    printed = harness(*where, "--format", "md")
    assert "| # | submission | average | behind |" in printed.out
    assert "written" not in printed.out
    assert json.loads(harness(*where, "--format", "json").out)["version"] == 1
    assert set(Path.cwd().iterdir()) == before
    assert "written: x.md\n" in harness(*where, "--out", "x.md").out
    assert Path("x.md").read_text(encoding="utf-8") == printed.out
    assert harness(*where, "--format", "latex", "--out", "table.txt").out == "written: table.txt\n"
    assert "\\toprule" in Path("table.txt").read_text(encoding="utf-8")
    assert {path.name for path in set(Path.cwd().iterdir()) - before} == {"x.md", "table.txt"}
    assert "give one of them" in harness(*where, "--format", "md", "--json").err
    assert harness(*where, "--format", "xls").code == 2


def test_costs_and_cells_lie_beside_the_ranking_and_replace_nothing(
    evaluated: Done, harness: Any, tiny_track: Path
) -> None:
    assert evaluated.code == 0
    where = ("leaderboard", "--track", tiny_track, "--out", "x.csv")
    assert "written: x.csv, x.json and x-cells.csv" in harness(*where).out
    before = Path("x.csv").read_bytes()
    assert "written: x-cost.csv" in harness(*where, "--cost").out
    assert Path("x.csv").read_bytes() == before
    assert Path("x-cost.csv").read_text(encoding="utf-8").startswith("submission,task,splits,device")
    with Path("x-cells.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert {(row["entry"], row["task"], row["split"]) for row in cells} == {
        ("entry", "qqp", "1"), ("entry", "sst2", "1"), ("entry", "sst2", "2"),
    }  # fmt: skip


def test_an_evaluation_may_be_looked_at_before_it_is_whole(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    place = write_submission(tmp_path, "tune = search")
    done = harness("evaluate", place, "--track", tiny_track, "--task", "qqp")
    assert done.code == 0
    assert "qqp/1" in done.err
    assert "entry: 1 cell\n" in done.err
    assert "harness leaderboard" in done.out
    (entry,) = harness("leaderboard", "--track", tiny_track, "--json").json["entries"]
    assert (entry["rank"], entry["missing_cells"]) == (None, 2)


def test_a_trial_is_stored_and_not_ranked(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    place = write_submission(tmp_path, "tune = search")
    done = harness("evaluate", place, "--track", tiny_track, "--task", "qqp", "--calls", "2")
    assert "not ranked" in done.out
    Path("leaderboard").mkdir()
    Path("leaderboard/tiny.csv").write_text("a good one")
    shown = harness("leaderboard", "--track", tiny_track)
    assert shown.code == 0
    assert "no ranked runs" in shown.out
    assert "1 run left out" in shown.out
    assert "entry: replaced calls" in shown.out
    assert "leaderboard/tiny.csv is not written" in shown.out
    assert "leaderboard/tiny-cost.csv is not written" in harness("leaderboard", "--track", tiny_track, "--cost").out
    assert harness("leaderboard", "--track", tiny_track, "--json").json["entries"] == []
    assert [(file.name, file.read_text()) for file in Path("leaderboard").iterdir()] == [("tiny.csv", "a good one")]


@pytest.mark.parametrize("more", [(), ("--cost",), ("--json",)])
def test_a_leaderboard_of_a_track_that_never_ran_is_an_error_and_writes_nothing(
    harness: Any, more: tuple[str, ...]
) -> None:
    Store("r.db").close()
    for track, command in (
        ("mini", "harness evaluate submissions/ajo --track mini --store r.db\n"),
        ("kit", "harness evaluate submissions/ajo --track kit --data DIR --store r.db\n"),
    ):
        done = harness("leaderboard", "--track", track, "--store", "r.db", *more)
        assert (done.code, done.out) == (1, "")
        assert f"no finished cell of track {track} in r.db, nothing is written; run: {command}" in done.err
    assert not Path("leaderboard").exists()


def test_a_run_on_another_device_is_listed_apart(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    """It is stored with the device that it used, shown, and not ranked."""
    text = tiny_track.read_text(encoding="utf-8")
    Path("tiny.toml").write_text(text.replace('device = "cpu"', 'device = "cuda"'), encoding="utf-8")
    place = write_submission(tmp_path, "tune = search")
    done = harness("evaluate", place, "--track", "tiny.toml", "--task", "qqp", "--device", "cpu")
    assert "on cpu, and the track ranks a cuda device: listed apart" in done.out
    shown = harness("leaderboard", "--track", "tiny.toml")
    assert "no ranked runs" in shown.out
    assert "entry on cpu" in shown.out
    (entry,) = harness("leaderboard", "--track", "tiny.toml", "--json").json["entries"]
    assert (entry["rank"], entry["device"]) == (None, "cpu")
    assert harness("evaluate", place, "--track", "tiny.toml", "--device", "tpu").code == 2


def test_the_cost_table_is_printed_and_written(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    """From the facts of a real cell."""
    harness("evaluate", write_submission(tmp_path, "tune = search"), "--track", tiny_track, "--task", "qqp")
    shown = harness("leaderboard", "--track", tiny_track, "--cost")
    assert "written: leaderboard/tiny-cost.csv" in shown.out
    assert not Path("leaderboard/tiny.csv").exists()
    with Path("leaderboard/tiny-cost.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["submission"], row["task"], row["as_a_service"], row["device"]) == ("entry", "qqp", "yes", "cpu")
    assert float(row["nominal_down_b"]) == 8 * 2 * 4  # texts, label words, bytes of a float
    assert (float(row["nominal_up_b"]) - 4 * 4) % 3 == 0  # four floats of z, and three bytes for each token
    assert float(row["user_mb"]) > 10
    assert row["server_device_mb"] == ""
    (cost,) = harness("leaderboard", "--track", tiny_track, "--cost", "--json").json["costs"]
    assert cost["sent_up_b"] == float(row["sent_up_b"])


def test_backends_that_differ_are_told(
    evaluated: Done, harness: Any, tiny_track: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ranking of one machine prints no warning. Here the tolerance is set so low that equal backends differ."""
    assert evaluated.code == 0
    assert "backends differ" not in harness("leaderboard", "--track", tiny_track).out
    assert harness("leaderboard", "--track", tiny_track, "--json").json["drift"] == []
    monkeypatch.setitem(ROUNDING, "float32", -1.0)
    assert "backends differ on qqp" in harness("leaderboard", "--track", tiny_track).out
    differ = harness("leaderboard", "--track", tiny_track, "--json").json["drift"]
    assert [(each["task"], each["difference"]) for each in differ] == [("qqp", 0.0), ("sst2", 0.0)]


def test_predictions_agree_with_those_stored(evaluated: Done, harness: Any, tiny_track: Path) -> None:
    assert evaluated.code == 0
    store = Store("results/harness.db")
    (run,) = [found.id for found in store.runs()]
    cell = next(cell for cell in store.cells(run) if (cell.task, cell.split) == ("sst2", 2))
    store.close()
    file = load_task("sst2")
    texts = load_test(file, Source("embedded")).texts
    where = ("--track", tiny_track, "--split", 2, "--json")
    for n in (0, 7, 100):
        (text,) = texts[n]
        found = harness("predict", text, "--entry", "entry", "--save", "kept.safetensors", *where).json
        assert found["class"] == file.classes[cell.predictions[1.0][n]]
        assert sum(found["probabilities"].values()) == pytest.approx(1)
        assert harness("predict", text, "--answer", "kept.safetensors", *where).json == found
    shown = harness("predict", texts[0][0], "--answer", "kept.safetensors", "--track", tiny_track)
    assert "%" in shown.out
    assert harness("predict", "x", "--entry", "other", *where).code == 2
    assert harness("predict", "x", "--entry", "entry", "--track", tiny_track, "--split", 9).code == 2
    assert harness("predict", "x", "--entry", "entry", "--save", "/dev/null/x", "--track", tiny_track).code == 2
    Path("bad.safetensors").write_bytes(b"nonsense")
    assert harness("predict", "x", "--answer", "bad.safetensors", "--track", tiny_track).code == 2


def test_an_archive_of_predictions_is_scored(harness: Any) -> None:
    labels = load_test(load_task("sst2"), Source("embedded")).labels
    with zipfile.ZipFile("right.zip", "w") as file:
        file.writestr("SST-2/1.csv", ",pred\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels)))
    done = harness("score", "right.zip", "--track", "mini", "--json").json
    (found,) = done["cells"]
    assert len(done["missing"]) == 14
    assert found == {"task": "sst2", "split": 1, "rows": 200, "metric": "accuracy", "score": 1.0}
    assert "100.00" in harness("score", "right.zip", "--track", "mini").out
    assert "--data DIR" in harness("score", "right.zip").err
    assert "right" in harness("leaderboard").out
    (listed,) = harness("leaderboard", "--json").json["uploads"]
    assert (listed["name"], listed["sst2"], listed["missing_cells"]) == ("right", 1.0, 14)
    assert not Path("leaderboard").exists()


def test_the_kit_can_be_evaluated_on(harness: Any, tiny_track: Path, tmp_path: Path) -> None:
    if not (KIT / "SST-2" / "test.tsv").is_file():
        pytest.skip(f"no competition kit at {KIT}")
    place = write_submission(tmp_path, "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)")
    splits = sorted(int(path.name) for path in (KIT / "SST-2").iterdir() if path.name.isdigit())
    arguments = ("--track", tiny_track, "--data", KIT, "--task", "sst2", "--split", splits[0])
    done = harness("evaluate", place, *arguments, "--json")
    assert done.code == 2  # the track names splits of its own, 1 and 2
    text = tiny_track.read_text(encoding="utf-8").split("[tasks.sst2]")[0].replace('"tiny"', '"tinykit"')
    text = text.replace('source = "embedded"', 'source = "kit"') + '[tasks.sst2]\ncalls = 2\nsplits = "present"\n'
    Path("tinykit.toml").write_text(text, encoding="utf-8")
    arguments = ("--track", "tinykit.toml", "--data", KIT, "--split", splits[0])
    done = harness("evaluate", place, *arguments, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[2])["status"] == "ok"


@pytest.mark.parametrize("book", ["service.db", "sqlite:///service.db"])
def test_a_book_that_is_not_there_is_not_made_by_looking_into_it(harness: Any, tmp_path: Path, book: str) -> None:
    pytest.importorskip("fastapi", reason="fastapi is in the extra `service`")
    for asked in (("--tokens",), ("--revoke-token", "alice")):
        done = harness("serve", "--book", book, *asked)
        assert done.code == 2
        assert f"{book}: no such book; make it with its first token" in done.err
        assert f"harness serve --new-token NAME --book {book}" in done.err
    assert list(tmp_path.iterdir()) == []
    Accounts("service.db").close()
    done = harness("serve", "--book", book, "--tokens")
    assert done.code == 0
    assert f"no tokens in {book}; make one with: harness serve --new-token NAME --book {book}\n" in done.out


def test_a_broken_database_is_one_message(harness: Any, tiny_track: Path) -> None:
    Path("notes.db").write_text("no database at all, but long enough to be looked at " * 10)
    done = harness("leaderboard", "--track", tiny_track, "--store", "notes.db")
    assert done.code == 1
    assert "not a database" in done.err


@pytest.mark.slow
def test_the_embedded_track_runs_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli"]
    submissions = [str(ROOT / "submissions" / name) for name in ("manual", "bbt")]
    choices = ["--task", "sst2", "--split", "1", "--calls", "25"]
    done = subprocess.run(
        [*command, "evaluate", *submissions, *choices, "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = [event for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "cell"]
    assert [(cell["entry"], cell["status"]) for cell in cells] == [("manual", "ok"), ("bbt", "budget_exhausted")]
    assert cells[0]["rows_spent"] == 0
    assert cells[1]["rows_spent"] <= 25 * 32
    assert all(cell["score"] > 0.4 for cell in cells)


def test_help_breaks_lines_where_the_terminal_ends() -> None:
    """A docstring's own line breaks are not the terminal's: a paragraph is one line, and rich folds it."""
    for command in cli.app.registered_commands:
        paragraphs = (command.help or "").split("\n\n")
        assert paragraphs[0], command
        assert not any("\n" in each for each in paragraphs), command
