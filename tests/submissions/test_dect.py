"""DecT's formulas, price and answers."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Member, Outputs, negative_log_likelihood
from harness.blackbox.fake import FakeLM, fake_examples, fake_task
from harness.solving.answers import check, from_bytes, probabilities, to_bytes

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench


@pytest.fixture(scope="module")
def dect(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("dect")


def run(bench: Bench, seed: int = 0, calls: int = 300, classes: int = 2, **options: Any) -> tuple[list[Answer], FakeLM]:
    """All answers, and the model."""
    module = bench.load("dect")
    lm, task, shots = bench.setting(classes, calls, seed)
    answers = []
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, task, shots, np.random.default_rng(seed), module.Config(**options)):
            check(answer, task, lm.info.width)
            answers.append(answer)
    return answers, lm


def accuracy(answer: Answer, lm: FakeLM) -> float:
    """Test accuracy."""
    test = fake_examples(lm.free.task, 1000, np.random.default_rng(999))
    p = probabilities(answer, lm.free.task, lm.free, test.texts)
    return float((p.argmax(axis=1) == test.labels).mean())


def a_decoder(dect: ModuleType, classes: int = 3) -> tuple[Any, Any, Any, Any]:
    """A decoder as a member, with features, logits and labels."""
    rng = np.random.default_rng(2)
    h, q, labels = rng.normal(size=(1, 7, 5)), rng.normal(size=(1, 7, classes)), np.arange(7) % classes
    head = dect.first_decoder(h[0], labels, classes, 4, rng)
    member = replace(Member.of(fake_task(classes), None, (0.5,) * classes), head=head, alpha=1.0, mix="logits")
    return head, member, Outputs(q, h), labels


def test_gradients_are_those_of_the_loss(dect: ModuleType) -> None:
    """Against central differences, for projection, radii and prototypes."""
    head, member, outs, labels = a_decoder(dect)
    parameters = (head.weight, head.radius, head.prototypes)
    gradients = dect.gradient(head, outs.features[0], member.probabilities(outs)[0], labels)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for index in np.ndindex(parameter.shape):
            kept = parameter[index]
            values = []
            for step in (1e-5, -1e-5):
                parameter[index] = kept + step
                values.append(float(negative_log_likelihood(member.probabilities(outs), labels)[0]))
            parameter[index] = kept
            assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_first_radius_by_hand(dect: ModuleType) -> None:
    """The mean distance to the class mean, before anything is normalised; zero for a class without texts."""
    v = np.array([[0.0, 0.0], [6.0, 8.0], [1.0, 1.0]])
    np.testing.assert_allclose(dect.first_radius(v, np.array([0, 0, 1]), 3), [5, 0, 0])


@pytest.mark.parametrize("prototypes", ["frozen", "trained"])
def test_training_lowers_the_loss(dect: ModuleType, prototypes: str) -> None:
    """And moves the prototypes only if they are to be trained."""
    head, member, outs, labels = a_decoder(dect)
    first, drawn = float(negative_log_likelihood(member.probabilities(outs), labels)[0]), head.prototypes.copy()
    dect.train_decoder(head, member, outs, labels, dect.Config(prototypes=prototypes))
    assert float(negative_log_likelihood(member.probabilities(outs), labels)[0]) < first - 0.05
    assert (head.prototypes == drawn).all() == (prototypes == "frozen")


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, 64),
        ({"calibrate": "paper"}, 65),
        ({"calibrate": "none"}, 64),
        ({"passes": 4}, 4 * 64),
        ({"passes": 4, "calibrate": "paper"}, 4 * 65),
    ],
)
def test_budget_is_as_predicted(bench: Bench, options: dict[str, Any], rows: int) -> None:
    """In each pass train and dev, and the empty text where it is asked for."""
    _, lm = run(bench, **options)
    assert lm.meter.spent == rows


@pytest.mark.parametrize(("classes", "least"), [(2, 0.06), (3, 0.12)])
def test_decoder_beats_the_manual_prompt(bench: Bench, classes: int, least: float) -> None:
    """On the planted signal, on average over models and seeds; dev lets none be worse."""
    gains = []
    for seed in range(4):
        answers, lm = run(bench, seed, classes=classes)
        assert answers[0] == Answer.of(lm.free.task)
        gains.append(accuracy(answers[-1], lm) - accuracy(answers[0], lm))
    assert np.mean(gains) > least
    assert min(gains) >= 0


@pytest.mark.parametrize(
    "options", [{"calibrate": "paper"}, {"calibrate": "none"}, {"prototypes": "trained"}, {"passes": 5}]
)
def test_options_work(bench: Bench, options: dict[str, Any]) -> None:
    """Every option's other values beat the manual prompt."""
    answers, lm = run(bench, **options)
    assert accuracy(answers[-1], lm) > accuracy(answers[0], lm) + 0.05


