"""A text task in the report: outputs beside references, escaped and cut, and nothing that needs classes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.leaderboard.rank import rank
from harness.leaderboard.report import written as page
from harness.leaderboard.report.build import build
from harness.results.outputs import Outputs
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.solving.metrics import TEXT_SCALE
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

ATTACK = "<script>alert(1)</script>"


def fill(store: Store) -> None:
    """Two entries with all cells of `mini-text`; their outputs are made up."""
    track = load_track("mini-text")
    for number, entry in enumerate(("first", "second")):
        named = key(entry, track=track.name, track_fingerprint=track.fingerprint, rules=track.rules)
        run = store.open_run(named, {"packages": {}})
        for task, split in track.planned:
            test = load_test(load_task(task), Source("embedded"))
            outputs = tuple(f"{ATTACK} {n}" if n else "word " * 400 for n in range(len(test)))
            scores = np.random.default_rng([number, split]).integers(0, TEXT_SCALE + 1, len(test))
            kept = [KeptAnswer(mark, 10, b"answer", scores, outputs) for mark in (0.5, 1.0)]
            record = CellRecord(
                metric="chrf", rows_total=100, rows_spent=100, train_rows=16, calls_total=6, sandbox="A",
                outputs=Outputs.of((each.mark, each.outputs) for each in kept), marks=(0.5, 1.0),
            )  # fmt: skip
            attempt = store.begin(run, task, split)
            assert attempt.finish("ok", record, examples_sha256(test), test.labels, kept)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Store(str(tmp_path_factory.mktemp("written") / "results.db"))
    fill(made)
    yield made
    made.close()


def test_an_answer_at_two_marks_is_stored_once(store: Store) -> None:
    for cell in store.cells(store.runs()[0].id):
        assert cell.record.outputs is not None
        assert len(cell.record.outputs.texts) == 1
        assert cell.record.outputs.at(0.5) == cell.record.outputs.at(1.0)
        assert cell.record.outputs.at(0.1) is None


def test_a_page_shows_outputs_evenly_over_their_scores(store: Store) -> None:
    track = load_track("mini-text")
    ranking = rank(store, track.name, track.fingerprint, track.planned, track.ranks)
    entry = ranking.entries[0]
    test = load_test(load_task("plain"), Source("embedded"))

    @dataclasses.dataclass(frozen=True)
    class Facts:
        file: Any
        test: Any

    found = page.written(Facts(load_task("plain"), test), entry.cells)  # type: ignore[arg-type]
    assert found is not None
    scores = [row.score for row in found["rows"]]
    assert len(scores) == page.MOST_SHOWN
    assert scores == sorted(scores)
    assert all(row.texts == test.texts[row.number - 1] for row in found["rows"])
    hidden = page.written(Facts(load_task("plain"), None), entry.cells)  # type: ignore[arg-type]
    assert hidden is not None
    assert not any(row.texts or row.references for row in hidden["rows"])
    assert len(page.shown("a" * 1000)) == page.LONGEST_SHOWN + 1


def test_the_site_of_a_text_track_is_built_and_escapes_what_was_written(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    site = build(store, load_track("mini-text"), tmp_path / "site", Source("embedded"), tmp_path).path
    entries = list((site / "submissions").glob("*.html"))
    assert len(entries) == 2
    for path in entries:
        text = path.read_text(encoding="utf-8")
        assert "What it wrote" in text
        assert "&lt;script&gt;alert(1)" in text
        assert ATTACK not in text
        assert "Confusion" not in text
    task = (site / "tasks" / "plain.html").read_text(encoding="utf-8")
    assert "answered by text" in task
    assert "Label word" not in task
