"""References: what they are given, how they are trained, and every way one may end."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from made_up import key
from outer_models import TRAIN_ROWS, WIDTH

from harness.contract import Prompt
from harness.errors import InputError, SubmissionError
from harness.evaluation import white_box
from harness.evaluation.check import check
from harness.evaluation.predict import stored_answer
from harness.evaluation.referee import run_reference
from harness.evaluation.white_box import OutOfTimeError, Recipe, WhiteBox
from harness.lm.load import load_model
from harness.sandbox.submission import find
from harness.tracks.examples import load_shots
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from types import ModuleType

    from outer_models import Arena, Run

    from harness.contract import Shots

HEADER = '''"""A reference for a test."""
from dataclasses import dataclass
import numpy as np, torch, random, sys, time
from harness.evaluation.white_box import Predictor, Recipe, WhiteBox

access = "white-box"


@dataclass(frozen=True)
class Config:
    eta: float = 1e-2
    dtype: type = float


def uniform(task):
    return Predictor(lambda texts: np.full((len(texts), len(task.classes)), 1 / len(task.classes)), {"dev": 0.5})


'''
FIT = """
def tune(lm, task, shots, rng, config):
    yield from lm.fit(list(lm.module.parameters()), shots, rng, Recipe(config.eta, 4, 10, 50))
"""


def write(folder: Path, body: str, name: str = "reference") -> Path:
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "submission.py").write_text(HEADER + body, encoding="utf-8")
    return place


def refer(arena: Arena, body: str, options: dict[str, str] | None = None, seed: int = 0, **limits: Any) -> Run:
    """Run a reference on one cell of the tiny track."""
    from outer_models import Run

    cell = arena.cell(seed=seed, **limits)
    run = arena.store.open_run(key(seed=random.randrange(2**30), access="white-box"), {})  # noqa: S311
    attempt = arena.store.begin(run, cell.task.name, cell.split)
    found = find(write(arena.folder, body))
    verdict = run_reference(cell, found, options or {}, arena.lm, attempt, lambda _rows, _note: None)
    (stored,) = arena.store.cells(run)
    return Run(verdict, stored, arena.store)


def opened(arena: Arena, deadline: float = np.inf) -> tuple[WhiteBox, Shots]:
    cell = arena.cell()
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    return WhiteBox(arena.lm, cell.task, shots.train.texts, deadline), shots


def tiny_models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_models", Path(__file__).parents[1] / "lm" / "tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("zeroed", [True, False])
def test_the_weights_start_as_the_black_box_answers(family: str, zeroed: bool, tmp_path: Path) -> None:
    """Without p0, with p0, and with a prompt added to the input of layer 0; in every family of models."""
    models, masked = tiny_models(), family in {"bert", "roberta"}
    kind = "masked" if masked else "causal"
    spec = ModelSpec(
        source=str(models.save(family, tmp_path)), kind=kind, dtype="float32", zero_head_bias=zeroed and masked
    )
    lm = load_model(spec, PromptSpec(tokens=3, first_id=20))
    template = "{a} . It was {mask} ." if masked else "{a} . It was{mask}"
    words = (" bad", " great") if family in {"roberta", "gpt2"} else ("bad", "great")  # byte-level BPE wants a space
    task = _task(template, words)
    texts = [("a film",), ("The film was great, and it was a long story.",), ("maybe",)]
    white = WhiteBox(lm, task, texts)
    values = np.random.default_rng(0).standard_normal((1, 1, 3, white.info.width)).astype(np.float32)
    zero = Prompt(np.zeros_like(values))
    for prompted, prompt in ((False, None), (True, zero)):
        expected = lm.outputs(prompt, texts, template, task.words, "mask").logits[0]
        np.testing.assert_allclose(white.predicted(texts, prompted), expected, atol=2e-5)
    start = white.batch(texts, prompted=True).start
    white.edit_input(
        0,
        lambda x: torch.cat(
            [x[:, :start], x[:, start : start + 3] + torch.from_numpy(values[0, 0]), x[:, start + 3 :]], 1
        ),
    )
    expected = lm.outputs(Prompt(values), texts, template, task.words, "mask").logits[0]
    np.testing.assert_allclose(white.predicted(texts, prompted=True), expected, atol=2e-5)


def test_a_step_in_parts_has_the_loss_and_the_gradient_of_all_texts_together(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of like length, whatever their sizes: no text is left out, and each has the same weight."""
    lm, shots = opened(arena)
    for each in lm.module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0  # which is drawn in another order
    parameters, rows = list(lm.module.parameters()), np.arange(len(shots.train))[::-1]
    for parameter in parameters:
        parameter.requires_grad_()
    found = []
    for price in (10**6, 0):
        monkeypatch.setattr(white_box, "_PART_PRICE", price)
        parts = lm._parts(shots.train, rows, prompted=False)
        adam = torch.optim.Adam(parameters, lr=0.0)
        loss = lm._step(adam, shots.train, rows, prompted=False)
        gradients = [each.grad.clone() for each in parameters if each.grad is not None]
        found.append((len(parts), sorted(np.concatenate(parts)), loss, gradients))
    (one, every, loss, gradients), (many, again, summed, sums) = found
    assert one == 1 < many
    assert every == again == sorted(rows)
    assert summed == pytest.approx(loss, rel=1e-6)
    assert len(gradients) == len(sums) > 0
    for gradient, total in zip(gradients, sums, strict=True):
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-6)


