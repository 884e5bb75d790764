"""Feature-MLP: what the perceptron learns, early stopping, price."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, MlpHead, Shots, Task, negative_log_likelihood
from harness.blackbox.fake import FakeLM, fake_examples, fake_shots, fake_task
from harness.solving import Selection
from harness.solving.answers import check, from_bytes, probabilities, to_bytes

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench


@pytest.fixture(scope="module")
def mlp(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("feature_mlp")


def setting(per_class: int = 16, calls: int = 300, classes: int = 2) -> tuple[FakeLM, Task, Shots]:
    """A fake model with a split of any size."""
    task = fake_task(classes)
    shots = fake_shots(task, np.random.default_rng(100), per_class)
    return FakeLM.for_task(task, shots, calls), task, shots


def run(mlp: ModuleType, lm: FakeLM, task: Task, shots: Shots, seed: int = 0, **options: Any) -> list[Answer]:
    """All answers of one run."""
    answers = []
    with contextlib.suppress(BudgetExhausted):
        for answer in mlp.tune(lm, task, shots, np.random.default_rng(seed), mlp.Config(**options)):
            check(answer, task, lm.info.width)
            answers.append(answer)
    return answers


def accuracy(answer: Answer, lm: FakeLM) -> float:
    """Test accuracy."""
    test = fake_examples(lm.free.task, 1000, np.random.default_rng(999))
    p = probabilities(answer, lm.free.task, lm.free, test.texts)
    return float((p.argmax(axis=1) == test.labels).mean())


def watch(mlp: ModuleType, patch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Metric and minus loss of each look at dev."""
    seen: list[tuple[float, float]] = []
    better = Selection.better

    def watched(self: Selection, q: Any, losses: Any) -> Any:
        found = better(self, q, losses)
        (predicted,) = q.argmax(axis=-1)
        seen.append((float((predicted == self._dev.labels).mean()), -float(losses[0])))
        return found

    patch.setattr(mlp.Selection, "better", watched)
    return seen


def test_best_weights_on_dev_are_returned(mlp: ModuleType) -> None:
    """Training goes on past them for `patience` steps, then ends; dev labels of pure chance are soon at their best."""
    lm, task, shots = setting()
    chance = replace(shots, dev=replace(shots.dev, labels=np.random.default_rng(0).integers(2, size=len(shots.dev))))
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(mlp, patch)
        answer = run(mlp, lm, task, chance, patience=40, eta=0.01)[-1]
    (member,) = answer.members
    outs = lm.free.outputs(None, chance.dev.texts, task.template, task.words, member.features)
    p = member.probabilities(outs)
    metric = float((p[0].argmax(axis=-1) == chance.dev.labels).mean())
    loss = float(negative_log_likelihood(p, chance.dev.labels)[0])
    assert (metric, -loss) == pytest.approx(max(seen), rel=1e-5)
    assert answer.note["dev"] == max(seen)[0]
    outs = lm.free.outputs(None, chance.train.texts, task.template, task.words, member.features)
    p = member.probabilities(outs)
    assert answer.note["loss"] == pytest.approx(float(negative_log_likelihood(p, chance.train.labels)[0]), rel=1e-5)
    assert len(seen) == seen.index(max(seen)) + 1 + 40 / 2  # two steps an epoch
    assert len(seen) < mlp.Config().epochs


@pytest.mark.parametrize(("epochs", "batch"), [(7, 16), (7, 5), (3, 1000)])
def test_epochs_end_training(mlp: ModuleType, epochs: int, batch: int) -> None:
    """Unless patience ends it before; a batch may be larger than the training set."""
    lm, task, shots = setting()
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(mlp, patch)
        run(mlp, lm, task, shots, epochs=epochs, batch=batch)
    assert len(seen) == epochs


def test_steps_of_a_batch_count_towards_patience(mlp: ModuleType) -> None:
    """Nothing gets better at a vanishing learning rate: 2, 7 or 1 steps an epoch."""
    lm, task, shots = setting()
    for batch, epochs in ((16, 1 + 7), (5, 1 + 2), (1000, 1 + 14)):
        with pytest.MonkeyPatch.context() as patch:
            seen = watch(mlp, patch)
            run(mlp, lm, task, shots, batch=batch, patience=14, eta=1e-300)
        assert len(seen) == epochs


