"""A policy is evaluated like an entry: its points, the attack behind it, and one chart."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import outer_models
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import InputError
from harness.leaks.chart import draw
from harness.leaks.solvers import solver

HEADS = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    lm.outputs(None, shots.train.texts)
"""


def test_a_solver_is_a_folder_and_options() -> None:
    assert solver("submissions/house:search=false").name == "house[search=false]"
    assert solver("manual").name == "manual"
    with pytest.raises(InputError, match="'search' has no value"):
        solver("house:search")
    with pytest.raises(InputError):
        solver("nosuchsolver")


def test_points_are_set_against_leakage(tmp_path: Path, tiny_track: Path) -> None:
    heads = outer_models.write_submission(tmp_path, HEADS, "heads")
    words, rank = tmp_path / "words.toml", tmp_path / "rank.toml"
    words.write_text('words = "task"\nhidden_states = false\n', encoding="utf-8")
    rank.write_text("most_rank = 8\n", encoding="utf-8")
    asked = [
        *("leaks", "--policy", str(words), "--policy", str(rank), "--track", str(tiny_track), "--task", "sst2"),
        *("--solver", str(heads), "--solver", "submissions/manual", "--store", str(tmp_path / "leaks.db")),
    ]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "policies.csv").open(encoding="utf-8") as stream:
        rows = {(row["policy"], row["solver"]): row for row in csv.DictReader(stream)}
    assert set(rows) == {(p, s) for p in ("none", "words", "rank") for s in ("heads", "manual")}
    assert rows["words", "heads"]["failed_cells"] == "2"
    assert rows["rank", "heads"]["failed_cells"] == "0"
    assert float(rows["words", "manual"]["lost"]) == 0
    known = {policy: float(rows[policy, "manual"]["share_of_last_layer"]) for policy in ("none", "words", "rank")}
    assert known["none"] > 0.9
    assert 0 < known["words"] <= 1 / 16
    assert 0.2 < known["rank"] <= 8 / 16
    assert "none of the task's 2 label words" in rows["words", "manual"]["refused"]
    assert "8 are allowed" in rows["rank", "manual"]["refused"]
    picture = (tmp_path / "out" / "policies.svg").read_bytes()
    assert b"points lost" in picture
    assert b"rank" in picture
    some = CliRunner().invoke(app, [*asked, "--split", "1", "--json"])
    assert some.exit_code == 0, some.output
    fewer = json.loads(some.stdout)["policies"]
    assert {row["cells"] for row in fewer} == {1}, "other cells of the same runs do not count"
    assert {row["failed_cells"] for row in fewer if (row["policy"], row["solver"]) == ("words", "heads")} == {1}


def test_the_stored_answers_of_every_entry_are_attacked(tmp_path: Path, tiny_track: Path) -> None:
    heads = outer_models.write_submission(tmp_path, HEADS, "heads")
    three = tmp_path / "tiny.toml"
    three.write_text(tiny_track.read_text(encoding="utf-8").replace("splits = [1, 2]", "splits = [1, 2, 3]"), "utf-8")
    place = ["--track", str(three), "--task", "sst2", "--store", str(tmp_path / "results.db")]
    for each in (heads, "submissions/manual"):
        done = CliRunner().invoke(app, ["evaluate", str(each), *place])
        assert done.exit_code == 0, done.output
    asked = ["leaks", "membership", "--entries", *place]
    told = CliRunner().invoke(app, [*asked, "--json"])
    assert told.exit_code == 0, told.output
    rows = json.loads(told.stdout)["membership"]
    assert {(row["entry"], row["members"]) for row in rows} == {
        (entry, part) for entry in ("heads", "manual") for part in ("train", "dev")
    }
    assert {row["auc"] for row in rows} == {0.5}, "an answer that was not tuned tells nothing"
    shown = CliRunner().invoke(app, asked)
    assert "chance is" in shown.output
    table = CliRunner().invoke(app, ["leaks", "stored", *place, "--json"])
    assert {row["members_auc"] for row in json.loads(table.stdout)["stored"]} == {0.5}
    audited = CliRunner().invoke(app, ["audit", "--store", str(tmp_path / "results.db")])
    assert audited.exit_code == 0, audited.output
    assert "4 observations" in audited.output
    both = CliRunner().invoke(app, [*asked, "--solver", "manual"])
    assert both.exit_code == 1
    assert "--entries goes with membership alone" in str(both.exception)
    one = CliRunner().invoke(app, [*asked, "--split", "1", "--split", "2"])
    assert one.exit_code == 1
    assert "has answers on 2 of a task's splits" in " ".join(one.output.split()) + str(one.exception)


def test_the_chart_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    rows = [
        {"policy": p, "solver": s, "lost": x, "lost_low": x - 0.01, "lost_high": x + 0.02, "prevented": y}
        for p, s, x, y in (("words", "manual", 0.0, 0.99), ("words", "dect", 0.2, 0.99), ("rank", "dect", 0.01, 0.4))
    ]
    none = [{"policy": "none", "solver": "manual", "lost": None, "lost_low": None, "lost_high": None, "prevented": 0.0}]
    draw(none + rows, tmp_path / "a.svg")
    draw(none + rows, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_policy_that_is_none_is_told(tmp_path: Path, tiny_track: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("digits = 2\n", encoding="utf-8")
    asked = ["leaks", "--track", str(tiny_track), "--store", str(tmp_path / "x.db"), "--policy"]
    done = CliRunner().invoke(app, [*asked, str(bad)])
    assert isinstance(done.exception, InputError)
    assert "bad.toml:1: digits keeps logits back" in str(done.exception)
    twice = CliRunner().invoke(app, [*asked, str(bad), "--policy", str(bad)])
    assert "a file name of its own" in str(twice.exception)
    bad.write_text('[defences]\nwords = "task"\n', encoding="utf-8")
    headed = CliRunner().invoke(app, [*asked, str(bad)])
    assert "leave the heading [defences] out" in str(headed.exception)
    alone = CliRunner().invoke(app, ["leaks", "--solver", "manual"])
    assert "--solver goes with behaviour, membership and --policy" in str(alone.exception)


def test_a_chart_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves the older one and nothing beside it; a path that is a folder is told."""
    path = tmp_path / "policies.svg"
    draw([], path)
    before = path.read_bytes()
    assert before.endswith(b"</svg>\n")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            draw([], path)
    assert [each.name for each in tmp_path.iterdir()] == ["policies.svg"]
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        draw([], tmp_path)