def _task(template: str, words: tuple[str, ...]) -> Any:
    from harness.contract import Task

    return Task("made-up", ("a", "b"), "accuracy", template, words)


def test_each_copy_is_fresh_and_the_black_box_stays(arena: Arena) -> None:
    """Training changes neither the model that answers queries nor the next reference's copy."""
    white, shots = opened(arena)
    before = white.predicted(shots.dev.texts)
    list(white.fit(list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-2, 4, 10, 50)))
    assert not np.allclose(white.predicted(shots.dev.texts), before, atol=1e-3)
    np.testing.assert_array_equal(opened(arena)[0].predicted(shots.dev.texts), before)


def test_training_lowers_the_loss_and_dev_only_rises(arena: Arena) -> None:
    """The first predictor has no note. Each later one has a better dev score and does not change afterwards."""
    white, shots = opened(arena)
    given, then = [], []
    for predictor in white.fit(
        list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-2, 4, 40, 200)
    ):
        given.append(predictor)
        then.append(softmax_of(white, shots))
    assert given[0].note == {}
    devs = [predictor.note["dev"] for predictor in given[1:]]
    assert devs == sorted(devs)
    for predictor, p in zip(given, then, strict=True):
        np.testing.assert_array_equal(predictor(shots.train.texts), p)
    labels = np.arange(TRAIN_ROWS), shots.train.labels
    assert -np.log(then[-1][labels]).mean() < -np.log(then[0][labels]).mean()


def softmax_of(white: WhiteBox, shots: Shots) -> Any:
    from harness import softmax

    return softmax(white.predicted(shots.train.texts))


def test_dev_is_looked_at_every_ten_steps_and_patience_counts_steps(arena: Arena) -> None:
    """Batches of 4 make 2 steps an epoch. With a learning rate of 0 only the first look, at step 10, is better."""
    white, shots = opened(arena)
    looks = []
    judge = white._judge
    white._judge = lambda dev, prompted: looks.append(1) or judge(dev, prompted)  # type: ignore[method-assign,func-returns-value]
    parameters = list(white.module.parameters())
    given = list(white.fit(parameters, shots, np.random.default_rng(0), Recipe(0.0, 4, 1000, 30)))
    assert len(given) == 2
    assert len(looks) == 4  # at steps 10, 20, 30, 40; 40 - 10 is the patience


def test_the_last_epoch_is_looked_at(arena: Arena) -> None:
    """Even after few steps, a trained predictor follows the first one."""
    white, shots = opened(arena)
    given = list(white.fit(list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-3, 32, 1, 50)))
    assert [set(predictor.note) for predictor in given] == [set(), {"loss", "dev"}]


def test_only_what_is_given_is_trained(arena: Arena) -> None:
    """All other weights stay, bit for bit."""
    white, shots = opened(arena)
    before = {name: value.detach().clone() for name, value in white.module.named_parameters()}
    chosen = white.layers[0].output.dense.bias
    list(white.fit([chosen], shots, np.random.default_rng(0), Recipe(1e-2, 4, 2, 50)))
    changed = [name for name, value in white.module.named_parameters() if not torch.equal(value, before[name])]
    assert changed == ["bert.encoder.layer.0.output.dense.bias"]
    assert chosen.shape == (WIDTH,)


def test_time_ends_training_between_steps(arena: Arena) -> None:
    """The first predictor was given before."""
    white, shots = opened(arena, deadline=time.monotonic() - 1)
    fit = white.fit(list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-2, 4, 10, 50))
    assert next(fit).note == {}
    with pytest.raises(OutOfTimeError):
        next(fit)


def test_published_numbers_are_scaled_by_depth(arena: Arena) -> None:
    """Two layers of 24."""
    white, _ = opened(arena)
    assert [white.scaled(n) for n in (1000, 200, 1)] == [83, 17, 1]


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reference_is_scored_and_costs_nothing(arena: Arena) -> None:
    run = refer(arena, FIT, {"eta": "0.02"})
    assert run.status == "ok"
    assert run.verdict.score is not None
    assert run.ledger == []
    assert run.record.rows_spent == run.record.rows_total == run.record.queries == 0
    assert (run.record.level, run.record.access) == (4, "white-box")
    assert run.record.sandbox == "none (referee process)"
    assert run.record.config == {"eta": 0.02, "dtype": "<class 'float'>"}
    assert run.record.history[-1] == (0, run.record.note)
    assert set(run.record.note) == {"loss", "dev"}


