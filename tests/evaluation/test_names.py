"""An entry is told by team, name and content: whoever is called like another takes nobody's place unseen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from outer_models import write_submission
from typer.testing import CliRunner

from harness.cli import app as cli
from harness.errors import InputError
from harness.leaderboard.rank import rank
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

ONE = "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)"
TWO = "def tune(lm, task, shots, rng, config):\n    lm.logits(None, shots.train.texts)\n    yield Answer.of(task)"
CELL = ("--task", "qqp", "--split", "1")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of one name and two contents."""
    return write_submission(tmp_path / "a", ONE, "mysolver"), write_submission(tmp_path / "b", TWO, "mysolver")


@pytest.fixture
def where(tmp_path: Path, tiny_track: Path) -> tuple[object, ...]:
    return "--track", tiny_track, "--store", tmp_path / "results.db"


def listed(tmp_path: Path, tiny_track: Path) -> list[str]:
    track = load_track(str(tiny_track))
    store = Store(str(tmp_path / "results.db"))
    ranking = rank(store, track.name, track.fingerprint)
    store.close()
    return sorted(entry.name for entry in (*ranking.entries, *ranking.elsewhere))


def test_one_name_for_two_contents_is_refused_before_anything_runs(
    folders: tuple[Path, Path], where: tuple[object, ...], tmp_path: Path
) -> None:
    for command in ("evaluate", "plan"):
        more = where if command == "evaluate" else where[:2]
        problem = run(command, *folders, *more, *CELL).exception
        assert isinstance(problem, InputError)
        assert f"{folders[0]} and {folders[1]} are both called mysolver and are not the same" in str(problem)
        assert "--team" in str(problem)
    assert not (tmp_path / "results.db").exists()


def test_both_teams_stay_in_the_ranking(
    folders: tuple[Path, Path], where: tuple[object, ...], tmp_path: Path, tiny_track: Path
) -> None:
    done = run("evaluate", *folders, *where, *CELL, "--team", "alice", "--team", "bob")
    assert done.exit_code == 0, done.output
    assert listed(tmp_path, tiny_track) == ["alice/mysolver", "bob/mysolver"]
    done = run("evaluate", *folders, *where, *CELL, "--team", "alice", "--as", "one", "--as", "two")
    assert done.exit_code == 0, done.output
    assert listed(tmp_path, tiny_track) == ["alice/mysolver", "alice/one", "alice/two", "bob/mysolver"]


