"""Presets, metrics of a track, repeats, logs and ablations, in whole evaluations on a tiny model."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from outer_models import Arena, write_submission

from harness import cli
from harness.errors import SubmissionError
from harness.leaderboard.frames import cells, ranking
from harness.leaderboard.rank import score_cell
from harness.results.audit import audit
from harness.results.store import Store
from harness.solving.metrics import macro_f1

if TYPE_CHECKING:
    from pathlib import Path

LOGS = """
def tune(lm, task, shots, rng, config):
    for answer in search(lm, task, shots, rng, config):
        lm.log(loss=config.step, sigma=2.0)
        yield answer
"""
PRESETS = """
[small]
about = "made up"
calls = 4
options = { step = 2 }
tasks.qqp = { step = 3 }
"""


def typed(*words: Any) -> None:
    """Type a command, which must end well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["harness", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code in {0, None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A submission with a preset."""
    made = write_submission(tmp_path, LOGS, "logs")
    (made / "presets.toml").write_text(PRESETS, encoding="utf-8")
    return made


def test_a_preset_reaches_every_cell_and_the_entrys_name(folder: Path, tiny_track: Path, tmp_path: Path) -> None:
    """Its options task by task, its budget, and what was logged; the same command then has nothing to do."""
    where = tmp_path / "r.db"
    command = ("evaluate", folder, "--track", tiny_track, "--store", where, "--config", "preset=small")
    typed(*command)
    typed(*command)
    store = Store(str(where))
    (run,) = store.runs()
    assert run.key.entry == "logs[preset=small]"
    assert not run.key.modified
    for cell in store.cells(run.id):
        record = cell.record
        assert record.config["step"] == {"sst2": 2.0, "qqp": 3.0}[cell.task]
        assert record.calls_total == 4
        assert record.rows_spent == 4 * record.train_rows
        assert record.log[-1] == (record.rows_spent, {"loss": record.config["step"], "sigma": 2.0})
    assert not audit(store).findings
    store.close()


def test_what_cannot_be_logged_is_refused_at_the_authors_line(arena: Arena) -> None:
    """And nothing else of the run is lost."""
    body = """
    def tune(lm, task, shots, rng, config):
        yield Answer.of(task)
        for numbers in ({}, {"loss": float("nan")}, {f"n{k}": 1.0 for k in range(17)}):
            try:
                lm.log(**numbers)
            except QueryError:
                lm.log(refused=1.0)
    """
    run = arena.run(body)
    assert run.status == "ok"
    assert run.record.log == ((0, {"refused": 1.0}),) * 3


def test_an_unknown_preset_is_refused_before_anything_runs(arena: Arena) -> None:
    """With those that there are."""
    (arena.submission("tune = search") / "presets.toml").write_text(PRESETS, encoding="utf-8")
    with pytest.raises(SubmissionError, match=r"no preset 'large'; there are small \(made up\)"):
        arena.run("tune = search", {"preset": "large"})


def test_a_tracks_metric_is_what_its_cells_are_scored_by(folder: Path, tiny_track: Path, tmp_path: Path) -> None:
    """In the store, the ranking and the audit; accuracy is known beside it."""
    text = tiny_track.read_text(encoding="utf-8").replace('"tiny"', '"mine"')
    text = text.replace("calls = 10", 'calls = 4\nmetric = "macro_f1"', 1)
    track, where = tmp_path / "mine.toml", tmp_path / "r.db"
    track.write_text(text, encoding="utf-8")
    typed("evaluate", folder, "--track", track, "--store", where, "--task", "sst2", "--split", "1")
    store = Store(str(where))
    (stored,) = store.cells(store.runs()[0].id)
    assert stored.record.metric == "macro_f1"
    scored = score_cell(stored)
    assert scored.score == pytest.approx(float(macro_f1(stored.predictions[1.0], stored.labels, 2)))
    assert scored.accuracy == pytest.approx(float((stored.predictions[1.0] == stored.labels).mean()))
    (row,) = cells(store).to_dict("records")
    assert (row["metric"], row["accuracy"]) == ("macro_f1", scored.accuracy)
    assert audit(store).cells[0].scores[1.0] == pytest.approx(scored.score)
    store.close()


def test_repeats_have_other_chance_and_count_together(folder: Path, tiny_track: Path, tmp_path: Path) -> None:
    """The first is the run that there would be without."""
    where = tmp_path / "r.db"
    typed("evaluate", folder, "--track", tiny_track, "--store", where)
    typed("evaluate", folder, "--track", tiny_track, "--store", where, "--repeats", "3")
    store = Store(str(where))
    runs = store.runs()
    assert [run.key.repeat for run in runs] == [0, 1, 2]
    seeds = {cell.record.seed for run in runs for cell in store.cells(run.id)}
    assert len(seeds) == 9
    (row,) = ranking(str(tiny_track), store).to_dict("records")
    own = [score_cell(cell) for run in runs for cell in store.cells(run.id) if cell.task == "sst2"]
    assert row["sst2"] == pytest.approx(sum(cell.score for cell in own) / len(own), abs=1e-4)
    store.close()


def test_an_ablation_is_one_command_with_a_table_and_figures(folder: Path, tiny_track: Path, tmp_path: Path) -> None:
    """Resumable: the second time nothing runs."""
    pytest.importorskip("matplotlib", reason='needs pip install -e ".[report]"')
    where, out = tmp_path / "r.db", tmp_path / "out"
    command = ("ablate", folder, "--vary", "step=1,2", "--vary", "calls=4,6", "--track", tiny_track, "--out", out)
    for _ in range(2):
        typed(*command, "--store", where, "--repeats", "2")
    store = Store(str(where))
    assert len(store.runs()) == 8
    store.close()
    made = out / "logs-tiny"
    with (made / "ablation.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["option"], row["value"]) for row in rows] == [
        ("step", "1"), ("step", "2"), ("calls", "4"), ("calls", "6"),
    ]  # fmt: skip
    assert all(float(row["average_low"]) <= float(row["average"]) <= float(row["average_high"]) for row in rows)
    assert [row["against_first"] != "" for row in rows] == [False, True, False, True]
    names = {path.name for path in made.glob("*.svg")}
    assert {"step.svg", "step-sst2-convergence.svg", "calls.svg", "calls-qqp-convergence.svg"} <= names
    assert not [path for path in made.glob("*.svg") if "mathdefault" in path.read_text(encoding="utf-8")]


BREAKS = """
def tune(lm, task, shots, rng, config):
    if config.step == 2:
        raise RuntimeError("no such step")
    yield Answer.of(task)
"""


def test_an_ablation_in_json_is_json_alone_and_says_what_failed(
    tiny_track: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A value that crashes has the majority class's score, which is no result of it."""
    folder = write_submission(tmp_path, BREAKS, "breaks")
    command = ("ablate", folder, "--vary", "step=1,2", "--track", tiny_track, "--out", tmp_path / "out", "--json")
    typed(*command, "--store", tmp_path / "r.db", "--task", "sst2")
    shown = capfd.readouterr()
    rows = json.loads(shown.out)
    assert [(row["value"], row["failed"]) for row in rows] == [("1", 0), ("2", 2)]
    assert "cells failed, and count as such: step=2 (2); see: harness log breaks" in " ".join(shown.err.split())
    typed(*command[:-1], "--store", tmp_path / "r.db", "--task", "sst2")
    assert "failed" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("vary", "says"),
    [("step", "NAME=V1"), ("step=", "NAME=V1"), ("calls=x", "positive numbers"), ("stop=1,2", "no option 'stop'")],
)
def test_what_cannot_be_varied_is_told(
    folder: Path, tiny_track: Path, vary: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["harness", "ablate", str(folder), "--vary", vary, "--track", str(tiny_track)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code == 2
    assert says in capsys.readouterr().err.replace("\n", " ")
