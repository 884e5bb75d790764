"""AJO, seen from outside: its queries, the losses of its search, the kept stacks, and what the head learns."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import (
    Answer,
    BudgetExhausted,
    Coordinates,
    LinearHead,
    Member,
    Outputs,
    Shots,
    Task,
    negative_log_likelihood,
    softmax,
)
from harness.solving import Adam, CmaEs

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from harness.blackbox.fake import FakeLM

    from .conftest import Bench

LAYERS, DIM = 3, 10


@pytest.fixture(scope="module")
def ajo(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("ajo")


@dataclass
class Generation:
    """One generation, and the answers that came before the next one."""

    asked: Coordinates
    losses: NDArray[np.float64]  # (population,), as the search was told
    steps: int  # of Adam, since the generation before
    answers: list[Answer] = field(default_factory=list)


def play(bench: Bench, calls: int = 600, **options: Any) -> tuple[list[Generation], FakeLM, Task, Shots]:
    """Every generation of a run that looks at dev after each."""
    module = bench.load("ajo")
    lm, task, shots = bench.setting(calls=calls)
    found: list[Generation] = []
    asked: list[Any] = []
    steps = [0]
    outputs, tell, step = lm.outputs, CmaEs.tell, Adam.step

    def watched(prompts: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        asked.append(prompts)
        return outputs(prompts, texts, *rest, **more)

    def told(self: CmaEs, losses: Any) -> None:
        tell(self, losses)
        found.append(Generation(asked[-1], np.array(losses), steps[0]))
        steps[0] = 0

    def counted(self: Adam, *arrays: Any) -> None:
        step(self, *arrays)
        steps[0] += 1

    lm.outputs = watched  # type: ignore[method-assign]
    config = module.Config(**{"dim": DIM, "dev_every": 1, "eta": 3e-3, "select": "loss", **options})
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(BudgetExhausted):
        patch.setattr(CmaEs, "tell", told)
        patch.setattr(Adam, "step", counted)
        for answer in module.tune(lm, task, shots, np.random.default_rng(0), config):
            if found:
                found[-1].answers.append(answer)
    return found, lm, task, shots


def on_train(lm: FakeLM, task: Task, shots: Shots, prompts: Any) -> Outputs:
    """What the model says of the training texts, unmetered."""
    return lm.free.outputs(prompts, shots.train.texts, task.template, task.words)


VARIANTS = [{}, {"joint": False}, {"head": False}, {"head_every": "layer"}, {"epochs": 1, "alpha": 0.25}]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_layers_move_one_at_a_time_around_the_stack_that_was_kept(bench: Bench, options: dict[str, Any]) -> None:
    """From the bottom up. What is fixed was the best of a generation before, or zero."""
    generations, *_ = play(bench, **options)
    assert len(generations) > 15
    kept = {np.zeros((LAYERS, DIM), dtype=np.float32).tobytes()}
    for n, generation in enumerate(generations):
        z, layer = generation.asked.z, n % LAYERS
        others = [other for other in range(LAYERS) if other != layer]
        assert (z[:, others] == z[:1, others]).all()
        assert len(np.unique(z[:, layer, 0])) == 20
        assert any((np.frombuffer(k, np.float32).reshape(LAYERS, DIM)[others] == z[0, others]).all() for k in kept)
        kept.add(z[generation.losses.argmin()].tobytes())


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_search_is_told_the_loss_of_the_classifier_that_is_answered(bench: Bench, options: dict[str, Any]) -> None:
    """The loss is that of the mixture with the present head; without `joint`, that of the calibrated logits alone."""
    generations, lm, task, shots = play(bench, **options)
    checked = 0
    for generation in generations:
        for answer in generation.answers:
            member = replace(answer.members[0], **({} if options.get("joint", True) else {"alpha": 0.0}))
            outs = on_train(lm, task, shots, generation.asked)
            expected = negative_log_likelihood(member.probabilities(outs), shots.train.labels)
            np.testing.assert_allclose(generation.losses, expected, rtol=1e-5)
            checked += 1
    assert checked > 5


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_stack_is_replaced_if_the_loss_falls_under_the_present_head(bench: Bench, options: dict[str, Any]) -> None:
    """The loss of the stored stack is computed again, because the head has changed since."""
    generations, lm, task, shots = play(bench, **options)
    best, kept = np.zeros((LAYERS, DIM), dtype=np.float32), []
    for n, (generation, following) in enumerate(pairwise(generations)):
        k, fixed = int(generation.losses.argmin()), (n + 1) % LAYERS
        others = [other for other in range(LAYERS) if other != fixed]
        replaced = bool((following.asked.z[0, others] == generation.asked.z[k][others]).all())
        for answer in generation.answers:
            member = replace(answer.members[0], **({} if options.get("joint", True) else {"alpha": 0.0}))
            current = on_train(lm, task, shots, generation.asked.space.at(best[None]))
            (loss,) = negative_log_likelihood(member.probabilities(current), shots.train.labels)
            assert replaced == (generation.losses[k] < loss)
            assert answer.note["loss"] == pytest.approx(min(generation.losses[k], loss), rel=1e-5)
        kept.append(replaced)
        best = generation.asked.z[k] if replaced else best
    assert set(kept) == {True, False}


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [6, 0, 0]),
        ({"head_every": "layer"}, [6, 6, 6]),
        ({"epochs": 1, "batch": 5}, [7, 0, 0]),
        ({"epochs": 4, "batch": 100}, [4, 0, 0]),
        ({"head": False}, [0, 0, 0]),
        ({"joint": False}, [6, 0, 0]),
    ],
)
def test_the_head_is_trained_before_a_round_or_layer(bench: Bench, options: dict[str, Any], steps: list[int]) -> None:
    """Epochs over all 32 texts, batch by batch, and never paid for."""
    generations, lm, _, shots = play(bench, **options)
    found = [generation.steps for generation in generations]
    assert found == (steps * len(found))[: len(found)]
    rows = len(shots.train) + len(shots.dev) + len(found) * (20 * len(shots.train) + 2 * len(shots.dev))
    assert lm.meter.spent == rows


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_gradient_of_the_head_is_that_of_the_loss(ajo: ModuleType, bench: Bench, alpha: float, joint: bool) -> None:
    """Of the joint loss, or of the head's own; against central differences, on all texts at once."""
    lm, task, shots = bench.setting(classes=3)
    rng = np.random.default_rng(2)
    head = LinearHead(0.3 * rng.normal(size=(3, lm.info.width)), rng.normal(size=3))
    member = Member.of(task, None, (1.0, 0.5, 2.0), (0.0, 1.0, 0.0))
    outs = on_train(lm, task, shots, None)
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adam, "step", lambda _, parameters, gradients: found.append((parameters, gradients)))
        ajo.train_head(head, member, outs, shots, Adam(0.1), rng, alpha if joint else 1.0, 1000, 1)
    (((weight, bias), gradients),) = found
    mixture = replace(member, head=head, alpha=alpha if joint else 1.0)
    for parameter, gradient in zip((weight, bias), gradients, strict=True):
        for index in list(np.ndindex(parameter.shape))[:12]:
            at, values = parameter[index], []
            for step in (1e-5, -1e-5):
                parameter[index] = at + step
                values.append(float(negative_log_likelihood(mixture.probabilities(outs), shots.train.labels)[0]))
            parameter[index] = at
            assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6)


