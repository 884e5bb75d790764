"""Text tasks from a submission's first query to the leaderboard, with a tiny random model and real workers."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import tiny_causal
from evaluating import Watcher

from harness.contract import Answer, TextTask, Weights
from harness.errors import InputError, ModelError, TaskError, TrackError
from harness.evaluation.check import check
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.replay import choices_of, replay, sampled
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import scored, with_classes, write
from harness.leaderboard.rank import rank
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.results.audit import audit
from harness.results.finding import find_run
from harness.results.records import CellRecord, cell_record
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.solving import answers
from harness.solving.metrics import TEXT_SCALE
from harness.tracks.examples import examples_sha256, load_shots, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import ModelSpec, PromptSpec, load_track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"
DEEP = """
from dataclasses import dataclass
import numpy as np
from harness import Answer, BudgetExhausted, Member, Subspace, TextTask


@dataclass(frozen=True)
class Config:
    pass


def tune(lm, task, shots, rng, config):
    assert isinstance(task, TextTask)
    assert all(shots.train.references)
    space = Subspace.deep(lm.info, 5, rng, 0.5, 0.5)
    best = np.inf
    for _ in range(3):
        zs = rng.standard_normal((4, space.layers, 5))
        losses = lm.score(space.at(zs), shots.train.texts, task.targets(shots.train)).losses()
        if losses.min() < best:
            best = losses.min()
            yield Answer((Member(task.template, (), space.at(zs[losses.argmin()][None])),), {"loss": float(best)})
    print(lm.generate(space.at(zs[:1]), shots.dev.texts, temperature=0.7, seed=3).texts[0][0])
    while True:
        written = lm.generate(None, shots.dev.texts, stop=(), most_tokens=60)
        if written.cut:
            print("cut at", lm.budget.rows_left)
            return
"""

CHANGED = """
from dataclasses import dataclass
from harness import Answer, WeightSpace


@dataclass(frozen=True)
class Config:
    pass


def tune(lm, task, shots, rng, config):
    space = WeightSpace("lora", 4, 3.0, seed=1, rank=2)
    zs = rng.standard_normal((3, 4))
    losses = lm.score(space.at(zs), shots.train.texts, task.targets(shots.train)).losses()
    yield Answer.of(task, space.at(zs[losses.argmin()]), loss=losses.min())
    print(lm.generate(space.at(zs), shots.dev.texts[:1]).texts)
"""


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal.write_track(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def stored(track: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    """A store with whole runs of `manual` and of a solver on deep prompts, and the folder of the latter."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "deep").mkdir()
    (folder / "deep" / "submission.py").write_text(DEEP, encoding="utf-8")
    store = Store(str(folder / "results.db"))
    evaluation = Evaluation(load_track(str(track)), Overrides(), store)
    for submission in (SUBMISSIONS / "manual", folder / "deep"):
        evaluation.run(find(submission), {}, Watcher())
    yield store, folder
    store.close()


def test_likelihood_and_generation_reach_a_submission_and_its_budget_is_kept(stored: tuple[Store, Path]) -> None:
    store, _ = stored
    run = find_run(store, "deep")
    assert any("cut at" in cell.record.output for cell in store.cells(run.id))
    for cell in store.cells(run.id):
        assert cell.status in {"ok", "budget_exhausted"}, cell.record.detail
        assert ("cut at" in cell.record.output) == (cell.status == "ok")
        ledger = store.ledger(cell.attempt)
        assert sum(row.rows for row in ledger) == cell.record.rows_spent <= cell.record.rows_total
        assert cell.record.level == 2
        assert cell.record.metric == "chrf"
        assert cell.record.words == ()
        assert cell.record.row_tokens == 32
        assert cell.record.asked is not None
        assert cell.record.asked.normalised
        assert cell.record.asked.rows > cell.record.asked.texts > 0


def test_what_was_written_is_stored_and_scored(stored: tuple[Store, Path], track: Path) -> None:
    store, _ = stored
    made = load_track(str(track))
    evaluation = Evaluation(made, Overrides(), Store("sqlite://"))
    for entry in ("manual", "deep"):
        for cell in store.cells(find_run(store, entry).id):
            (file,) = (each for name, each in track_tasks(made).items() if name == cell.task)
            task, test = file.wording(made.profile, "causal"), load_test(file, evaluation.cells[0].source)
            assert isinstance(task, TextTask)
            assert cell.record.outputs is not None
            outputs = cell.record.outputs.at(1.0)
            assert outputs is not None
            assert len(outputs) == len(test) == 240
            assert {mark for mark, _ in cell.record.outputs.marks} == set(cell.predictions)
            np.testing.assert_array_equal(cell.predictions[1.0], scored(task, outputs, test))
            blob = store.answer(cell.run, cell.task, cell.split)
            assert blob is not None
            assert write(answers.from_bytes(blob), task, evaluation.lm, test.texts[:5]) == outputs[:5]
            assert not any("\n" in output for output in outputs)


