"""An author's day: try, run, look at what came of it, and find it again. Typed commands on a tiny model."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import typer.main
from outer_models import write_submission

from harness import cli
from harness.cli.app import PANELS, app
from harness.cli.complete import (
    complete_entries as entries,
)
from harness.cli.complete import (
    complete_runs as runs,
)
from harness.cli.complete import (
    complete_submissions as submissions,
)
from harness.cli.complete import (
    complete_tasks as tasks,
)
from harness.cli.complete import (
    complete_tracks as tracks,
)
from harness.errors import did_you_mean
from harness.leaderboard.ablation import _rounded
from harness.results.audit import audit
from harness.results.store import Store

CRASHES = """
def deeper(x):
    print("about to divide")
    return 1 / x

def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    deeper(0)
"""
HANGS = """
def spin(n):
    print("\\x1b[2Jround and round")
    while True:
        n += 1

def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    spin(0)
"""
GREEDY = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    space = Subspace(4, (1.0,), 2, seed=1)
    try:
        lm.logits(space.at(rng.standard_normal((50, 4))), shots.train.texts)
    except BudgetExhausted:
        {then}
"""
SEARCH = "tune = search"


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Type a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def slow_track(tiny_track: Path, tmp_path: Path) -> Path:
    """The tiny track with eight seconds for a cell."""
    text = tiny_track.read_text(encoding="utf-8").replace('"tiny"', '"short"')
    text = text.replace("wall_s = 60", "wall_s = 8\ntest_s = 60")
    path = tmp_path / "short.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_trial_is_found_again_with_all_that_happened_in_it(typed: Any, tiny_track: Path, tmp_path: Path) -> None:
    """Run, see the failure, follow the printed commands; nothing needs to be remembered."""
    good, bad = write_submission(tmp_path, SEARCH, "good"), write_submission(tmp_path, CRASHES, "bad")
    one = ("--track", tiny_track, "--store", "y.db", "--task", "sst2", "--split", 1, "--calls", 4)
    done = typed("evaluate", bad, good, *one)
    assert done.code == 1
    trace = done.err.split("crashed\n")[1]
    assert trace.splitlines()[0].strip() == "Traceback (most recent call last):"
    assert 'bad/submission.py", line ' in trace.splitlines()[1]  # the author's file, not the harness's
    assert ", in tune" in trace.splitlines()[1]
    (log,) = re.findall(r"what it printed, and its traceback: harness (.*)", done.err)
    (board,) = re.findall(r"see them with: harness (.*)", done.out)
    assert shlex.split(board) == ["leaderboard", "--trials", "--track", str(tiny_track), "--store", "y.db"]

    shown = typed(*shlex.split(log))
    assert shown.code == 0
    assert "what it printed, the end of it:\nabout to divide\n" in shown.out
    assert "ZeroDivisionError: division by zero" in shown.out
    assert "crashed: an exception, or the process died" in shown.out
    assert "0.0 of 4 calls in 0 queries" in shown.out
    assert typed(*shlex.split(log), "--show", "output").out == "about to divide\n"

    trials = typed(*shlex.split(board))
    assert "calls=4" in trials.out
    rows = json.loads(typed(*shlex.split(board), "--json").out)["trials"]
    assert [(row["entry"], row["failed"], row["replaced"]) for row in rows] == [
        ("bad", 1, "calls=4"), ("good", 0, "calls=4"),
    ]  # fmt: skip
    assert rows[0]["calls"] == 0
    assert rows[1]["calls"] == 4
    assert "--trials lists the latter" in typed("leaderboard", "--track", tiny_track, "--store", "y.db").out


def test_the_log_of_a_cell_has_its_queries_and_answers(typed: Any, tiny_track: Path, tmp_path: Path) -> None:
    good = write_submission(tmp_path, SEARCH, "good")
    typed("evaluate", good, "--track", tiny_track, "--store", "y.db", "--task", "sst2", "--split", 1)
    found = json.loads(typed("log", "good", "--store", "y.db", "--json").out)  # its one cell, without --task
    store = Store("y.db")
    (run,) = store.runs()
    (cell,) = store.cells(run.id)
    ledger = store.ledger(cell.attempt)
    assert [row["sha256"] for row in found["queries"]] == [row.sha256 for row in ledger]
    assert found["queries"][-1]["calls_so_far"] == 10
    assert (found["run"], found["task"], found["split"], found["status"]) == (run.id, "sst2", 1, cell.status)
    assert found["answers"][-1]["note"] == dict(cell.record.note)
    assert found["answers"][-1]["members"][0]["prompt"].startswith("1 x 4 coordinates")
    assert found["facts"]["rows_spent"] == cell.record.rows_spent
    table = list(csv.DictReader(io.StringIO(typed("log", run.id[:6], "--store", "y.db", "--format", "csv").out)))
    assert [int(row["rows"]) for row in table] == [row.rows for row in ledger]
    said = typed("log", "good", "--store", "y.db").out
    assert "answers that stood at marks of the budget:" in said
    assert "it printed nothing" in said
    assert typed("log", "good", "--store", "y.db", "--show", "output").out == "it printed nothing\n"
    assert typed("log", "good", "--store", "y.db", "--show", "why").out.strip()
    store.close()