def test_training_the_head_lowers_the_joint_loss(ajo: ModuleType, bench: Bench) -> None:
    """From a head that says nothing; and it asks the model nothing."""
    lm, task, shots = bench.setting()
    outs, member = on_train(lm, task, shots, None), Member.of(task)
    head, adam = LinearHead(np.zeros((2, lm.info.width)), np.zeros(2)), Adam(3e-4 * 1024 / lm.info.width, 0.01)
    mixture, losses = replace(member, head=head, alpha=0.5), []
    np.testing.assert_allclose(mixture.probabilities(outs), 0.5 * softmax(outs.logits) + 0.25)
    for _ in range(4):
        losses.append(float(negative_log_likelihood(mixture.probabilities(outs), shots.train.labels)[0]))
        ajo.train_head(head, member, outs, shots, adam, np.random.default_rng(0), 0.5, 16, 3)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.05
    assert lm.meter.spent == 0


@pytest.mark.parametrize("joint", [False, True])
def test_without_joint_the_head_is_trained_by_itself(ajo: ModuleType, bench: Bench, joint: bool) -> None:
    """Whatever the label words say; with it they take their share of every text."""
    lm, task, shots = bench.setting()
    outs, weights = on_train(lm, task, shots, None), []
    for scale in (1.0, 5.0):
        head = LinearHead(np.zeros((2, lm.info.width)), np.zeros(2))
        member = Member.of(task, None, (scale, scale))
        alpha = 0.5 if joint else 1.0
        ajo.train_head(head, member, outs, shots, Adam(0.01), np.random.default_rng(0), alpha, 16, 3)
        weights.append(head.weight)
    assert np.array_equal(*weights) == (not joint)


