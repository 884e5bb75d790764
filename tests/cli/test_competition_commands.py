"""A competition of one's own as it is typed: made, checked, scored, kept back until the end, and corrected."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key
from outer_models import write_submission
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import HarnessError
from harness.evaluation.zero_shot import CONTENT_FREE, beforehand
from harness.lm.load import load_model
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.examples import Source, examples_sha256, load_shots, load_test
from harness.tracks.track import load_track, track_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from harness.contract import Task
    from harness.lm.model import LanguageModel

LATE = "9999-12-31T00:00:00Z"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: Any) -> str:
    """What a command prints that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    return result.stdout


def refused(*arguments: Any) -> str:
    """The message of a command that is refused."""
    result = run(*arguments)
    assert isinstance(result.exception, HarnessError), (result.stdout, result.stderr, result.exception)
    return str(result.exception)


@pytest.fixture
def model(tiny_track: Path) -> str:
    return str(load_track(str(tiny_track)).model.source)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> Path:
    """A competition on the tiny model; its folder is in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    with (tmp_path / "my.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = [(f"Film {n} is {'fine' if n % 2 else 'dull'}", n % 2) for n in range(60)]
        csv.writer(stream).writerows([("sentence", "label"), *rows])
    sizes = ["--shots", "4", "--splits", "2", "--calls", "10"]
    words = ["--classes", "dull,fine", "--words", "bad,great"]
    columns = ["--data", "my.csv", "--text", "sentence", "--label", "label"]
    made = done("new-competition", "films", *columns, *words, *sizes, "--model", model, "--no-check")
    assert "2 splits carry intervals and no ranks; ranks of one task need --splits 7" in made
    return tmp_path / "films"


def open_until(films: Path, closes: str = LATE, public: str = "ranks", more: str = "") -> None:
    path = films / "track.toml"
    before = path.read_text(encoding="utf-8").partition("[competition]\n")[0]
    path.write_text(f'{before}\n[competition]\ncloses = {closes}\npublic = "{public}"\n{more}\n', encoding="utf-8")


def finished(films: Path, name: str, right: int, **identity: Any) -> None:
    """A run whose predictions are right on so many test texts, with both cells."""
    track = load_track(str(films))
    (file,) = track_tasks(track).values()
    test = load_test(file, Source("files"))
    store = Store("results/harness.db")
    made = key(name, track=track.name, track_fingerprint=track.fingerprint, data="files", **identity)
    opened = store.open_run(made, {"packages": {}})
    predicted = np.where(np.arange(len(test)) < right, test.labels, 1 - test.labels)
    record = CellRecord(train_rows=8, rows_total=80, sandbox="A", metric="accuracy", words=(" bad", " great"))
    for split in track.tasks["my"].splits:
        kept = [KeptAnswer(1.0, 0, name.encode(), predicted)]
        store.begin(opened, "my", split).finish("ok", record, examples_sha256(test), test.labels, kept)
    store.close()


def archive(path: Path, shift: int) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        rows = "".join(f"{n},{(n + shift) % 2}\n" for n in range(30))
        made.writestr("my/1.csv", f",pred\n{rows}")
    return path


# ── before anybody competes ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_known_beforehand_is_what_the_model_says(films: Path) -> None:
    record = json.loads(done("tasks", "--check", "films", "--json"))
    (found,) = record["tasks"]
    assert record["problems"] == record["warnings"] == []
    assert found["words"]["dull"] == {"word": " bad", "tokens": ["bad"]}
    track = load_track(str(films))
    (file,) = track_tasks(track).values()
    lm, task = load_model(track.model, track.prompt), file.task(track.profile, "masked")
    test = load_test(file, Source("files"))
    p = probabilities(lm, task, test.texts)
    assert found["zero_shot"] == pytest.approx(np.mean(p.argmax(axis=1) == test.labels))
    assert found["majority"] == pytest.approx(max(np.mean(test.labels == k) for k in (0, 1)))
    texts = {text for n in (1, 2) for text in load_shots(file, Source("files"), n, track.tasks["my"]).train.texts}
    assert found["mean_probability"]["fine"] == pytest.approx(probabilities(lm, task, tuple(texts)).mean(axis=0)[1])
    assert found["content_free"]["fine"] == pytest.approx(probabilities(lm, task, ((CONTENT_FREE,),))[0, 1])
    assert sum(found["share"].values()) == pytest.approx(1)


def probabilities(lm: LanguageModel, task: Task, texts: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """By the logits alone: (texts, classes)."""
    logits = lm.outputs(None, texts, task.template, task.words, "mask").logits[0]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_a_label_word_of_several_tokens_is_a_problem_and_a_biased_template_is_told(films: Path) -> None:
    task = films / "tasks" / "my" / "task.toml"
    task.write_text(task.read_text().replace('" great"', '" magnificentissimo"'), encoding="utf-8")
    result = run("tasks", "--check", "films")
    assert result.exit_code == 2
    assert "the label word ' magnificentissimo' of class 'fine' is 3 tokens (magnificent ##iss ##imo)" in result.stdout
    assert "1 problem in films" in result.stderr
    track = load_track(str(films))
    (file,) = track_tasks(track).values()
    lm = load_model(track.model, track.prompt)
    facts = beforehand(file, file.task(track.profile, "masked"), Source("files"), track.tasks["my"], lm)
    assert (facts.zero_shot, facts.mean, facts.biased()) == (None, (), [])


def test_the_check_lists_every_problem_and_exits_with_2(films: Path) -> None:
    test = films / "tasks" / "my" / "test.csv"
    test.write_text(test.read_text() + "one,9\nlonely\n", encoding="utf-8")
    result = run("tasks", "--check", "films")
    assert result.exit_code == 2
    assert [re.sub(r"^.*/", "", line.partition(": ")[0]) for line in result.stdout.splitlines()] == [
        "test.csv:32", "test.csv:33"
    ]  # fmt: skip
    assert json.loads(run("tasks", "--check", "films", "--json").stdout)["tasks"] == []
    shutil.rmtree(films / "tasks")
    assert "no task 'my'" in run("tasks", "--check", "films").stdout


def test_a_task_elsewhere_is_evaluated_and_ranked(films: Path, tmp_path: Path) -> None:
    """`--tasks DIR`, for every command that takes a track, or once in the environment."""
    shutil.move(films / "tasks", tmp_path / "others")
    where = ["--track", films / "track.toml", "--tasks", tmp_path / "others"]
    assert "no task 'my'" in refused("tasks", *where[:2])
    assert "dull=bad, fine=great" in done("tasks", *where)
    write_submission(tmp_path, "tune = search", "solver")
    assert len(done("plan", "solver", *where).splitlines()) == 2
    done("evaluate", "solver", *where)
    assert "solver is the only complete entry" in done("leaderboard", *where)
    assert "ok; digest" in done("audit")
    assert "labels of 1 compared" in done("audit", *where)
    result = CliRunner().invoke(app, ["leaderboard", *map(str, where[:2])], env={"HARNESS_TASKS": str(where[3])})
    assert "solver is the only complete entry" in result.stdout


def test_data_inside_a_submission_are_refused(films: Path, tmp_path: Path) -> None:
    """A worker may read all of its own folder, and with it the labels."""
    place = write_submission(tmp_path, "tune = search", "solver")
    shutil.move(films, place / "films")
    result = run("evaluate", "solver", "--track", place / "films")
    assert result.exit_code == 1
    assert "holds data of the track" in " ".join(f"{result.stderr} {result.exception}".split())
    assert Store("results/harness.db").runs() == []


# ── while it is open ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_scores_are_kept_back_until_the_end_and_the_organiser_sees_them(films: Path, tmp_path: Path) -> None:
    path = films / "track.toml"  # six splits are too few for ranks
    path.write_text(path.read_text(encoding="utf-8").replace("splits = [1, 2]", "splits = [1, 2, 3, 4, 5, 6, 7]"))
    for name, right in (("good", 25), ("bad", 15)):
        finished(films, name, right)
    open_until(films)
    public = done("leaderboard", "--track", "films")
    assert "scores are kept back until then" in public
    assert "1  good" in public
    assert not re.search(r"\d\d\.\d", public)
    assert not (tmp_path / "leaderboard").exists()
    for form in (["--json"], ["--format", "csv"]):
        record = json.loads(done("leaderboard", "--track", "films", *form))
        assert set(record) == {"track", "competition", "entries", "ranks"}
        assert record["ranks"][0]["ranks"]["good"] == 1
    assert "83.3" in done("leaderboard", "--track", "films", "--organiser")
    for command in (["compare", "good", "bad"], ["report", "--out", "site"]):
        assert "scores on track films are kept back until the competition closes" in refused(
            *command, "--track", "films"
        )
    assert "good" in done("compare", "good", "bad", "--track", "films", "--organiser")
    open_until(films, public="nothing")
    assert "good" not in done("leaderboard", "--track", "films")
    open_until(films, closes="2020-01-01T00:00:00Z")
    closed = done("leaderboard", "--track", "films")
    assert "competition: closed since 2020-01-01 00:00 UTC" in closed
    assert "83.3" in closed


def test_archives_are_taken_while_it_is_open_so_many_a_day(films: Path, tmp_path: Path) -> None:
    open_until(films, more="attempts_per_day = 2")
    score = ["score", "--track", "films", "--team"]
    first, second, third = (archive(tmp_path / f"p{n}.zip", n) for n in range(3))
    for path in (first, second, first):  # the same archive again is no attempt
        said = done(*score, "alice", path)
        assert "1 file scored; competition: open until" in said
        assert "accuracy" not in said
    assert "team alice has had 2 attempts today" in refused(*score, "alice", third)
    assert "score" not in json.loads(done(*score, "bob", third, "--json"))["cells"][0]
    assert json.loads(done(*score, "bob", third, "--json", "--organiser"))["cells"][0]["score"] >= 0
    usage = {row["team"]: row for row in json.loads(done("leaderboard", "--track", "films", "--usage", "--json"))}
    assert {team: (row["uploads"], row["today"], row["runs"]) for team, row in usage.items()} == {
        "alice": (2, 2, 0), "bob": (1, 1, 0)
    }  # fmt: skip
    assert "alice" in done("leaderboard", "--track", "films", "--usage")
    open_until(films, closes="2020-01-01T00:00:00Z")
    assert "the competition closed at 2020-01-01 00:00 UTC; nothing is scored" in refused(*score, "carol", third)
    open_until(films, more="opens = 9998-01-01T00:00:00Z")
    assert "the competition opens at 9998-01-01 00:00 UTC" in refused(*score, "carol", third)


def test_the_book_of_the_service_tells_its_usage(films: Path) -> None:
    assert "no such book" in refused("serve", "--usage")
    assert done("serve", "--new-token", "alice2", "--team", "alice").startswith("alice2.")
    assert "--team" in refused("serve", "--new-token", "bob2", "--team", "no/team")
    assert "alice2  of team alice, the track's budget, unused" in done("serve", "--tokens")
    assert "nothing was asked yet; results/service.db has 1 token" in done("serve", "--usage")


# ── a label was wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_label_is_corrected_without_a_run(films: Path, tmp_path: Path) -> None:
    finished(films, "solver", 20)
    shutil.copytree(films, tmp_path / "fixed")
    test = tmp_path / "fixed" / "tasks" / "my" / "test.csv"
    lines = test.read_text(encoding="utf-8").splitlines()
    flipped = [f"{line[:-1]}{1 - int(line[-1])}" if 1 <= n <= 3 else line for n, line in enumerate(lines)]
    test.write_text("\n".join(flipped) + "\n", encoding="utf-8")
    rescore = ["rescore", "--track", "films", "--data", "fixed"]
    assert "my: 3 labels of 30 change" in done(*rescore, "--dry-run")
    assert "--reason has 0 characters" in refused(*rescore)
    record = json.loads(done(*rescore, "--reason", "they were wrong", "--json"))
    assert (record["changed"][0]["rows"], record["stored"]) == ([0, 1, 2], True)
    assert (record["before"], record["after"]) == ({"solver": 0.6667}, {"solver": 0.5667})
    assert "no label differs from those in force" in done(*rescore, "--reason", "again")
    now, then = (
        json.loads(done("leaderboard", "--track", "films", "--json", "--labels", which))
        for which in ("corrected", "original")
    )
    assert (now["entries"][0]["average"], then["entries"][0]["average"]) == (0.5667, 0.6667)
    assert "3 labels of 30 corrected" in now["labels"][0]
    assert "the labels on which the runs were scored" in then["labels"][0]
    assert "--labels 9: corrected, original or the id of a correction" in refused(
        "leaderboard", "--track", "films", "--labels", "9"
    )
    assert "1 correction" in done("audit", "--track", "films")
    assert "--data nowhere: no such directory" in refused("rescore", "--track", "films", "--data", "nowhere")
    assert "has no test set of my" in refused("rescore", "--track", "films", "--data", "results")