def test_one_member_holds_calibration_and_head(bench: Bench) -> None:
    """The score is lambda (q + shift) + head, lambda = 1 / shots."""
    member = run(bench, classes=3)[0][1].members[0]
    assert member.scale == pytest.approx([1 / 16] * 3)
    assert member.shift is not None
    assert any(member.shift)
    assert (member.mix, member.alpha, member.prompt) == ("logits", 1.0, None)


@pytest.mark.parametrize(("seed", "scaled", "members"), [(1, True, 1), (5, False, 2)])
def test_published_calibration_is_by_the_empty_text(bench: Bench, seed: int, scaled: bool, members: int) -> None:
    """Each member's own, under its prompt, times lambda: s / (s_cf / mean s_cf); unsafe on the second model."""
    answers, lm = run(bench, seed, passes=2, calibrate="paper")
    last = answers[-1].members
    assert len(last) == members
    for member in last:
        empty = lm.free.outputs(member.prompt, [("",)], member.template, member.words).logits[0, 0].astype(np.float64)
        scale, shift = (empty.mean() / empty, np.zeros(2)) if scaled else (np.ones(2), empty.mean() - empty)
        np.testing.assert_allclose(np.array(member.scale), scale / 16, rtol=1e-6)
        np.testing.assert_allclose(np.array(member.shift), shift / 16, rtol=1e-6)


@pytest.mark.parametrize("passes", [1, 6])
def test_dev_and_the_referee_see_the_same_classifier(bench: Bench, passes: int) -> None:
    """Dev scores in the notes are those that applying the answers gives; an ensemble averages probabilities."""
    answers, lm = run(bench, passes=passes)
    _, task, shots = bench.setting()
    for answer in (a for a in answers if "dev" in a.note):
        p = probabilities(answer, task, lm.free, shots.dev.texts)
        assert (p.argmax(axis=1) == shots.dev.labels).mean() == answer.note["dev"]


def test_bare_template_comes_back_where_it_is_better(bench: Bench) -> None:
    """A decoder that turns the logits around loses on dev."""
    answers, lm = run(bench, logit_weight=-5.0)
    assert [a.members[0].head is None for a in answers] == [True, False, True]
    assert lm.meter.spent == 64


def test_same_seed_gives_the_same_bytes(bench: Bench) -> None:
    """All chance comes from the generator that is handed in; another seed gives another decoder."""
    first, again, other = (to_bytes(run(bench, seed, passes=2)[0][1]) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_tiny_budget_still_gives_an_answer(bench: Bench, calls: int) -> None:
    """With one call the decoder is there, though dev has not seen it."""
    answers, lm = run(bench, calls=calls, passes=2)
    assert answers[1].members[0].head is not None
    assert lm.budget.rows_left >= 0


def test_answers_survive_the_wire(bench: Bench) -> None:
    """An answer read back from its bytes scores the same."""
    answers, lm = run(bench)
    assert accuracy(from_bytes(to_bytes(answers[-1])), lm) == accuracy(answers[-1], lm)


@pytest.mark.parametrize("passes", [0, 65])
def test_too_many_members_are_refused(dect: ModuleType, passes: int) -> None:
    """Before anything is paid."""
    with pytest.raises(ValueError, match=f"passes={passes}"):
        dect.Config(passes=passes)
