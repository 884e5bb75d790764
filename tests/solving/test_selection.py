"""Selection on dev uses the task's metric."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness import Examples, Task
from harness.solving import Selection, cross_entropy, macro_f1, score

TASK = Task("pair", ("no", "yes"), "accuracy", "{a} {mask}", (" No", " Yes"))


def examples(labels: list[int]) -> Examples:
    return Examples(tuple((f"{n}",) for n in range(len(labels))), np.array(labels))


def says(*predicted: list[int]) -> np.ndarray:
    """Logits (candidates, texts, 2) of what is predicted."""
    return np.eye(2)[np.array(predicted)]


def test_on_mrpcs_metric_the_order_of_two_predictions_is_reversed() -> None:
    """22 of 32 pairs are of class 1. Saying 1 everywhere has the higher F1 of class 1 and the lower macro-F1."""
    labels = [1] * 22 + [0] * 10
    ones = [1] * 32
    careful = [1] * 15 + [0] * 7 + [0] * 10  # 7 misses: F1 0.811 and macro-F1 0.776, against 0.815 and 0.407
    dev, q = examples(labels), says(careful, ones)
    f1, macro = (score(metric, np.array([careful, ones]), dev.labels, 2) for metric in ("f1", "macro_f1"))
    assert f1[0] < f1[1]
    assert macro[0] > macro[1]
    losses = np.zeros(2)
    for metric, last in (("f1", 1), ("macro_f1", 0), ("accuracy", 0)):
        found = Selection(replace(TASK, metric=metric), dev).better(q, losses)
        assert found[-1][0] == last
        assert found[-1][1] == pytest.approx(float(score(metric, q[last].argmax(axis=1), dev.labels, 2)))


def test_ties_of_the_metric_are_broken_by_the_loss() -> None:
    dev = examples([0, 1, 1])
    q = says([0, 1, 0], [0, 1, 0], [0, 1, 0])
    selection = Selection(TASK, dev)
    assert selection.better(q, np.array([0.5, 0.4, 0.6])) == [(0, 2 / 3), (1, 2 / 3)]
    assert selection.better(q[:1], np.array([0.4])) == []
    assert selection.better(says([0, 1, 1]), np.array([9.0])) == [(0, 1.0)]


def test_the_loss_may_decide_and_the_metric_break_its_ties() -> None:
    dev = examples([0, 1, 1])
    selection = Selection(TASK, dev, "loss")
    assert selection.better(says([0, 1, 1], [1, 0, 0]), np.array([0.5, 0.4])) == [(0, 1.0), (1, 0.0)]
    assert selection.better(says([0, 1, 1], [0, 1, 1]), np.array([0.4, 0.4])) == [(0, 1.0)]


def test_the_metric_alone_starts_at_zero_and_keeps_the_earliest() -> None:
    dev = examples([0, 1])
    selection = Selection(TASK, dev, "metric-alone")
    assert selection.better(says([1, 0]), np.array([0.0])) == []
    assert selection.better(says([0, 0], [1, 1]), np.array([0.9, 0.1])) == [(0, 0.5)]
    assert selection.better(says([0, 1]), np.array([5.0])) == [(0, 1.0)]


def test_the_best_is_kept_from_look_to_look() -> None:
    rng = np.random.default_rng(0)
    dev = examples(rng.integers(2, size=20).tolist())
    selection, best = Selection(TASK, dev), (-1.0, 0.0)
    for _ in range(30):
        q = rng.normal(size=(3, 20, 2))
        losses = cross_entropy(q, dev.labels)
        for k, metric in selection.better(q, losses):
            assert (metric, -losses[k]) > best
            best = (metric, -losses[k])
    assert best[0] > 0.7


def test_probabilities_will_do_as_well_as_logits() -> None:
    dev, q = examples([0, 1, 0, 1]), np.random.default_rng(1).normal(size=(6, 4, 2))
    losses = cross_entropy(q, dev.labels)
    p = np.exp(q) / np.exp(q).sum(axis=-1, keepdims=True)
    assert Selection(TASK, dev).better(q, losses) == Selection(TASK, dev).better(p, losses)


def test_macro_f1_decides_where_it_is_the_tasks() -> None:
    task = replace(TASK, classes=("a", "b", "c"), metric="macro_f1")
    dev = Examples((("x",),) * 5, np.array([0, 0, 0, 1, 2]))
    q = np.eye(3)[np.array([[0, 0, 0, 0, 0], [0, 1, 2, 1, 2]])]
    ((_, first), (k, metric)) = Selection(task, dev).better(q, np.zeros(2))
    assert (k, metric) == (1, pytest.approx(float(macro_f1(np.array([0, 1, 2, 1, 2]), dev.labels, 3))))
    assert first < metric


@pytest.mark.parametrize(("texts", "losses"), [(3, 1), (2, 2)])
def test_numbers_that_do_not_fit_are_refused(texts: int, losses: int) -> None:
    with pytest.raises(ValueError, match=r"broadcast|argument"):
        Selection(TASK, examples([0, 1])).better(np.zeros((1, texts, 2)), np.zeros(losses))
