"""Variances of scores and differences: hand cases, invariances, moderation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.leaderboard.stats import Scores, TaskPredictions, TaskScores, moderated, scores_of
from harness.leaderboard.ties import Pairs
from harness.solving.metrics import score

if TYPE_CHECKING:
    from harness.contract import Metric
    from harness.leaderboard.stats import FloatArray

METRICS: list[Metric] = ["accuracy", "macro_f1", "f1"]


def random_task(
    seed: int, metric: Metric = "macro_f1", systems: int = 4, splits: int = 3, items: int = 40, classes: int = 3
) -> TaskPredictions:
    """Predictions that are right more often than by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=items)
    guesses = rng.integers(classes, size=(systems, splits, items))
    return TaskPredictions(np.where(rng.random(guesses.shape) < 0.4, labels, guesses), labels, metric, classes)


def exact(scores: list[list[float]], items: int = 100) -> TaskScores:
    """Scores (systems, splits) whose items add no noise."""
    table = np.array(scores)
    none = np.zeros((len(table), len(table)))
    return TaskScores(table, none, none, items)


@pytest.mark.parametrize("metric", METRICS)
def test_the_observed_score_is_the_mean_over_splits_and_tasks(metric: Metric) -> None:
    tasks = [random_task(1, metric), random_task(2, metric, splits=2)]
    found = scores_of(tasks)
    by_hand = [score(metric, t.predicted, t.labels, 3).mean(axis=1) for t in tasks]
    np.testing.assert_allclose(found.observed, by_hand)
    assert found.score(2).value == pytest.approx(np.mean(by_hand, axis=0)[2])
    assert found.score(2, 1).value == pytest.approx(by_hand[1][2])


def test_mean_squares_are_those_of_a_two_way_layout() -> None:
    """Accuracy of one system on 3 splits of 40 items: splits, items and rest of a table of 0 and 1."""
    task = random_task(3, "accuracy", systems=1)
    right = (task.predicted[0] == task.labels).astype(float)  # (splits, items)
    splits, items = right.mean(axis=1, keepdims=True), right.mean(axis=0, keepdims=True)
    ms_splits = 40 * ((splits - right.mean()) ** 2).sum() / 2
    ms_items = 3 * ((items - right.mean()) ** 2).sum() / 39
    ms_rest = ((right - splits - items + right.mean()) ** 2).sum() / (2 * 39)
    (found,) = scores_of([task]).tasks
    assert found.between[0, 0] == pytest.approx(ms_splits / 120)
    assert found.items[0, 0] == pytest.approx(ms_items / 120)
    assert found.rest[0, 0] == pytest.approx(ms_rest / 120)


def test_the_interval_of_one_system_without_noise_of_items_is_students() -> None:
    """Three splits at 0.6, 0.7, 0.8: 0.7 -+ 4.30 * 0.1 / sqrt(3)."""
    found = Scores((exact([[0.6, 0.7, 0.8]]),)).score(0)
    half = scipy_stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + half))


