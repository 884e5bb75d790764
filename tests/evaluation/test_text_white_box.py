"""White-box references on text tasks: what they are trained on, what they write, and how their cells end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_causal
import torch
from evaluating import Watcher

from harness.contract import Answer, Member, Prompt, TextTask
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import scored, write
from harness.evaluation.text_white_box import TextWhiteBox
from harness.evaluation.white_box import Recipe
from harness.leaderboard.rank import rank
from harness.lm.generation import text_model
from harness.results.audit import audit
from harness.results.store import Store
from harness.sandbox.submission import find, loaded
from harness.tracks.examples import load_shots, load_test
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.contract import Shots
    from harness.evaluation.referee import Cell

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"
FEW = {"eta": "0.05", "epochs": "6", "batch": "2"}


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal.write_track(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def evaluation(track: Path) -> Iterator[Evaluation]:
    store = Store("sqlite://")
    yield Evaluation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,), white_box=True), store)
    store.close()


def opened(evaluation: Evaluation) -> tuple[TextWhiteBox, TextTask, Shots, Cell]:
    (cell,) = evaluation.cells
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    assert isinstance(cell.task, TextTask)
    return TextWhiteBox(evaluation.lm, cell.task, shots.train.texts), cell.task, shots, cell  # type: ignore[arg-type]


def loss_of(evaluation: Evaluation, task: TextTask, shots: Shots, prompt: Prompt | None) -> float:
    """The loss of a black-box solver on train: the mean over texts of the negative log-likelihood by token."""
    model = text_model(evaluation.lm)
    targets = model.target_ids(task.targets(shots.train))
    encoded = model.encode(task.template, shots.train.texts, None if prompt is None else "add", max(map(len, targets)))
    return float(-model.score(prompt, encoded, targets).means.mean())


def test_the_weights_start_as_the_black_box_scores_and_writes(evaluation: Evaluation) -> None:
    white, task, shots, cell = opened(evaluation)
    texts = load_test(cell.file, cell.source).texts[:40]
    assert white.loss(shots.train) == pytest.approx(loss_of(evaluation, task, shots, None), abs=1e-5)
    assert white.written(texts) == write(Answer.of(task), task, evaluation.lm, texts)
    zero = Prompt(np.zeros((1, 1, tiny_causal.TOKENS, tiny_causal.WIDTH), dtype=np.float32))
    assert white.loss(shots.train, prompted=True) == pytest.approx(loss_of(evaluation, task, shots, zero), abs=1e-5)


def test_a_trained_prompt_writes_what_the_black_box_writes_with_its_values(evaluation: Evaluation) -> None:
    """Also of texts of several lengths in one batch: the edit is at the input, and keys and values are kept."""
    white, task, shots, cell = opened(evaluation)
    texts = load_test(cell.file, cell.source).texts[:40]
    with loaded(SUBMISSIONS / "prompt_tuning", FEW | {"eta": "0.2"}) as solver, torch.random.fork_rng():
        given = list(solver.tune(white, task, shots, np.random.default_rng(0), solver.config))
    outputs = given[-1].write(texts)
    (moved,) = _parameters(given[-1])
    values = moved.detach().numpy().copy()
    assert np.abs(values).max() > 0.1
    prompt = Prompt(values[None, None])
    assert outputs == write(Answer((Member(task.template, (), prompt),)), task, evaluation.lm, texts)
    assert given[0].write(texts) != outputs
    assert given[-1].note["loss"] == pytest.approx(loss_of(evaluation, task, shots, prompt), abs=1e-5)
    assert outputs == given[-1].write(texts)  # the values were put back


def _parameters(writer: Any) -> list[torch.nn.Parameter]:
    restore = next(c.cell_contents for c in writer.write.__closure__ if callable(c.cell_contents))
    found = [cell.cell_contents for cell in restore.__closure__]
    return next(each for each in found if isinstance(each, list) and isinstance(each[0], torch.nn.Parameter))


def test_edits_of_deeper_layers_see_the_whole_sequence(evaluation: Evaluation) -> None:
    """An edit that adds something to each token of layer 1, by its place, does while writing what it does at once."""
    white, task, shots, _ = opened(evaluation)
    each = torch.linspace(-1, 1, tiny_causal.LONGEST)[:, None]
    white.edit_input(1, lambda x: x + each[: x.shape[1]])
    text = shots.train.texts[:1]  # alone, so that there are no pads between it and what is written
    output = white.written(text)[0]
    encoded = white._text.encode(task.template, text, None, task.most_tokens).encoded[0]
    ids, so_far = list(encoded.ids), list[int]()
    while len(so_far) < task.most_tokens:
        with torch.inference_mode():
            logits = white.module(torch.tensor([ids])).logits[0, -1]
        so_far.append(int(logits.argmax()))
        ids.append(so_far[-1])
    assert output == task.output(white._text.text(so_far))


def test_training_lowers_the_loss_and_dev_decides(evaluation: Evaluation) -> None:
    white, _, shots, _ = opened(evaluation)
    before = white.loss(shots.train)
    parameters = list(white.module.parameters())
    given = list(white.fit(parameters, shots, np.random.default_rng(0), Recipe(1e-2, 2, 20, 100)))
    devs = [writer.note["dev_loss"] for writer in given[1:]]
    assert devs == sorted(devs, reverse=True)
    assert given[-1].note["loss"] < before
    assert opened(evaluation)[0].loss(shots.train) == before  # another copy


@pytest.mark.parametrize("name", ["prompt_tuning", "lora", "model_tuning"])
def test_references_run_to_a_score_and_the_audit_finds_nothing(track: Path, name: str) -> None:
    made = load_track(str(track))
    store = Store("sqlite://")
    evaluation = Evaluation(made, Overrides(tasks=("plain",), splits=(1,), white_box=True), store)
    run = evaluation.run(find(SUBMISSIONS / name), FEW, Watcher())
    (cell,) = store.cells(run)
    assert (cell.status, cell.record.detail) == ("ok", "")
    assert len(cell.record.history) > 1
    assert {"loss", "dev_loss"} == set(cell.record.note)
    assert cell.record.outputs is not None
    outputs = cell.record.outputs.at(1.0)
    assert outputs is not None
    (planned,) = evaluation.cells
    test = load_test(planned.file, planned.source)
    assert isinstance(planned.task, TextTask)
    np.testing.assert_array_equal(cell.predictions[1.0], scored(planned.task, outputs, test))
    assert audit(store).findings == ()
    (entry,) = rank(store, made.name, made.fingerprint, made.planned, made.ranks).entries
    assert entry.white_box
    store.close()


@pytest.mark.parametrize(
    ("name", "reason"), [("p_tuning_v2", "BERT's and RoBERTa's attention only"), ("bitfit", "has no biases to train")]
)
def test_a_reference_that_this_model_cannot_have_says_so(track: Path, name: str, reason: str) -> None:
    store = Store("sqlite://")
    evaluation = Evaluation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,), white_box=True), store)
    run = evaluation.run(find(SUBMISSIONS / name), {}, Watcher())
    (cell,) = store.cells(run)
    assert cell.status == "crashed"
    assert reason in cell.record.detail
    store.close()


def test_what_needs_label_words_says_so(evaluation: Evaluation) -> None:
    white, _, shots, _ = opened(evaluation)
    for asked in (lambda: white.predicted(shots.dev.texts), lambda: white.logits(white.batch(shots.dev.texts))):
        with pytest.raises(ValueError, match="task plain is answered by text"):
            asked()