@pytest.mark.parametrize("classes", [2, 3])
def test_training_lowers_the_loss_by_adam_on_cross_entropy(mlp: ModuleType, classes: int) -> None:
    """The first step moves every weight by the learning rate, whatever the size of its gradient."""
    lm, task, shots = setting(classes=classes)
    heads = [run(mlp, lm, task, shots, epochs=1, batch=1000, eta=eta)[-1].members[0].head for eta in (1e-9, 1e-3)]
    start, after = heads
    assert isinstance(start, MlpHead)
    assert isinstance(after, MlpHead)
    np.testing.assert_allclose(np.abs(after.weight1 - start.weight1), 1e-3, rtol=0.02)
    assert (start.weight2[0] == 0).all() == (classes == 2)
    losses = [run(mlp, lm, task, shots, epochs=epochs, eta=0.01)[-1].note["loss"] for epochs in (1, 50)]
    assert losses[1] < losses[0] - 0.1


@pytest.mark.parametrize("features", ["cls", "mask"])
@pytest.mark.parametrize("per_class", [5, 16])
def test_budget_is_as_predicted(mlp: ModuleType, features: str, per_class: int) -> None:
    """Train and dev once."""
    lm, task, shots = setting(per_class)
    run(mlp, lm, task, shots, features=features, epochs=3)
    assert lm.meter.spent == len(shots.train) + len(shots.dev)


@pytest.mark.parametrize(("features", "least"), [("mask", 0.72), ("cls", 0.56)])
def test_perceptron_finds_the_planted_signal(mlp: ModuleType, features: str, least: float) -> None:
    """The manual prompt has 0.62 and chance 0.5; the fake's first token is twice as blurred as its mask."""
    lm, task, shots = setting(per_class=128)
    bare, head = run(mlp, lm, task, shots, features=features)
    assert bare == Answer.of(task)
    assert accuracy(head, lm) > least  # one standard error is 0.016


def test_head_alone_decides_on_the_features_it_was_trained_on(mlp: ModuleType) -> None:
    """Alpha is 1, the features are those of the config, and dev's score is the referee's."""
    lm, task, shots = setting()
    for features in ("cls", "mask"):
        answer = run(mlp, lm, task, shots, features=features)[-1]
        (member,) = answer.members
        assert (member.alpha, member.features, member.prompt) == (1.0, features, None)
        p = probabilities(answer, task, lm.free, shots.dev.texts)
        assert (p.argmax(axis=1) == shots.dev.labels).mean() == answer.note["dev"]


def test_hidden_size_is_the_width_unless_given(mlp: ModuleType) -> None:
    """Both layers follow."""
    lm, task, shots = setting(classes=3)
    for hidden, size in ((None, lm.info.width), (7, 7)):
        head = run(mlp, lm, task, shots, hidden=hidden, epochs=2)[-1].members[0].head
        assert (head.weight1.shape, head.weight2.shape) == ((size, lm.info.width), (3, size))


def test_same_seed_gives_the_same_bytes(mlp: ModuleType) -> None:
    """All chance comes from the generator that is handed in; another seed gives other weights."""
    first, again, other = (to_bytes(run(mlp, *setting(), seed, epochs=20)[-1]) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(("calls", "answers"), [(1, 1), (2, 2), (3, 2)])
def test_a_tiny_budget_still_gives_an_answer(mlp: ModuleType, calls: int, answers: int) -> None:
    """One call buys the features of train, but no dev to stop by: the bare template stays."""
    assert len(run(mlp, *setting(calls=calls), epochs=2)) == answers


def test_answers_survive_the_wire(mlp: ModuleType) -> None:
    """An answer read back from its bytes scores the same."""
    lm, task, shots = setting()
    last = run(mlp, lm, task, shots)[-1]
    assert accuracy(from_bytes(to_bytes(last)), lm) == accuracy(last, lm)