def test_the_learning_rate_is_scaled_to_the_models_width(bench: Bench) -> None:
    """The first step moves every weight by it: 3e-4 at width 1024."""
    generations, lm, *_ = play(bench, epochs=1, batch=1000, eta=3e-4, decay=0.0, calls=60)
    head = next(answer for generation in generations for answer in generation.answers).members[0].head
    assert isinstance(head, LinearHead)
    np.testing.assert_allclose(np.abs(head.weight), 3e-4 * 1024 / lm.info.width, rtol=1e-3)


def test_an_answers_head_does_not_change_when_training_goes_on(bench: Bench) -> None:
    """It is a snapshot: heads of different rounds differ, and those of a round are equal."""
    generations, *_ = play(bench)
    heads: dict[int, list[NDArray[np.floating]]] = {}
    for n, generation in enumerate(generations):
        for answer in generation.answers:
            assert isinstance(answer.members[0].head, LinearHead)
            heads.setdefault(n // LAYERS, []).append(answer.members[0].head.weight)
    assert len(heads) > 3
    for round_ in heads.values():
        assert all(np.array_equal(one, round_[0]) for one in round_)
    first = [round_[0] for round_ in heads.values()]
    assert not any(np.array_equal(a, b) for a, b in pairwise(first))


@pytest.mark.parametrize("joint", [True, False])
def test_dev_and_the_referee_see_the_same_classifier(bench: Bench, joint: bool) -> None:
    """The dev score in the note is the one that applying the answer gives."""
    run = bench.run("ajo", joint=joint)
    for answer in run.answers[1:]:
        assert replace(run, test=run.shots.dev).accuracy(answer) == answer.note["dev"]


@pytest.mark.parametrize(
    ("options", "alpha"),
    [({}, 0.5), ({"joint": False}, 0.5), ({"head": False}, 0.0), ({"alpha": 0.25}, 0.25), ({"alpha": 0.0}, 0.0)],
)
def test_answers_carry_calibration_and_head(bench: Bench, options: dict[str, Any], alpha: float) -> None:
    """The last answer holds prompts, W, the head and its weight."""
    member = bench.run("ajo", **options).answers[-1].members[0]
    assert member.prompt is not None
    assert member.shift is not None
    assert any(member.shift)
    assert member.alpha == alpha
    assert (member.head is not None) == (alpha > 0)


@pytest.mark.parametrize("calibrate", ["safe", "faithful", "none"])
def test_w_is_that_of_the_training_texts_at_the_zero_prompt(bench: Bench, calibrate: str) -> None:
    """By the additive form, or the multiplicative one where the means allow it; the fake's do not."""
    run = bench.run("ajo", calibrate=calibrate, calls=120)
    q = run.outputs(run.train[0], run.shots.train).logits[0].astype(np.float64)
    assert not run.train[0].z.any()
    mean = softmax(q).mean(axis=0)
    expected = {
        "safe": np.log(mean).mean() - np.log(mean),
        "faithful": q.mean() - q.mean(axis=0),
        "none": np.zeros(2),
    }[calibrate]
    last = run.answers[-1].members[0]
    np.testing.assert_allclose(last.shift, expected, rtol=1e-5, atol=1e-9)
    assert last.scale == (1.0, 1.0)


def test_a_fallback_is_noted_in_every_calibrated_answer(bench: Bench) -> None:
    """The fake's mean logits at the zero prompt do not pass the guard; the additive form needs none."""
    run = bench.run("ajo", calibrate="faithful", calls=120)
    expected = [1.0 if any(answer.members[0].shift or ()) else None for answer in run.answers]
    assert set(expected) == {1.0, None}
    assert [answer.note.get("calibration_fallback") for answer in run.answers] == expected
    assert all("calibration_fallback" not in answer.note for answer in bench.run("ajo", calls=120).answers)