def test_what_there_is_not_is_said_with_what_there_is(typed: Any, tiny_track: Path, tmp_path: Path) -> None:
    good = write_submission(tmp_path, SEARCH, "good")
    typed("evaluate", good, "--track", tiny_track, "--store", "y.db", "--task", "sst2")
    both = typed("log", "good", "--store", "y.db")
    assert "sst2/1" in both.out
    assert "sst2/2" in both.out
    assert "one of them: harness log good --task sst2 --split 1 --store y.db" in both.out
    none = typed("log", "good", "--task", "sst2", "--split", 7, "--store", "y.db")
    assert none.code == 2
    assert "has no cell sst2/7 (did you mean" in none.err
    wrong = typed("log", "goood", "--store", "y.db")
    assert wrong.code == 2
    assert "has no run 'goood' (did you mean 'good'?); harness runs lists them all" in wrong.err
    assert typed("log", "good", "--store", "z.db").code == 2


def test_a_repeated_command_prints_what_was_finished_with_its_scores(
    typed: Any, tiny_track: Path, tmp_path: Path
) -> None:
    good = write_submission(tmp_path, SEARCH, "good")
    command = ("evaluate", good, "--track", tiny_track, "--store", "y.db", "--task", "sst2")
    first = typed(*command, "--split", 1).err
    (line,) = [each for each in first.splitlines() if "sst2/1" in each]
    second = typed(*command).err
    assert [each for each in second.splitlines() if "[before]" in each] == [line.replace("[1/1]", "[before]")]
    third = typed(*command).err  # nothing is left to do, and no model is loaded
    assert [re.sub(r"^ *\[.*?\] ", "", each) for each in third.splitlines() if "sst2/" in each] == [
        re.sub(r"^ *\[.*?\] ", "", each) for each in second.splitlines() if "sst2/" in each
    ]
    events = [json.loads(each) for each in typed(*command, "--json").out.splitlines()]
    assert [(each["task"], each["split"]) for each in events if each["event"] == "before"] == [("sst2", 1), ("sst2", 2)]
    assert all(0 <= each["score"] <= 1 for each in events if each["event"] == "before")
    assert "rank them with: harness leaderboard --track" in typed(*command).out


def test_a_cell_that_the_clock_ended_says_where_it_was(typed: Any, slow_track: Path, tmp_path: Path) -> None:
    """What it had printed is kept, too, and cannot control the terminal."""
    hangs = write_submission(tmp_path, HANGS, "hangs")
    done = typed("evaluate", hangs, "--track", slow_track, "--store", "y.db", "--task", "sst2", "--split", 1)
    assert done.code == 0, done.err  # the bare template counts
    said = done.err.split("timeout\n")[1]
    assert "wall-clock limit reached\n" in said
    assert re.search(r'last\):\n +File ".*/hangs/submission.py", line \d+, in tune\n +spin\(0\)\n', said)
    assert re.search(r"line \d+, in spin\n +(n \+= 1|while True:)\n", said)
    shown = typed("log", "hangs", "--store", "y.db").out
    assert "round and round" in shown
    assert "\x1b" not in shown
    assert "Thread 0x" not in shown
    store = Store("y.db")
    assert audit(store).findings == ()
    store.close()


@pytest.mark.parametrize("then", ["raise", "return"])
def test_a_first_query_beyond_the_budget_is_told_in_the_cell(
    typed: Any, tiny_track: Path, tmp_path: Path, then: str
) -> None:
    """Whether the submission catches the refusal or not: it searched nothing, and looked like one that had."""
    greedy = write_submission(tmp_path, GREEDY.format(then=then), "greedy")
    done = typed("evaluate", greedy, "--track", tiny_track, "--store", "y.db", "--task", "sst2", "--split", 1)
    assert "but no query fitted into the budget" in done.err
    assert (
        "the first one asked for 400 rows, which are 50.0 calls, and the whole budget is 80 rows, 10 calls" in done.err
    )
    refused = typed("check", greedy, "--calls", 10)
    assert refused.code == 2
    assert "no query was answered: the first one asked for 1,600 rows" in refused.err
    assert "check with --calls N" in refused.err
    assert typed("check", greedy, "--calls", 50).code == 0


