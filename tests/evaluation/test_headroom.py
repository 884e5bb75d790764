"""Headroom: signals of two calls, forecasts with intervals that hold, and when it cannot tell."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness import Examples, Shots
from harness.blackbox.fake import fake_shots, fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.cli import app
from harness.cli.console import print_json
from harness.errors import InputError
from harness.evaluation.headroom import COVERAGE, Point, Signals, forecast, read_points, residuals, signals, validate

if TYPE_CHECKING:
    from pathlib import Path

POINTS = read_points()


def made_up(slope: float, noise: float, tasks: int = 6, splits: int = 5, seed: int = 0) -> list[Point]:
    """Cells in which tuning adds a multiple of what a lean hides."""
    rng = np.random.default_rng(seed)
    found = []
    for task in range(tasks):
        for split in range(splits):
            bare, hidden = rng.uniform(0.4, 0.7), rng.uniform(0, 0.3)
            gain = slope * hidden + noise * rng.standard_normal()
            found.append(Point("m", "t", f"task{task}", split, Signals(bare, bare + hidden, 64), gain, 3))
    return found


class Leaning:
    """A model that is right up to a lean to class 0, and counts its calls."""

    def __init__(self, lean: float) -> None:
        self.lean, self.calls, self.labels = lean, 0, dict[Any, int]()

    def single_ids(self, words: Any) -> Any:
        """Ids."""
        return tuple(range(len(words)))

    def text_set(self, _template: str, texts: Any, _mode: Any = None) -> Any:
        """Texts."""
        return texts

    def forward(self, prompts: Any, texts: Any, words: Any) -> Any:
        """Evidence of 1 for the label, and the lean."""
        assert prompts is None
        self.calls += 1
        q = np.eye(len(words))[[self.labels[text] for text in texts]] + self.lean * np.eye(len(words))[0]
        return dataclasses.make_dataclass("Out", ["logits"])(q[None])


def shots() -> Shots:
    labels = np.array([0, 1] * 8)
    train = Examples(tuple((f"a{n}",) for n in range(16)), labels)
    return Shots(train, Examples(tuple((f"b{n}",) for n in range(16)), labels))


@pytest.mark.parametrize(("lean", "bare"), [(0.0, 1.0), (5.0, 0.5)])
def test_centring_finds_what_a_lean_hides_in_two_calls(lean: float, bare: float) -> None:
    lm, few = Leaning(lean), shots()
    lm.labels = {
        text: int(label) for part in (few.train, few.dev) for text, label in zip(part.texts, part.labels, strict=True)
    }
    found = signals(lm, fake_task(2), few)  # type: ignore[arg-type]
    assert found == Signals(pytest.approx(bare), pytest.approx(1.0), 32)
    assert lm.calls == 2


def test_any_model_of_the_harness_can_be_asked() -> None:
    task = fake_task(3)
    few = fake_shots(task, np.random.default_rng(0))
    found = signals(FakeLanguageModel(task), task, few)  # type: ignore[arg-type]
    assert 0 <= found.bare <= 1
    assert found.texts == len(few.train) + len(few.dev)


def test_a_clear_relation_is_told_with_a_narrow_interval() -> None:
    points = made_up(slope=0.8, noise=0.005)
    told = forecast(points, Signals(0.5, 0.7, 64), "m")
    assert told.gain == pytest.approx(0.16, abs=0.02)
    assert told.high - told.low < 0.06
    assert told.verdict == "yes"
    none = forecast(made_up(slope=-0.8, noise=0.005), Signals(0.5, 0.7, 64), "m")
    assert none.verdict == "no"


def test_without_a_relation_it_cannot_tell() -> None:
    told = forecast(made_up(slope=0.0, noise=0.1), Signals(0.5, 0.6, 64), "m")
    assert told.low < 0 < told.high
    assert told.verdict == "cannot tell"
    assert not told.doubt


def test_it_cannot_tell_of_what_was_never_measured() -> None:
    points = made_up(slope=0.8, noise=0.005)
    other = forecast(points, Signals(0.5, 0.7, 64), "another model")
    assert (other.verdict, "measured cells are of m" in other.doubt) == ("cannot tell", True)
    far = forecast(points, Signals(0.3, 0.9, 64), "m")
    assert far.verdict == "cannot tell"
    assert "centring adds 60.0 points" in far.doubt
    for few in ([], points[:5], points[:10]):
        told = forecast(few, Signals(0.5, 0.7, 64), "m")
        assert told.verdict == "cannot tell"
        assert math.isinf(told.high - told.low)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), noise=st.floats(0.01, 0.2))
def test_residuals_never_see_their_task(seed: int, noise: float) -> None:
    """Changing a task's gains by a constant changes its own residuals by that, as its fit had not seen them."""
    points = made_up(0.5, noise, seed=seed)
    moved = [dataclasses.replace(p, gain=p.gain + 1) if p.task == "task0" else p for p in points]
    before, after = residuals(points)["task0"], residuals(moved)["task0"]
    np.testing.assert_allclose(np.array(after) - before, 1.0, atol=1e-9)


