"""White-box references on text tasks: what they are trained on, what they write, and how their cells end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import tiny_causal
import torch
from evaluating import Watcher

from harness.blackbox.meter import Meter
from harness.blackbox.text_model import Decoding
from harness.blackbox.text_pricing import TextPricing
from harness.blackbox.text_query import TextQuery
from harness.contract import Answer, Member, Prompt, TextTask
from harness.errors import TextTaskError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import scored, write
from harness.evaluation.text_white_box import TextWhiteBox
from harness.evaluation.white_box import OutOfForwardsError, Recipe
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


def prices(evaluation: Evaluation, task: TextTask, row_tokens: int | None) -> TextPricing:
    """What a submission pays."""
    return TextPricing(evaluation.lm, text_model(evaluation.lm), task, 1 << 20, row_tokens)


def test_forward_passes_are_counted_in_the_rows_that_a_submission_pays(evaluation: Evaluation) -> None:
    """Of texts that fill their rows to the last token, and of those that are a token longer."""
    _, task, shots, _ = opened(evaluation)
    model, train, dev = text_model(evaluation.lm), shots.train, shots.dev
    targets = model.target_ids(task.targets(train))
    own = [size for size, _ in model.encode(task.template, train.texts, None, task.most_tokens).sizes]
    tokens = own[0] + len(targets[0])
    for size, first in ((None, 1), (tokens, 1), (tokens - 1, 2), (tokens // 2, 2 + tokens % 2), (1, tokens)):
        white = TextWhiteBox(evaluation.lm, task, train.texts, row_tokens=size)  # type: ignore[arg-type]
        paid, looked = (prices(evaluation, task, size).score_rows(x.texts, task.targets(x)) for x in (train, dev))
        assert paid[0] == first
        assert white.loss(train, prompted=True) > 0
        assert white.forwards == sum(paid)
        white.forwards = 0
        parameters = list(white.module.parameters())
        list(white.fit(parameters, shots, np.random.default_rng(0), Recipe(1e-3, 2, 3, 1000)))
        assert white.forwards == 3 * 3 * sum(paid) + sum(looked)


def test_what_a_reference_writes_is_counted_as_a_submission_pays_for_it(evaluation: Evaluation) -> None:
    _, task, shots, cell = opened(evaluation)
    texts, size, how = load_test(cell.file, cell.source).texts[:6], 8, Decoding(task.most_tokens, task.stop)
    white = TextWhiteBox(evaluation.lm, task, shots.train.texts, row_tokens=size)  # type: ignore[arg-type]
    model, meter = text_model(evaluation.lm), Meter(1000, len(texts))
    query = TextQuery.generate(None, texts, None, how)
    prices(evaluation, task, size).answer(query, b"", meter, lambda _answered: None)
    outputs = white.written(texts)
    assert white.forwards == meter.spent
    assert outputs == tuple(map(task.output, model.generate(  # type: ignore[arg-type]
        None, model.encode(task.template, texts, None, task.most_tokens), how, lambda _numbers: True
    ).texts[0]))  # fmt: skip
    for budget in (meter.spent - 1, len(texts) - 1, 0):
        white.forwards, white.most_forwards = 0, budget
        with pytest.raises(OutOfForwardsError):
            white.written(texts)
        assert white.forwards <= budget


@pytest.mark.parametrize("budget", [0, 10, 25, 40, 90])
def test_training_on_long_texts_ends_within_the_budget_and_with_a_look(evaluation: Evaluation, budget: int) -> None:
    _, task, shots, _ = opened(evaluation)
    white = TextWhiteBox(evaluation.lm, task, shots.train.texts, row_tokens=16)  # type: ignore[arg-type]
    white.most_forwards = budget
    fit = white.fit(list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-3, 2, 1000, 10**6))
    with pytest.raises(OutOfForwardsError):
        list(fit)
    look = sum(prices(evaluation, task, 16).score_rows(shots.dev.texts, task.targets(shots.dev)))
    assert white.forwards <= budget
    assert look > len(shots.dev)
    assert white.forwards == 0 or white.forwards >= look


def test_a_cell_keeps_the_count_in_the_rows_of_its_track(track: Path) -> None:
    store, counts = Store("sqlite://"), list[int]()
    for size in (None, 16):
        made = load_track(str(track))
        spec = msgspec.structs.replace(made.tasks["plain"], row_tokens=size or msgspec.UNSET)
        changed = msgspec.structs.replace(made, tasks=made.tasks | {"plain": spec})
        evaluation = Evaluation(changed, Overrides(tasks=("plain",), splits=(1,), white_box=True), store)
        run = evaluation.run(find(SUBMISSIONS / "prompt_tuning"), FEW | {"forwards": "20"}, Watcher())
        (cell,) = store.cells(run)
        assert cell.record.forwards is not None
        assert cell.record.forwards <= cell.record.rows_total == 20 * 4
        assert [rows for rows, _ in cell.record.history] == sorted(rows for rows, _ in cell.record.history)
        counts.append(cell.record.forwards)
    assert counts[0] != counts[1]
    assert audit(store).findings == ()
    store.close()


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
    assert reason in cell.record.detail.splitlines()[-1]
    assert "text task" not in cell.record.detail  # its own reason is the whole of it
    store.close()


def test_what_needs_label_words_says_so(evaluation: Evaluation) -> None:
    white, _, shots, _ = opened(evaluation)
    for asked in (lambda: white.predicted(shots.dev.texts), lambda: white.logits(white.batch(shots.dev.texts))):
        with pytest.raises(TextTaskError, match="Task plain is a text task"):
            asked()