def test_the_same_folder_twice_is_no_contradiction(folders: tuple[Path, Path], where: tuple[object, ...]) -> None:
    assert run("evaluate", folders[0], folders[0], *where, *CELL).exit_code == 0


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (("--as", "one"), "--as is given 1 times for 2 folders; give it once for each"),
        (("--team", "a", "--team", "b", "--team", "c"), "--team is given 3 times for 2 folders; give it once for all"),
        (("--team", "a/b"), "--team 'a/b': a letter or digit"), (("--team", "a[b]"), "--team 'a[b]'"),
        (("--as", "one", "--as", "../two"), "--as '../two': a letter"), (("--as", "", "--as", "x"), "--as ''"),
        (("--as", "same", "--as", "same"), "are both called same"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(
    folders: tuple[Path, Path], where: tuple[object, ...], more: tuple[str, ...], fact: str, tmp_path: Path
) -> None:
    done = run("evaluate", *folders, *where, *CELL, *more)
    assert done.exit_code != 0
    assert fact in f"{done.exception} {done.output}"


def test_who_takes_another_s_place_is_told(folders: tuple[Path, Path], where: tuple[object, ...]) -> None:
    assert run("evaluate", folders[0], *where, *CELL).exit_code == 0
    again = run("evaluate", folders[0], *where, *CELL)
    assert "takes its place" not in again.output
    done = run("evaluate", folders[1], *where, *CELL)
    assert "mysolver was run before with other content" in done.output
    assert "takes its place in the ranking" in done.output
    shown = run("leaderboard", *where, "--json", "--out", folders[0].parent / "x.csv")
    (replaced,) = json.loads(shown.stdout)["replaced"]
    assert replaced["name"] == "mysolver"
    (entry,) = json.loads(shown.stdout)["entries"]
    assert entry["runs"] == 2


def test_a_plan_says_whose_cells_they_are(
    folders: tuple[Path, Path], where: tuple[object, ...], tmp_path: Path, tiny_track: Path
) -> None:
    planned = run("plan", *folders, *where[:2], *CELL, "--team", "alice", "--as", "one", "--as", "two")
    lines = planned.stdout.splitlines()
    assert [line.split("@")[1].partition("/")[2] for line in lines] == ["alice%2Fone", "alice%2Ftwo"]
    for line in lines:
        done = run("evaluate", *folders, *where, "--cell", line)
        assert done.exit_code == 0, done.output
    assert listed(tmp_path, tiny_track) == ["alice/one", "alice/two"]
    refused = run("evaluate", *folders, *where, "--cell", lines[0], "--team", "bob").exception
    assert "leave out --team and --as" in str(refused)


def test_an_organiser_withdraws_caps_and_freezes(
    folders: tuple[Path, Path], where: tuple[object, ...], tmp_path: Path, tiny_track: Path
) -> None:
    """Others go on, and the exit code says that something was not run."""
    assert run("evaluate", *folders, *where, *CELL, "--team", "a", "--team", "b").exit_code == 0
    done = run("withdraw", "a/mysolver", "--reason", "asked for", *where)
    assert done.exit_code == 0, done.output
    assert listed(tmp_path, tiny_track) == ["b/mysolver"]
    shown = run("leaderboard", *where, "--out", tmp_path / "x.csv")
    assert "a/mysolver withdrawn on" in shown.stdout
    assert "a/mysolver" not in (tmp_path / "x.csv").read_text(encoding="utf-8")
    assert run("cap", 1, "--reason", "one try each", *where).exit_code == 0
    more = ("--task", "sst2", "--split", "2", "--seed", "7")
    done = run("evaluate", *folders, *where, *more, "--team", "b", "--team", "c", "--as", "mysolver", "--as", "fresh")
    assert done.exit_code == 1
    assert "at most 1 are allowed: one try each" in " ".join(done.output.split())
    assert run("freeze", "--reason", "the deadline", *where).exit_code == 0
    frozen = run("evaluate", folders[0], *where, *CELL, "--as", "late")
    assert frozen.exit_code == 1
    assert "is frozen" in " ".join(frozen.output.split())
    text = run("rulings", "--store", tmp_path / "results.db").stdout
    assert [line.split()[2] for line in text.splitlines()] == ["withdraw", "cap", "freeze"]
    kinds = [each["kind"] for each in json.loads(run("rulings", where[2], where[3], "--json").stdout)]
    assert kinds == ["withdraw", "cap", "freeze"]
    assert run("audit", where[2], where[3]).exit_code == 0
    for command in (("withdraw", "a/mysolver"), ("cap",), ("freeze",)):
        assert run(*command, "--undo", "--reason", "over", *where).exit_code == 0
    assert listed(tmp_path, tiny_track)[:2] == ["a/mysolver", "b/mysolver"]


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("withdraw", "nobody", "--reason", "x"), "has no entry 'nobody' on track tiny; it has mysolver"),
        (("withdraw", "mysolver", "--reason", " "), "--reason has 0 characters"),
        (("withdraw", "mysolver", "--undo", "--reason", "x"), "there is none to end"),
        (("cap", "--reason", "x"), "name the number of runs"), (("cap", "3", "--undo"), "name the number of runs"),
        (("cap", "3"), "--reason has 0 characters"), (("freeze", "--undo", "--reason", "x"), "there is none to end"),
        (("withdraw", "mysolver"), "--reason"), (("cap", "-1", "--reason", "x"), ""),
    ],
)  # fmt: skip
def test_rulings_that_make_no_sense_are_refused(
    folders: tuple[Path, Path], where: tuple[object, ...], words: tuple[str, ...], fact: str, tmp_path: Path
) -> None:
    assert run("evaluate", folders[0], *where, *CELL).exit_code == 0
    done = run(*words, *where)
    assert done.exit_code != 0
    assert fact in f"{done.exception} {done.output}"
    store = Store(str(tmp_path / "results.db"))
    assert store.rulings() == []
    store.close()


def test_a_ruling_that_holds_already_is_not_made_again(folders: tuple[Path, Path], where: tuple[object, ...]) -> None:
    assert run("evaluate", folders[0], *where, *CELL).exit_code == 0
    assert run("withdraw", "mysolver", "--reason", "why", *where).exit_code == 0
    assert "this holds already: why" in str(run("withdraw", "mysolver", "--reason", "more", *where).exception)
