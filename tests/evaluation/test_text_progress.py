"""While the answers of a text task write, whoever evaluates is told how far they are; a GGUF file is read silently."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
import tiny_causal
from evaluating import Watcher
from rich.console import Console

from harness.contract import Answer
from harness.errors import ModelError
from harness.evaluation import progress as shown
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.progress import JsonProgress, PlainProgress
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import write
from harness.lm.load import load_model
from harness.lm.packages import located
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.examples import load_test
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TWO = """
from dataclasses import dataclass
from harness import Answer, Member


@dataclass(frozen=True)
class Config:
    pass


def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    while True:
        lm.score(None, shots.train.texts, task.targets(shots.train))
        yield Answer((Member("{a} So", ()),))
"""


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal.write_track(tmp_path_factory.mktemp("text"))


class Notes(Watcher):
    """Keeps what is told of test texts."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[float, float]] = []

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """See `harness.evaluation.run.Progress`."""
        if "texts" in note:
            self.told.append((note["written"], note["texts"]))


def test_it_is_told_how_many_test_texts_are_written(track: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "submission.py").write_text(TWO, encoding="utf-8")
    store, notes = Store(str(tmp_path / "r.db")), Notes()
    Evaluation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,)), store).run(
        find(tmp_path / "two"), {}, notes
    )
    store.close()
    written = [count for count, _ in notes.told]
    assert {texts for _, texts in notes.told} == {480}, "two answers that differ, 240 texts each"
    assert written == sorted(written)
    assert (written[0], written[-1]) == (0, 480)
    assert 240 in written


def test_the_count_is_of_texts_that_have_ended(track: Path) -> None:
    cell = Preparation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,))).cells[0]
    lm = load_model(load_track(str(track)).model, load_track(str(track)).prompt)
    told: list[tuple[int, int]] = []
    texts = load_test(cell.file, cell.source).texts[:20]
    outputs = write(Answer.of(cell.task), cell.task, lm, texts, lambda *of: told.append(of))  # type: ignore[arg-type]
    assert len(outputs) == 20
    assert told[0] == (0, 20)
    assert told[-1] == (20, 20)


def test_lines_come_twice_a_minute_and_not_for_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, lines = io.StringIO(), io.StringIO()
    both = (PlainProgress(Console(file=plain, width=100)), JsonProgress(Console(file=lines, width=100)))
    now = 0.0
    monkeypatch.setattr(shown.time, "monotonic", lambda: now)
    for second in range(0, 100, 5):
        now = float(second)
        for each in both:
            each.spent(7, {"loss": 1.0})
            each.spent(7, {"written": second, "texts": 480})
    assert plain.getvalue().split("\n")[:-1] == [f"  {count} of 480 test texts written" for count in (30, 60, 90)]
    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(each["event"], each["written"], each["texts"]) for each in events] == [
        ("writing", count, 480) for count in (30, 60, 90)
    ]


@pytest.mark.slow
def test_a_gguf_file_is_read_without_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    made = load_track("mini-text")
    pytest.importorskip("gguf")
    try:
        located(made.model.source)
    except ModelError as problem:
        pytest.skip(str(problem))
    load_model(made.model, made.prompt)
    printed = capfd.readouterr()
    assert "Converting" not in printed.out + printed.err
