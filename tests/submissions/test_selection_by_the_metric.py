"""Every submission that looks at dev selects by the metric that the referee scores the task by: F1 of class 1, too."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import BudgetExhausted, Examples, Shots
from harness.blackbox.fake import FakeLM, fake_examples, fake_task
from harness.solving import score
from harness.solving.answers import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.contract import Metric

    from .conftest import Bench

SELECTING: dict[str, dict[str, Any]] = {
    "ajo": {"dim": 10},
    "bbt": {"dim": 10},
    "bdpl": {"samples": 5, "rate": 0.05},
    "bbt_rgb": {"dim": 10},
    "bbtv2": {"dim": 10},
    "dect": {"passes": 4},
    "feature_bilstm": {"units": 4, "epochs": 10, "eta": 0.02},
    "feature_mlp": {"epochs": 20},
    "house": {"dim": 10},
    "icl": {"sets": 4},
    "nevergrad": {"dim": 10, "optimizer": "CMA"},
    "projection_free_es": {},
    "random_search": {"dim": 10},
    "random_template_search": {},
    "instruction_search": {},
    "spsa": {"dim": 10},
}


def possible(metric: Metric, labels: NDArray[np.int64]) -> list[Any]:
    """All values that a metric can have on these labels of two classes, by the number of hits in each."""
    ones, zeros = int((labels == 1).sum()), int((labels == 0).sum())
    order = np.argsort(-labels, kind="stable")
    found = np.zeros(((ones + 1) * (zeros + 1), len(labels)), dtype=np.int64)
    for n, (a, b) in enumerate(product(range(ones + 1), range(zeros + 1))):
        found[n, order] = [1] * a + [0] * (ones - a) + [0] * b + [1] * (zeros - b)
    return [pytest.approx(value) for value in np.unique(score(metric, found, labels, 2)).tolist()]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "f1"])
@pytest.mark.parametrize("name", SELECTING)
def test_dev_decides_by_the_tasks_metric(bench: Bench, name: str, metric: Metric) -> None:
    """On an unbalanced dev set the three differ. An answer's note has the metric of what it predicts on dev."""
    task, rng = replace(fake_task(), metric=metric), np.random.default_rng(3)
    train, dev = fake_examples(task, 32, rng), fake_examples(task, 60, rng)
    rows = np.concatenate([np.flatnonzero(dev.labels == 1)[:22], np.flatnonzero(dev.labels == 0)[:10]])
    shots = Shots(train, Examples(tuple(dev.texts[i] for i in rows), dev.labels[rows]))
    lm, answers = FakeLM.for_task(task, shots, 150), []
    module = bench.load(name)
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, task, shots, np.random.default_rng(0), module.Config(**SELECTING[name])):
            answers.append(answer)  # noqa: PERF402 - what came before the budget's end is wanted
    noted = [answer for answer in answers if "dev" in answer.note]
    assert noted
    for answer in noted:
        if name == "house":  # dev texts are judged by fits without them: only the grid of possible values tells
            assert answer.note["dev"] in possible(metric, shots.dev.labels)
            continue
        predicted = probabilities(answer, task, lm.free, shots.dev.texts).argmax(axis=1)
        assert answer.note["dev"] == pytest.approx(float(score(metric, predicted, shots.dev.labels, 2)))