@pytest.mark.parametrize("form", ["csv", "json", "md", "latex"])
@pytest.mark.parametrize("command", ["runs", "tracks", "tasks", "log", "rulings", "leaderboard"])
def test_tables_come_in_every_format(typed: Any, tiny_track: Path, tmp_path: Path, command: str, form: str) -> None:
    store = tmp_path / "y.db"
    if command in {"runs", "log", "leaderboard"}:
        good = write_submission(tmp_path, SEARCH, "good")
        typed("evaluate", good, "--track", tiny_track, "--store", store, "--calls", 2, "--task", "qqp")
    if command == "rulings":
        typed("cap", 5, "--reason", "a, b & c", "--store", store)
    board = ("leaderboard", "--trials", "--track", tiny_track)
    words = {"log": ("log", "good"), "leaderboard": board}.get(command, (command,))
    done = typed(*words, *(() if command == "tasks" else ("--store", store)), "--format", form)
    assert done.code == 0, done.err
    begins = {"csv": r"\w+,\w+", "json": r"\{", "md": "## ", "latex": r"% needs"}[form]
    assert re.match(begins, done.out), done.out
    if form == "json":
        (rows,) = json.loads(done.out).values()
        assert rows
    if command == "rulings" and form == "latex":
        assert r"b \& c" in done.out


def test_exit_codes_are_the_documented_ones(typed: Any, tiny_track: Path, tmp_path: Path) -> None:
    bad = write_submission(tmp_path, CRASHES, "bad")
    assert typed("tracks").code == 0
    assert typed("evaluate", bad, "--track", tiny_track, "--store", "y.db", "--task", "qqp").code == 1
    assert typed("audit", "--store", "y.db", "--track", tiny_track, "--expect", "0" * 64).code == 1
    assert typed("check", bad).code == 2
    assert typed("leaderboard", "--track", "nosuch").code == 2
    assert typed("leaderboard", "--nosuch").code == 2
    assert typed("nosuch").code == 2
    page = (Path(cli.__file__).resolve().parents[2] / "docs" / "author.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\d+)` \|", page, re.MULTILINE)) == {"0", "1", "2", "130"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evalute",), "Did you mean 'evaluate'"),
        (("evaluate", "--trak", "mini"), "--track"),
        (("leaderboard", "--track", "mni"), "no track 'mni' (did you mean 'mini'?)"),
        (("check", "folder/mysolvr"), "(did you mean 'folder/mysolver'?)"),
        (("check", "mysolver"), "(did you mean 'submissions/mysolver'?)"),
        (("check", "folder/mysolver", "--config", "stp=1"), "no option 'stp' (did you mean 'step'?)"),
        (("check", "folder/mysolver", "--track", "mini", "--task", "sst"), "no task 'sst' (did you mean 'sst2'?)"),
    ],
)
def test_a_name_that_is_nearly_right_is_suggested(
    typed: Any, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    for folder in ("folder", "submissions"):
        write_submission(tmp_path / folder, SEARCH, "mysolver")
    done = typed(*words)
    assert done.code == 2
    assert says in " ".join(done.err.split())


def test_a_name_that_is_like_nothing_is_not_guessed() -> None:
    assert did_you_mean("zzz", ["sst2", "qqp"]) == ""
    assert did_you_mean("SST", ["sst2", "qqp"]) == " (did you mean 'sst2'?)"
    assert did_you_mean("x", []) == ""


def test_every_command_stands_under_a_heading_of_the_help(typed: Any) -> None:
    known = {name for names in PANELS.values() for name in names}
    there = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert there <= known, there - known
    said = typed("--help").out
    places = [said.index(f" {title} ") for title in PANELS]
    assert places == sorted(places)
    said = typed("evaluate", "--help").out
    for title in ("Which cells", "In place of the track's choices", "How and where they run"):
        assert f" {title} " in said


def test_the_shell_is_offered_names(typed: Any, tiny_track: Path, tmp_path: Path) -> None:
    good = write_submission(tmp_path / "submissions", SEARCH, "good")
    typed("evaluate", good, "--track", tiny_track, "--store", "y.db", "--calls", 2, "--task", "qqp")
    assert {"mini", "mini-long"} <= set(tracks("mi"))
    assert tracks(str(tiny_track)[:-3]) == [str(tiny_track)]
    assert tasks("sn") == ["snli"]
    assert submissions("") == submissions("subm") == ["submissions/good"]
    assert submissions("submissions/g") == ["submissions/good"]

    class Context:
        params: ClassVar = {"store": "y.db"}

    assert entries(Context(), "g") == ["good"]
    assert len(runs(Context(), "")) == 2
    Context.params = {"store": "nosuch.db"}
    assert entries(Context(), "") == []


def test_completion_is_asked_for_as_shells_do(tmp_path: Path) -> None:
    def offered(line: str) -> list[str]:
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_HARNESS_COMPLETE": "complete_bash"}
        program = "from harness.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | asked,
            check=False,
        )
        return done.stdout.split()

    assert "evaluate" in offered("harness eva")
    assert offered("harness leaderboard --track offi") == ["official"]


def test_the_json_of_an_ablation_has_null_where_there_is_nothing() -> None:
    assert _rounded(None) is None
    assert _rounded(0.123456) == 0.1235