def test_the_leaderboard_ranks_by_the_mean_of_the_texts(stored: tuple[Store, Path], track: Path) -> None:
    store, _ = stored
    made = load_track(str(track))
    ranking = rank(store, made.name, made.fingerprint, made.planned, made.ranks)
    assert {entry.name for entry in ranking.entries} == {"manual", "deep"}
    for entry in ranking.entries:
        assert not entry.missing
        assert 0 < entry.average < 1
        for cell in entry.cells:
            assert cell.score == pytest.approx(cell.predicted.mean() / TEXT_SCALE)
            assert cell.accuracy is None
    standing = ranking.standings(ranking.divisions[0])
    assert standing is not None


def test_the_audit_finds_nothing_and_a_changed_output_is_found(stored: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = stored
    assert audit(store).findings == ()
    copy = tmp_path / "copy.db"
    with sqlite3.connect(folder / "results.db") as raw:
        raw.execute("vacuum into ?", (str(copy),))
    raw.close()
    with sqlite3.connect(copy) as raw:
        facts = json.loads(raw.execute("select facts from outcomes limit 1").fetchone()[0])
        facts["outputs"]["texts"][0][0] = "another text"
        raw.execute(
            "update outcomes set facts = ? where rowid = (select min(rowid) from outcomes)", [json.dumps(facts)]
        )
    raw.close()
    changed = Store(str(copy))
    assert audit(changed).findings
    changed.close()


def test_a_run_can_be_replayed(stored: tuple[Store, Path], track: Path) -> None:
    store, folder = stored
    run, made = find_run(store, "deep"), load_track(str(track))
    cells = sampled(store, run.id, 1, np.random.default_rng(0))
    choices = choices_of(run.key, cells, made, Overrides())
    again = replay(store, run, cells, made, choices, find(folder / "deep"), Watcher())
    assert again.verdict == "reproduced", again


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random_search", {"dim": "5", "population": "3"}),
        ("bbt", {"dim": "5", "population": "4"}),
        ("bbtv2", {"dim": "5", "population": "4"}),
        ("icl", {"demonstrations": "2"}),
        ("lora_es", {"dim": "5", "population": "4", "dev_every": "2"}),
        ("mezo", {}),
        ("bdpl", {"samples": "3"}),
        ("instruction_search", {"proposals": "2", "edits": "2", "longest": "6"}),
    ],
)
def test_solvers_that_only_need_a_loss_run_unchanged(
    track: Path, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    store = Store(str(tmp_path / "results.db"))
    evaluation = Evaluation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,)), store)
    run = evaluation.run(find(SUBMISSIONS / name), options, Watcher())
    (cell,) = store.cells(run)
    assert cell.status in {"ok", "budget_exhausted"}, cell.record.detail
    assert cell.record.rows_spent
    assert cell.record.outputs is not None
    store.close()


def test_an_answer_that_changes_weights_is_audited_and_replayed(track: Path, tmp_path: Path) -> None:
    made, store = load_track(str(track)), Store(str(tmp_path / "results.db"))
    evaluation = Evaluation(made, Overrides(tasks=("plain",), splits=(1,)), store)
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "submission.py").write_text(CHANGED, encoding="utf-8")
    found = find(tmp_path / "changed")
    run_id = evaluation.run(found, {}, Watcher())
    (cell,) = store.cells(run_id)
    assert cell.record.level == 5
    blob = store.answer(cell.run, cell.task, cell.split)
    assert blob is not None
    answer = answers.from_bytes(blob)
    assert isinstance(answer.members[0].prompt, Weights)
    (planned,) = evaluation.cells
    assert isinstance(planned.task, TextTask)
    test = load_test(planned.file, planned.source)
    assert cell.record.outputs is not None
    outputs = cell.record.outputs.at(1.0)
    assert outputs == write(answer, planned.task, evaluation.lm, test.texts)
    assert outputs != write(Answer.of(planned.task), planned.task, evaluation.lm, test.texts)
    assert audit(store).findings == ()
    run = find_run(store, "changed")
    cells = sampled(store, run.id, 1, np.random.default_rng(0))
    choices = choices_of(run.key, cells, made, Overrides())
    again = replay(store, run, cells, made, choices, found, Watcher())
    assert again.verdict == "reproduced", again
    store.close()


