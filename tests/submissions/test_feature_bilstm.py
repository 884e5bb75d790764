"""Feature-BiLSTM: the answer is the trained network, price, determinism."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from harness import Answer, BudgetExhausted, Shots, Task
from harness.blackbox.fake import FakeLM, fake_examples, fake_shots, fake_task
from harness.contract import heads
from harness.solving.answers import check, from_bytes, probabilities, to_bytes

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench

FAST = {"units": 4, "epochs": 40, "eta": 0.02}


@pytest.fixture(scope="module")
def bilstm(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("feature_bilstm")


def setting(per_class: int = 16, calls: int = 300, classes: int = 2) -> tuple[FakeLM, Task, Shots]:
    """A fake model with a split of any size."""
    task = fake_task(classes)
    shots = fake_shots(task, np.random.default_rng(100), per_class)
    return FakeLM.for_task(task, shots, calls), task, shots


def run(module: ModuleType, lm: FakeLM, task: Task, shots: Shots, seed: int = 0, **options: Any) -> list[Answer]:
    """All answers of one run."""
    answers = []
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, task, shots, np.random.default_rng(seed), module.Config(**{**FAST, **options})):
            check(answer, task, lm.info.width)
            answers.append(answer)
    return answers


def test_the_head_is_the_network(bilstm: ModuleType) -> None:
    """Exported weights give the network's own logits, text by text, whatever the padding."""
    torch.manual_seed(0)
    network, lengths = bilstm.Network(6, 3, 4), torch.tensor([2, 5, 1])
    h = torch.randn(3, 5, 6)
    with torch.inference_mode():
        wanted = network(h, lengths).numpy()
    np.testing.assert_allclose(heads.logits(network.head(), h.numpy(), lengths.numpy()), wanted, atol=1e-6)


def test_it_learns_what_the_words_say(bilstm: ModuleType) -> None:
    """Better than the bare template, on texts it never saw."""
    lm, task, shots = setting(per_class=32)
    answers = run(bilstm, lm, task, shots)
    test = fake_examples(task, 1000, np.random.default_rng(999))
    scores = [
        float((probabilities(a, task, lm.free, test.texts).argmax(axis=1) == test.labels).mean()) for a in answers
    ]
    assert len(scores) == 2
    assert scores[1] > scores[0] + 0.1
    assert answers[1].note["dev"] > 0.7


@pytest.mark.parametrize(("per_class", "classes"), [(16, 2), (5, 3), (1, 14)])
def test_rows_are_those_of_train_and_dev(bilstm: ModuleType, per_class: int, classes: int) -> None:
    """Whatever the number of texts a query holds."""
    lm, task, shots = setting(per_class, classes=classes)
    run(bilstm, lm, task, shots, epochs=1)
    assert lm.meter.spent == len(shots.train) + len(shots.dev)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_tiny_budget_still_gives_an_answer(bilstm: ModuleType, calls: int) -> None:
    """One call does not pay for dev: the bare template stands."""
    lm, task, shots = setting(calls=calls)
    assert len(run(bilstm, lm, task, shots, epochs=1)) == calls


def test_all_chance_comes_from_the_generator(bilstm: ModuleType) -> None:
    """Same seed, same bytes, whatever torch's own generator has seen; and it is left as it was."""
    blobs = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(blobs))
        before = torch.get_rng_state()
        blobs.append(to_bytes(run(bilstm, *setting(), seed=seed)[-1]))
        assert torch.equal(torch.get_rng_state(), before)
    assert blobs[0] == blobs[1] != blobs[2]


def test_answers_survive_the_wire(bilstm: ModuleType) -> None:
    """An answer read back from its bytes says the same."""
    lm, task, shots = setting()
    last = run(bilstm, lm, task, shots)[-1]
    texts = shots.dev.texts
    np.testing.assert_array_equal(
        probabilities(from_bytes(to_bytes(last)), task, lm.free, texts), probabilities(last, task, lm.free, texts)
    )


def test_training_stops_when_dev_does_not_get_better(bilstm: ModuleType) -> None:
    """With a learning rate of 0 nothing ever improves on the first epoch."""
    lm, task, shots = setting()
    steps = 0
    step = torch.optim.Adam.step

    def counted(self: Any, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", counted)
        run(bilstm, lm, task, shots, eta=0.0, patience=6, epochs=100)
    assert steps == 2 + 6  # two batches an epoch: the first epoch is the best