def test_two_systems_are_compared_by_the_paired_t() -> None:
    """What splits do to both does not count, and the pair's own variance has its own degrees of freedom."""
    scores = [[0.60, 0.72, 0.90, 0.84], [0.58, 0.70, 0.84, 0.83]]
    found = Scores((exact(scores),)).differences()
    expected = scipy_stats.ttest_rel(*scores)
    assert found.values[0, 1] / found.errors[0, 1] == pytest.approx(expected.statistic)
    assert found.freedom[0, 1] == pytest.approx(3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_differences_are_antisymmetric_and_errors_are_not(seed: int) -> None:
    found = scores_of([random_task(seed), random_task(seed + 1)]).differences()
    np.testing.assert_allclose(found.values, -found.values.T)
    np.testing.assert_allclose(found.errors, found.errors.T)
    assert (np.diagonal(found.errors) == 0).all()
    off = ~np.eye(4, dtype=bool)
    assert (found.freedom[off] >= 2 - 1e-9).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_systems_splits_and_items_does_not_matter(seed: int) -> None:
    task, rng = random_task(seed), np.random.default_rng(seed)
    systems, splits, items = rng.permutation(4), rng.permutation(3), rng.permutation(40)
    mixed = TaskPredictions(
        task.predicted[systems][:, splits][..., items], task.labels[items], task.metric, task.classes
    )
    one, other = scores_of([task]).differences(), scores_of([mixed]).differences()
    np.testing.assert_allclose(one.errors[np.ix_(systems, systems)], other.errors, atol=1e-12)
    np.testing.assert_allclose(one.values[np.ix_(systems, systems)], other.values, atol=1e-12)


def test_some_systems_alone_are_what_they_would_be_alone() -> None:
    tasks = [random_task(1), random_task(2)]
    few = [TaskPredictions(t.predicted[[0, 2]], t.labels, t.metric, t.classes) for t in tasks]
    one, other = scores_of(tasks).among([0, 2]), scores_of(few)
    np.testing.assert_allclose(one.differences().errors, other.differences().errors)
    assert one.score(1).low == pytest.approx(other.score(1).low)


def test_copies_differ_by_nothing_and_are_known_to() -> None:
    task = random_task(0, systems=1)
    twice = TaskPredictions(np.repeat(task.predicted, 3, axis=0), task.labels, task.metric, task.classes)
    found = scores_of([twice]).differences()
    assert not found.values.any()
    np.testing.assert_allclose(found.errors, 0, atol=1e-9)


def test_noise_that_is_new_in_each_split_is_not_counted_twice() -> None:
    """Answers drawn anew for each split and system: the standard error is that of the scores themselves, not more."""
    rng = np.random.default_rng(0)
    labels = np.ones(200, dtype=np.int64)
    claimed, values = [], []
    for _ in range(300):
        tasks = [TaskPredictions((rng.random((8, 3, 200)) < 0.7) * 1, labels, "accuracy", 2) for _ in range(5)]
        found = scores_of(tasks).differences()
        claimed.append((found.errors[np.triu_indices(8, 1)] ** 2).mean())
        values.append(found.values[0, 1])
    truth = 2 * 0.7 * 0.3 / (200 * 15)
    assert np.mean(claimed) == pytest.approx(truth, rel=0.15)
    assert np.var(values) == pytest.approx(truth, rel=0.3)


def test_variances_alike_get_their_mean_and_all_degrees_of_freedom() -> None:
    """They spread less than chance spreads them."""
    found, df = moderated(np.array([1.0, 1.1, 0.9]), 10, 20)
    assert found.tolist() == pytest.approx([1, 1, 1])
    assert df == 20


def test_variances_that_differ_are_drawn_to_the_middle_by_part_of_the_way() -> None:
    """Small ones up, large ones not down, and the degrees of freedom grow by those of the prior."""
    own = np.array([0.01, 0.05, 1.0, 2.0, 30.0, 100.0])
    found, df = moderated(own, 10, 50)
    assert 10 < df < 20
    assert (np.diff(found) > 0).all()
    assert found[0] > own[0]
    assert found[-1] == own[-1]


def test_the_prior_is_found_again() -> None:
    """True variances of 2 * 8 / chi^2(8): 8 degrees of freedom and the scale 2."""
    rng = np.random.default_rng(0)
    observed = 2 * 8 / rng.chisquare(8, 20_000) * rng.chisquare(10, 20_000) / 10
    found, df = moderated(observed, 10, 1e9)
    assert df == pytest.approx(18, rel=0.05)
    np.testing.assert_allclose(found, np.maximum((10 * observed + 8 * 2) / 18, observed), rtol=0.05)


@pytest.mark.parametrize("own", [[0.0, 0.0, 0.0], [0.0, 1.0, 1.2], [0.0, 0.0, 1.0], [0.3]])
def test_variances_of_0_do_no_harm(own: list[float]) -> None:
    """Entries that answer alike on every split have such differences."""
    found, df = moderated(np.array(own), 10, 20)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert 10 <= df <= 20


@pytest.mark.parametrize(
    ("splits", "carries"),
    [([3] * 5, True), ([3], False), ([7], True), ([6], False), ([3, 3, 3], True), ([9, 1], False)],
)
def test_ranks_need_degrees_of_freedom(splits: list[int], carries: bool) -> None:
    """Six, and two splits of every task."""
    tasks = tuple(exact([[0.5] * n, [0.6] * n]) for n in splits)
    assert Scores(tasks).carries_ranks == carries


def test_one_split_has_intervals_of_items_alone() -> None:
    """40 items: 0.5 -+ 2.02 sqrt(sum psi^2 / (40 * 39))."""
    labels = np.ones(40, dtype=np.int64)
    right = np.array([[np.arange(40) % 2]])
    found = scores_of([TaskPredictions(right, labels, "accuracy", 2)]).score(0)
    half = scipy_stats.t.ppf(0.975, 39) * np.sqrt(40 * 0.25 / (40 * 39))
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_the_same_tuning_on_two_test_sets_is_paired_by_split() -> None:
    """What a split does to both falls out; the noise of both sets of items stays."""
    one = TaskScores(np.array([[0.6, 0.8]]), np.array([[3e-4]]), np.array([[1e-4]]), 50)
    other = TaskScores(np.array([[0.5, 0.7]]), np.array([[2e-4]]), np.array([[0.0]]), 30)
    found = one.minus(other)
    np.testing.assert_allclose(found.scores, [[0.1, 0.1]])
    assert found.between[0, 0] == pytest.approx(0)
    assert (found.items[0, 0], found.rest[0, 0], found.size) == (5e-4, 1e-4, 30)


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 5), (2, 3, 4)])
def test_predictions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(systems, splits, items\) is needed"):
        TaskPredictions(np.zeros(shape, dtype=np.int64), np.zeros(5, dtype=np.int64), "accuracy", 2)