def test_the_same_seed_gives_the_same_predictions(arena: Arena) -> None:
    """Dropout and batches follow the cell's seed; torch's own generator is as it was."""
    state = torch.random.get_rng_state()
    many = FIT.replace("10, 50", "40, 500")
    first, again, other = (refer(arena, many, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.record.history == again.record.history != other.record.history
    np.testing.assert_array_equal(first.stored.predictions[1.0], again.stored.predictions[1.0])


FITTED = "    yield from lm.fit(list(lm.module.parameters()), shots, rng, Recipe(1.0, 4, 10, 50))\n"
ENDS = {
    "crashed": ("    yield uniform(task)\n    1 / 0\n", "ZeroDivisionError"),
    "timeout": (f"    yield uniform(task)\n    time.sleep(1.2)\n{FITTED}", ""),
    "no_answer": ("    yield from ()\n", ""),
    "invalid_answer": ("    yield Predictor(lambda texts: np.full((len(texts), 3), 1 / 3))\n", ", 2), are expected"),
}


@pytest.mark.parametrize("status", ENDS)
def test_a_reference_may_end_as_a_submission_may(arena: Arena, status: str) -> None:
    """Only after a timeout is there an answer to score. The reason is stored."""
    body, reason = ENDS[status]
    limit = 1 if status == "timeout" else 60
    run = refer(arena, f"def tune(lm, task, shots, rng, config):\n{body}", wall_s=limit)
    assert run.status == status
    assert (run.verdict.score is not None) == (status == "timeout") == bool(run.stored.predictions)
    assert reason in run.record.detail


def test_probabilities_that_are_not_finite_are_an_invalid_answer(arena: Arena) -> None:
    """A diverged training is a failure, not a class."""
    with pytest.warns(UserWarning, match="note 'loss' is nan"):
        run = refer(arena, FIT.replace("config.eta", "float('inf')"))
    assert run.status == "invalid_answer"
    assert "finite" in run.record.detail


@pytest.mark.parametrize(
    ("body", "options", "said"),
    [
        ("1 / 0", {}, "ZeroDivisionError"),
        ("import sys; sys.exit(3)", {}, "SystemExit: 3"),
        ("import no_such_thing", {}, r"no_such_thing.*\.\[references\]"),
        ("", {"x": "1"}, "no option 'x'"),
    ],
)
def test_a_reference_that_cannot_be_imported_is_a_status_of_its_cell(
    arena: Arena, body: str, options: dict[str, str], said: str
) -> None:
    """The author's own traceback is in the detail; a missing module is named with what brings it."""
    run = refer(arena, f"{body}\n{FIT}", options)
    assert run.status == "crashed"
    assert re.search(f"(?s){said}", run.record.detail)
    assert run.record.config == {}


def test_a_reference_leaves_no_module_behind_and_prints_no_result(
    arena: Arena, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two references may have modules of the same name."""
    body = (
        "def tune(lm, task, shots, rng, config):\n    import helper\n    print(helper.NAME)\n    yield uniform(task)\n"
    )
    path = list(sys.path)
    for name in ("first", "second"):
        place = write(arena.folder, body)
        (place / "helper.py").write_text(f"NAME = {name!r}\n", encoding="utf-8")
        assert refer(arena, body).status == "ok"
        assert capsys.readouterr() == ("", f"{name}\n")
    assert sys.path == path
    assert not {"helper", "submission"} & set(sys.modules)


def test_no_answer_of_a_reference_can_be_taken_for_predictions(arena: Arena) -> None:
    """`harness predict` explains this and does not report an unreadable answer."""
    run = arena.store.open_run(key("tuned", access="white-box"), {})
    cell = arena.cell()
    attempt = arena.store.begin(run, cell.task.name, cell.split)
    found = find(write(arena.folder, "def tune(lm, task, shots, rng, config):\n    yield uniform(task)\n"))
    run_reference(cell, found, {}, arena.lm, attempt, lambda _rows, _note: None)
    assert arena.store.answer(run, "sst2", 1) == b""
    with pytest.raises(InputError, match="'tuned' is a white-box reference"):
        stored_answer(arena.store, "tuned", "tiny", "sst2", 1, other_model=False)


def test_a_check_looks_at_the_source_alone(tmp_path: Path) -> None:
    """The fake model has no weights to train. The check finds tune and Config in the source."""
    place = write(tmp_path, "def tune(lm, task, shots, rng, config):\n    yield None\n\nraise SystemExit('ran')\n")
    report = check(place, {})
    assert (report["submission"], report["access"]) == ("reference", "white-box")
    assert "nothing was run" in report["lines"][0]
    with pytest.raises(SubmissionError, match="no function tune"):
        check(write(tmp_path, ""), {})
