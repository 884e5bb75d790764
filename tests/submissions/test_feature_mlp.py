"""Feature-MLP: gradients, early stopping, price."""

from __future__ import annotations

import contextlib
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Shots, Task, cross_entropy
from harness.blackbox.fake import FakeLM, fake_examples, fake_shots, fake_task
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


def test_gradients_are_those_of_the_loss(mlp: ModuleType) -> None:
    """Against central differences, in float64."""
    rng = np.random.default_rng(2)
    parameters = [p.astype(np.float64) for p in mlp.first_weights(5, 4, 3, rng)]
    h, labels = rng.normal(size=(6, 5)), rng.integers(3, size=6)
    for parameter, gradient in zip(parameters, mlp.gradient(parameters, h, labels), strict=True):
        assert gradient.shape == parameter.shape
        for index in np.ndindex(parameter.shape):
            kept = parameter[index]
            values = []
            for step in (1e-5, -1e-5):
                parameter[index] = kept + step
                values.append(float(cross_entropy(mlp.scores(parameters, h), labels)))
            parameter[index] = kept
            assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_first_step_of_adam_is_the_learning_rate(mlp: ModuleType) -> None:
    """Each weight moves by eta against the sign of its gradient, in place."""
    p = np.array([1.0, 2.0, 3.0])
    adam = mlp.Adam([p], 0.1)
    adam.step([np.array([5.0, -0.01, 0.0])])
    np.testing.assert_allclose(p, [0.9, 2.1, 3.0], atol=1e-6)


def test_first_weights_are_as_wide_as_their_inputs_say(mlp: ModuleType) -> None:
    """U(+-1/sqrt(inputs)), biases too."""
    v1, b1, v2, b2 = mlp.first_weights(400, 100, 5, np.random.default_rng(0))
    assert [p.shape for p in (v1, b1, v2, b2)] == [(100, 400), (100,), (5, 100), (5,)]
    assert v1.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.02)
    assert np.abs(v1).max() <= 0.05 >= np.abs(b1).max()
    assert np.abs(v2).max() <= 0.1 >= np.abs(b2).max()
    assert v1.dtype == np.float32


def test_best_weights_on_dev_are_returned(mlp: ModuleType) -> None:
    """Training goes on past them for `patience` steps, then ends; dev labels of pure chance are soon at their best."""
    rng = np.random.default_rng(0)
    _, task, shots = setting()
    h, h_dev = (rng.normal(size=(32, 16)).astype(np.float32) for _ in range(2))
    seen: list[tuple[float, float]] = []
    judge = mlp.judge

    def watched(*args: Any) -> tuple[float, float]:
        seen.append(judge(*args))
        return seen[-1]

    config, weights = mlp.Config(patience=40, eta=0.01), mlp.first_weights(16, 16, 2, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "judge", watched)
        best, loss, dev = mlp.train(weights, task, (h, shots.train.labels), (h_dev, shots.dev), rng, config)
    assert judge(task, mlp.scores(best, h_dev), shots.dev) == max(seen)
    assert dev == max(seen)[0]
    assert loss == pytest.approx(float(cross_entropy(mlp.scores(best, h), shots.train.labels)))
    assert len(seen) == seen.index(max(seen)) + 1 + 40 / 2  # two steps an epoch
    assert len(seen) < config.epochs


def test_epochs_end_training(mlp: ModuleType) -> None:
    """Whatever the patience."""
    lm, task, shots = setting()
    ever_better = count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "judge", lambda *_: (0.0, float(next(ever_better))))
        run(mlp, lm, task, shots, epochs=7, patience=1)
    assert next(ever_better) == 7


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