def covered(found: FloatArray, halves: FloatArray) -> float:
    """Share of intervals that hold 0."""
    return float((abs(found) <= halves).mean())


def test_intervals_of_single_scores_hold_the_truth() -> None:
    """Three splits of five tasks, 2 points shared and 2 of its own, 300 items: 93 to 99 % of 400 draws."""
    rng = np.random.default_rng(0)
    off, halves = [], []
    for _ in range(400):
        tasks = []
        for _ in range(5):
            chance = 0.7 + 0.02 * rng.standard_normal(3) + 0.02 * rng.standard_normal((2, 3))
            right = rng.random((2, 3, 300)) < chance[..., None]
            tasks.append(TaskPredictions(right * 1, np.ones(300, dtype=np.int64), "accuracy", 2))
        value, half = scores_of(tasks).singles()
        off.append(value - 0.7)
        halves.append(half)
    assert 0.93 <= covered(np.array(off), np.array(halves)) <= 0.99


def alike_but_for_new_items() -> list[TaskPredictions]:
    """Two systems on five tasks of three splits; on the first task one of them has another item more in each split."""
    rng = np.random.default_rng(4)
    labels, tasks = rng.integers(2, size=200), []
    for task in range(5):
        one = np.where(rng.random((3, 200)) < 0.7, labels, 1 - labels)
        other = one.copy()
        wrong = [np.flatnonzero(row != labels)[10 * n] for n, row in enumerate(one)]
        if task == 0:
            other[range(3), wrong] = labels[wrong]
        tasks.append(TaskPredictions(np.stack([other, one]), labels, "accuracy", 2))
    return tasks


def test_splits_that_differ_by_exactly_the_same_are_no_certainty() -> None:
    """One item more in each split is 0.1 points; the variance is that of three items out of 200."""
    scores = scores_of(alike_but_for_new_items())
    found = scores.differences()
    assert found.values[0, 1] == pytest.approx(1 / 200 / 5)
    assert found.errors[0, 1] == pytest.approx(np.sqrt(3) / (3 * 200) / 5, rel=0.01)
    assert Pairs(found).ranks().tolist() == [1, 1]
    assert Pairs(found).compare(0, 1).difference.low < 0


def test_a_score_that_is_the_same_on_all_splits_has_an_interval() -> None:
    """It gets other items right in each split, so that its score is not certain."""
    labels = np.zeros(60, dtype=np.int64)
    wrong = np.stack([np.roll(np.arange(60) < 15, 15 * n) for n in range(3)])
    found = scores_of([TaskPredictions(wrong[None] * 1, labels, "accuracy", 2)]).score(0)
    assert found.value == 0.75
    assert found.low < 0.7
    assert found.high > 0.8
