"""Losses of text tasks beside their scores: the rows, what a page says of them, and the answers that are asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_causal
from evaluating import Watcher
from made_up import key

from harness.contract import TextTask
from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.evaluation.text_white_box import TextWhiteBox
from harness.results.packed import pack
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.examples import load_shots
from harness.tracks.track import load_track
from tools.make_results import main as make_results
from tools.measured import measure
from tools.results_page import page, table
from tools.text_losses import Asker
from tools.text_losses import main as text_losses
from tools.text_section import Row, read, section, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.results.records import StoredCell

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"


def rows(losses: Sequence[float], scores: Sequence[float], task: str = "plain", split: int = 1) -> list[Row]:
    return [
        Row(f"run{n}", f"entry{n}", task, split, loss, loss + 0.5, score, 0.5)
        for n, (loss, score) in enumerate(zip(losses, scores, strict=True))
    ]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = rows([1.0, 2.25], [0.5, 0.125])
    write(tmp_path / "a" / "rows.csv", reversed(made))
    assert read(tmp_path / "a" / "rows.csv") == made


def test_if_the_order_by_loss_is_that_by_score_the_correlation_is_one() -> None:
    text = section(rows([1.0, 2.0, 3.5], [0.9, 0.5, 0.2]) + rows([3, 1, 2], [0.1, 0.3, 0.2], "reply"), table)
    assert "| loss on train | 2 | 1.00 |" in text
    more = section([row for n in (1, 2, 3) for row in rows([1.0, 2.0, 3.5], [0.9, 0.5, 0.2], split=n)], table)
    assert "| loss on dev | 3 | 1.00 [1.00, 1.00] |" in more
    assert "| 1 or more | 6 | 100.0% |" in text
    assert "| `entry0` | 1.00 | 1.50 | 90.0 | 50.0 | 1 |" in text
    assert text.index("### plain") < text.index("### reply")


def test_if_less_loss_is_worse_the_page_says_so() -> None:
    text = section(rows([1.0, 1.05, 1.25], [0.1, 0.2, 0.3]), table)
    assert "| loss on train | 1 | -1.00 |" in text
    assert "| 0 to 0.1 | 1 | 0.0% |" in text
    assert "| 0.1 to 0.3 | 2 | 0.0% |" in text


def test_cells_with_too_few_entries_and_ties_are_not_counted_as_an_order() -> None:
    text = section(rows([1.0, 2.0], [0.1, 0.2]) + rows([1.0, 3.0, 3.0], [0.2, 0.2, 0.2], "reply"), table)
    assert "rank correlation |\n| --- | --- | --- |\n\n" in text  # no cell has an order
    assert "| 1 or more | 3 | 33.3% |" in text


@pytest.fixture(scope="module")
def measured_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path, Evaluation]:
    folder = tmp_path_factory.mktemp("losses")
    track = tiny_causal.write_track(folder)
    store = Store(str(folder / "results.db"))
    evaluation = Evaluation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,), white_box=True), store)
    evaluation.run(find(SUBMISSIONS / "manual"), {}, Watcher())
    evaluation.run(find(SUBMISSIONS / "lora"), {"epochs": "2"}, Watcher())
    return store, track, evaluation


def test_answers_are_asked_for_their_losses_and_references_noted_them(
    measured_store: tuple[Store, Path, Evaluation],
) -> None:
    store, track, evaluation = measured_store
    made = load_track(str(track))
    measured = measure([store], made)
    assert measured is not None
    asker = Asker(made, [store])
    found = {}
    for entry in measured.ranking.entries:
        (cell,) = measured.runs.cells(entry.run)
        row = asker.row(entry, cell)
        assert row is not None
        found[entry.name] = row
        assert -1 <= row.similarity <= 1
        assert row.score == pytest.approx(entry.cells[0].score)
    (planned,) = evaluation.cells
    assert isinstance(planned.task, TextTask)
    shots = load_shots(planned.file, planned.source, planned.split, planned.spec)
    white = TextWhiteBox(evaluation.lm, planned.task, shots.train.texts)  # type: ignore[arg-type]
    assert found["manual"].train_loss == pytest.approx(white.loss(shots.train), abs=1e-5)
    assert found["manual"].dev_loss == pytest.approx(white.loss(shots.dev), abs=1e-5)
    lora = next(row for name, row in found.items() if name.startswith("lora"))
    assert lora.train_loss != found["manual"].train_loss
    text = page(measured, losses=list(found.values()))
    assert "## Loss and text" in text
    assert "Speed-up" not in text
    assert "counts as 0." in text
    assert "make results-text" in text
    assert np.isfinite([row.dev_loss for row in found.values()]).all()


def test_files_that_are_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        text_losses(["--store", str(tmp_path / "no.db"), "--out", str(tmp_path / "x.csv")])
    assert "no such results database" in capsys.readouterr().err
    Store(str(tmp_path / "some.db")).close()
    with pytest.raises(SystemExit):
        text_losses(["--store", str(tmp_path / "some.db"), "--out", str(tmp_path / "x.csv")])
    assert "no run on track mini-text" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        make_results(["--store", str(tmp_path / "some.db"), "--track", "mini-text", "--losses", str(tmp_path / "x")])
    assert "run: python tools/text_losses.py" in capsys.readouterr().err


def test_a_table_of_losses_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("run,entry\nr,e\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"losses\.csv is no table of tools/text_losses\.py"):
        read(path)


def one_cell(path: Path, scored: int) -> str:
    """Write a database with one cell of `manual` on plain, all of whose outputs have this score; its run."""
    track, store = load_track("mini-text"), Store(str(path))
    run = store.open_run(
        key("manual", track=track.name, track_fingerprint=track.fingerprint), {"packages": {"torch": "1"}}
    )
    record = CellRecord(train_rows=16, rows_total=1600, calls_total=100, metric="chrf", sandbox="A")
    kept = KeptAnswer(1.0, 0, b"answer", np.full(4, scored, dtype=np.int64))
    store.begin(run, "plain", 1).finish("ok", record, "t", np.zeros(4, dtype=np.int64), [kept])
    store.close()
    return run


def test_measured_losses_stay_where_no_cell_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database without answers, as a published one, would have left a file with nothing but its heads."""
    out, path = tmp_path / "losses.csv", tmp_path / "some.db"
    one_cell(path, 0)
    packed = tmp_path / "some.db.xz"
    pack(path, packed, answers=False)
    before = rows([1.0, 2.0], [0.5, 0.25])
    write(out, before)
    with pytest.raises(SystemExit):
        text_losses(["--store", str(packed), "--out", str(out)])
    assert "is left as it is" in capsys.readouterr().err
    assert read(out) == before


def test_a_cell_that_was_run_once_more_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is known by its score; the row of before stood beside the new score on the page."""
    out, path = tmp_path / "losses.csv", tmp_path / "some.db"
    run = one_cell(path, 2500)
    write(out, [Row(run, "manual", "plain", 1, 9.0, 9.0, 0.0, 0.5)])
    asked = []

    def row(_self: Asker, _entry: object, cell: StoredCell) -> Row:
        asked.append(cell.task)
        return Row(run, "manual", "plain", 1, 1.0, 2.0, 0.25, 0.5)

    monkeypatch.setattr(Asker, "row", row)
    for _ in range(2):
        assert text_losses(["--store", str(path), "--out", str(out)]) == 0
    assert asked == ["plain"]
    assert [(each.train_loss, each.score) for each in read(out)] == [(1.0, 0.25)]