def test_the_interval_covers_what_it_says_on_tasks_that_it_has_not_seen() -> None:
    """Over many made-up competitions; each has 6 tasks of 5 cells."""
    covered = cells = 0
    for seed in range(40):
        points, new = made_up(0.6, 0.05, seed=seed), made_up(0.6, 0.05, seed=1000 + seed)
        told = [forecast(points, each.signals, "m") for each in new]
        covered += sum(f.low <= each.gain <= f.high for each, f in zip(new, told, strict=True))
        cells += len(new)
    assert COVERAGE - 0.03 < covered / cells < 0.97


def test_on_the_measured_cells_it_beats_the_mean_and_its_interval_holds() -> None:
    """What docs/endpoints.md says of the file that ships."""
    found = validate(POINTS)
    cells = sum(each.cells for each in found)
    assert cells == len(POINTS) >= 15
    error, constant = (
        sum(each.cells * getattr(each, name) for each in found) / cells for name in ("error", "constant")
    )
    assert error < 0.85 * constant
    assert sum(each.covered for each in found) / cells >= COVERAGE - 0.05
    assert all(each.right == each.told for each in found)


def test_the_command_validates_and_tells(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["headroom", "--validate"])
    assert shown.exit_code == 0, shown.output
    assert "in the interval" in shown.output
    told = CliRunner().invoke(app, ["headroom", "--task", "sst2", "--split", "1", "--json"])
    assert told.exit_code == 0, told.output
    (cell,) = json.loads(told.output)["cells"]
    assert cell["low"] < cell["gain"] < cell["high"]
    own = next(each for each in POINTS if (each.track, each.task, each.split) == ("mini", "sst2", 1))
    assert cell["bare"] == pytest.approx(own.signals.bare, abs=0.05)
    missing = CliRunner().invoke(app, ["headroom", "--measured", str(tmp_path / "none.csv")])
    assert missing.exit_code != 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,track\nm,t\n", "2 is no file of measured cells: no column 'bare'"),
        ("model,track,task,split,bare,centred,texts,gain,entries\nm,t,a,1,x,0.5,64,0.1,3\n", "could not convert"),
        ("model,track,task,split,bare,centred,texts,gain,entries\nm,t,a,1,0.5,0.5,64,nan,3\n", "is not finite"),
        ("model,track,task,split,bare,centred,texts,gain,entries\n", "no measured cell"),
    ],
)
def test_a_file_of_measured_cells_that_is_none_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text, encoding="utf-8")
    told = CliRunner().invoke(app, ["headroom", "--validate", "--measured", str(path)])
    assert isinstance(told.exception, InputError)
    assert said in str(told.exception)


def test_one_measured_task_foretells_nothing_and_an_endless_interval_is_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "model,track,task,split,bare,centred,texts,gain,entries\nm,t,a,1,0.5,0.6,64,0.1,3\nm,t,a,2,0.5,0.6,64,0.2,3\n",
        encoding="utf-8",
    )
    told = CliRunner().invoke(app, ["headroom", "--validate", "--measured", str(path)])
    assert "measured cells are of one task" in str(told.exception)
    found = forecast(read_points(path), Signals(0.5, 0.6, 64), "m")
    assert found.verdict == "cannot tell"
    print_json(dataclasses.asdict(found))
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (shown["low"], shown["high"]) == (None, None)


def test_each_cell_s_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that of the first one was."""
    path = tmp_path / "own.csv"
    lines = [f"minilm,t,{task},1,0.5,0.6,64,0.1,3" for task in "abcdefghijkl"]
    path.write_text("model,track,task,split,bare,centred,texts,gain,entries\n" + "\n".join(lines), encoding="utf-8")
    found = iter([Signals(0.5, 0.6, 64), Signals(0.5, 0.9, 64)])
    monkeypatch.setattr("harness.evaluation.headroom.signals", lambda *_: next(found))
    words = ["headroom", "--measured", str(path), "--task", "sst2", "--split", "1", "--split", "2"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    reasons = [line for line in told.stderr.splitlines() if line.startswith("why it cannot tell")]
    assert len(reasons) == 2
    assert all("this is" in line for line in reasons)
    assert "why it cannot tell on sst2/2: " in told.stderr
    assert "centring adds 40.0 points" in told.stderr