def test_a_text_task_needs_a_causal_model_and_is_refused_where_classes_are_needed(track: Path) -> None:
    with pytest.raises(TaskError, match="masked model does not write"):
        load_task("plain").wording("harness-2026", "masked")
    with pytest.raises(TaskError, match="answered by text"):
        load_task("plain").task("harness-2026", "causal")
    with pytest.raises(TaskError, match="no profile 'kit-2022'"):
        load_task("plain").wording("kit-2022", "causal")
    task = load_task("plain").wording("harness-2026", "causal")
    with pytest.raises(InputError, match="answered by text, and harness leaks needs classes"):
        with_classes(task, "harness leaks")
    masked = load_model(ModelSpec("embedded", "int8", "masked"), PromptSpec(5, 20))
    with pytest.raises(ModelError, match="is a masked model, and text tasks need a causal one"):
        text_model(masked)
    with pytest.raises(TaskError, match="masked model does not write"):
        Preparation(load_track(str(track)), Overrides(model="embedded"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("row_tokens = 32", "", "row_tokens"),
        ("row_tokens = 32", 'row_tokens = 32\nmetric = "accuracy"', "is that of classes"),
        ('source = "embedded"', 'source = "hub"', r"needs a \[hub\] table in the task.toml of (plain|reply)"),
        ('source = "embedded"', 'source = "kit"', "a miniature or a public data set"),
        ("splits = [1, 2]", 'splits = "present"', "splits must be listed|needs data.source"),
    ],
)
def test_a_track_says_what_its_text_tasks_lack(track: Path, old: str, new: str, message: str) -> None:
    path = track.with_name("tiny-text.toml")
    content = path.read_text(encoding="utf-8")
    other = track.parent / "changed"
    other.mkdir(exist_ok=True)
    wrong = other / "tiny-text.toml"
    wrong.write_text(content.replace(old, new), encoding="utf-8")
    with pytest.raises(TrackError, match=message):
        load_track(str(wrong))


def test_shots_are_different_texts_with_references(track: Path) -> None:
    made = load_track(str(track))
    prepared = Preparation(made, Overrides())
    for cell in prepared.cells:
        shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
        assert len(shots.train) == len(shots.dev) == 4
        texts = {*shots.train.texts, *shots.dev.texts}
        assert len(texts) == 8
        assert not texts & set(load_test(cell.file, cell.source).texts)
        assert all(shots.train.references)
        other = msgspec.structs.replace(cell.spec, shots=3)
        assert load_shots(cell.file, cell.source, cell.split, other).train.texts == shots.train.texts[:3]
        assert examples_sha256(shots.train) != examples_sha256(shots.dev)


@pytest.mark.parametrize("here", [True, False])
def test_a_check_tries_the_fake_model_and_asks_the_real_one(
    stored: tuple[Store, Path], track: Path, here: bool
) -> None:
    _, folder = stored
    report = check(folder / "deep", {}, track=load_track(str(track)), choices=Overrides(tasks=("reply",)), here=here)
    assert "imported" in report["lines"][0]
    assert any("right outputs on the fake model" in line for line in report["lines"])
    assert 0 <= report["dev_accuracy"] <= 1
    assert report["calls"] > 10
    assert report["real"]["rows"] > 0
    assert 0 <= report["real"]["dev"] <= 1


def test_records_of_other_tasks_are_as_they_were() -> None:
    plain = CellRecord()
    assert "outputs" not in plain.plain()
    assert cell_record(plain.to_json()).outputs is None


def test_an_answer_that_breaks_the_contract_ends_its_cell(track: Path, tmp_path: Path) -> None:
    body = DEEP.replace(
        "    space = Subspace", "    yield Answer((Member(task.template, (' no',)),))\n    space = Subspace"
    )
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "submission.py").write_text(body, encoding="utf-8")
    store = Store(str(tmp_path / "results.db"))
    evaluation = Evaluation(load_track(str(track)), Overrides(tasks=("reply",), splits=(2,)), store)
    run = evaluation.run(find(tmp_path / "wrong"), {}, Watcher())
    (cell,) = store.cells(run)
    assert cell.status == "invalid_answer"
    assert "on a text task it is a template and a prompt" in cell.record.detail
    assert cell.record.outputs is None
    store.close()
