"""Intervals: hand cases, invariances, coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.leaderboard import stats
from harness.leaderboard.stats import Bootstrap, Interval, TaskPredictions, bootstrap, speed_up, weighted_scores
from harness.solving.metrics import score

if TYPE_CHECKING:
    from harness.contract import IntArray, Metric
    from harness.leaderboard.stats import FloatArray

METRICS: list[Metric] = ["accuracy", "macro_f1", "f1"]
INF = float("inf")


def random_task(
    seed: int, metric: Metric = "macro_f1", systems: int = 2, splits: int = 3, items: int = 12, classes: int = 3
) -> TaskPredictions:
    """Predictions that are right more often than by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=items)
    guesses = rng.integers(classes, size=(systems, splits, items))
    return TaskPredictions(np.where(rng.random(guesses.shape) < 0.4, labels, guesses), labels, metric, classes)


def one_system(right: list[list[int]]) -> TaskPredictions:
    """A task of one system with accuracy as its metric: 1 where it is right, (splits, items)."""
    return TaskPredictions(np.array([right]), np.ones(len(right[0]), dtype=np.int64), "accuracy", 2)


def test_a_weighted_score_by_hand() -> None:
    """Right, right, wrong with weights 1, 0, 2: a third right; F1 of class 1 is 2 * 1 / (1 + 3), of class 0 it is 0."""
    labels, predicted = np.array([1, 0, 1]), np.array([[[1, 0, 0]]])
    weights = np.array([[1, 0, 2]])
    accuracy = weighted_scores(TaskPredictions(predicted, labels, "accuracy", 2), weights)
    macro_f1 = weighted_scores(TaskPredictions(predicted, labels, "macro_f1", 2), weights)
    f1 = weighted_scores(TaskPredictions(predicted, labels, "f1", 2), weights)
    assert accuracy.tolist() == [[[1 / 3]]]
    assert macro_f1.tolist() == [[[0.25]]]
    assert f1.tolist() == [[[0.5]]]


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 14))
@settings(max_examples=30, deadline=None)
def test_a_weighted_score_is_the_score_of_the_resampled_set(metric: Metric, seed: int, classes: int) -> None:
    """Counting items with weights is repeating them, classes that vanish included."""
    task = random_task(seed, metric, classes=classes)
    drawn = np.random.default_rng(seed + 1).integers(12, size=(4, 12))
    weights = np.stack([np.bincount(row, minlength=12) for row in drawn])
    repeated = [score(metric, task.predicted[..., row], task.labels[row], classes) for row in drawn]
    np.testing.assert_allclose(weighted_scores(task, weights), repeated, atol=1e-12)


def test_the_observed_score_is_the_mean_over_splits_and_tasks() -> None:
    """Splits at 1/2 and 1 make 3/4; with a task at 1/4 the average is 1/2."""
    tasks = [one_system([[1, 0, 1, 0], [1, 1, 1, 1]]), one_system([[1, 0, 0, 0]])]
    found = bootstrap(tasks, np.random.default_rng(0), 50)
    assert found.observed.tolist() == [[0.75], [0.25]]
    assert found.replicates.shape == (50, 2, 1)
    assert found.score(0, 0).value == 0.75
    assert found.score(0).value == 0.5


def test_replicates_are_computed_in_blocks_and_none_is_lost() -> None:
    """More replicates than fit a block, and not a multiple of it."""
    found = bootstrap([random_task(0)], np.random.default_rng(0), stats._BLOCK + 7)
    assert found.replicates.shape == (stats._BLOCK + 7, 1, 2)
    assert np.unique(found.replicates[:, 0, 0]).size > 20


def test_splits_alone_are_resampled_where_items_agree() -> None:
    """One split all right, one all wrong: a replicate is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4."""
    found = bootstrap([one_system([[1, 1, 1], [0, 0, 0]])], np.random.default_rng(0), 4_000)
    values, counts = np.unique(found.replicates, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(counts / 4_000, [0.25, 0.5, 0.25], atol=0.03)


def test_all_splits_see_the_same_items() -> None:
    """Two equal splits vary as one does: drawing items anew for each split would halve the variance."""
    right = [1, 0] * 20
    one, two = (bootstrap([one_system([right] * n)], np.random.default_rng(n), 4_000).replicates.var() for n in (1, 2))
    assert one == pytest.approx(0.25 / 40, rel=0.1)
    assert two == pytest.approx(one, rel=0.15)


def test_tasks_count_equally_whatever_their_size() -> None:
    """Three items all wrong pull as much as thirty all right."""
    found = bootstrap([one_system([[1] * 30]), one_system([[0] * 3])], np.random.default_rng(0), 20)
    assert found.score(0) == Interval(0.5, 0.5, 0.5)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_system_does_not_differ_from_itself(seed: int) -> None:
    """Exactly 0, with an interval of no width, and also from its copy."""
    task = random_task(seed)
    twice = TaskPredictions(task.predicted[[0, 1, 0]], task.labels, task.metric, task.classes)
    found = bootstrap([twice], np.random.default_rng(seed), 50)
    assert found.difference(0, 0) == found.difference(0, 2, 0) == Interval(0, 0, 0)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_difference_turns_around(seed: int) -> None:
    """A - b has the mirrored interval of b - a, and limits in order."""
    found = bootstrap([random_task(seed), random_task(seed + 1, "accuracy")], np.random.default_rng(seed), 60)
    forth, back = found.difference(0, 1), found.difference(1, 0)
    assert forth.low <= forth.high
    np.testing.assert_allclose([forth.value, forth.low, forth.high], [-back.value, -back.high, -back.low], atol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_names_of_classes_do_not_matter(metric: Metric, seed: int) -> None:
    """Renaming the classes leaves every replicate as it is, but for F1 of one of them."""
    task = random_task(seed, metric)
    names = np.array([2, 0, 1])
    renamed = TaskPredictions(names[task.predicted], names[task.labels], metric, 3)
    both = [bootstrap([t], np.random.default_rng(seed), 40).replicates for t in (task, renamed)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-12)
    assert ((both[0] >= 0) & (both[0] <= 1)).all()


def test_another_system_does_not_change_the_intervals_of_those_there() -> None:
    """The draws depend on splits and items alone."""
    three = random_task(4, systems=3)
    two = TaskPredictions(three.predicted[:2], three.labels, three.metric, three.classes)
    found = [bootstrap([task], np.random.default_rng(0), 100) for task in (two, three)]
    np.testing.assert_allclose(found[0].replicates, found[1].replicates[..., :2], atol=1e-12)


def test_the_same_seed_gives_the_same_interval() -> None:
    """And another seed another one."""
    task = random_task(1, items=60)
    same, again, other = (bootstrap([task], np.random.default_rng(seed), 200).score(0) for seed in (1, 1, 2))
    assert same == again
    assert same != other


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    """Two systems that err on nearly the same items."""
    rng = np.random.default_rng(0)
    right = (rng.random((3, 200)) < 0.7).astype(np.int64)
    other = right.copy()
    other[:, :10] = 1 - other[:, :10]
    task = TaskPredictions(np.stack([right, other]), np.ones(200, dtype=np.int64), "accuracy", 2)
    found = bootstrap([task], rng, 1_000)
    paired = found.difference(0, 1)
    alone = found.score(0)
    assert paired.high - paired.low < alone.high - alone.low


def test_an_interval_takes_the_percentiles() -> None:
    """2.5 and 97.5 of 0 .. 100."""
    found = Bootstrap(np.array([[40.0]]), np.arange(101.0)[:, None, None])
    interval = found.score(0)
    assert interval.value == 40
    assert [interval.low, interval.high] == pytest.approx([2.5, 97.5])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """300 repetitions with split and item effects; near 95 %, within what 300 can tell."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        chance = 0.7 + 0.02 * rng.standard_normal((4, 1)) + 0.2 * rng.choice([-1, 1], 150)  # (splits, items), mean 0.7
        task = one_system((rng.random((4, 150)) < chance).astype(np.int64).tolist())
        found = bootstrap([task], rng, 300).score(0)
        covered += found.low <= 0.7 <= found.high
    assert 0.9 <= covered / 300 <= 0.997


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [
        (np.zeros((3, 4)), np.zeros(4)),
        (np.zeros((1, 2, 4)), np.zeros(5)),
        (np.zeros((1, 0, 4)), np.zeros(4)),
        (np.zeros((1, 2, 0)), np.zeros(0)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(predicted: IntArray, labels: IntArray) -> None:
    """Axes, items, no split, no item."""
    with pytest.raises(ValueError, match="is needed"):
        TaskPredictions(predicted, labels, "accuracy", 2)


def test_a_speed_up_by_hand() -> None:
    """Shares 1/4 and 3/4 (mean 1/2) against 1 and 1/2 (3/4); second task 1/8 against 1/8: (3/4 + 1/8) / (1/2 + 1/8)."""
    system = [np.array([0.25, 0.75]), np.array([0.125])]
    reference = [np.array([1.0, 0.5]), np.array([0.125])]
    found = speed_up(system, reference, np.random.default_rng(0), 2_000)
    assert found.ratio.value == pytest.approx(1.4)
    assert (found.reached, found.cells) == (3, 3)
    assert found.ratio.low == pytest.approx(0.625 / 0.875)  # the second split twice
    assert found.ratio.high == pytest.approx(1.125 / 0.375)  # the first split twice


def test_a_target_that_is_never_reached_counts_as_the_whole_budget() -> None:
    """Censored at the budget, and counted."""
    censored = speed_up([np.array([INF, 0.5])], [np.array([0.5, 0.5])], np.random.default_rng(0), 100)
    whole = speed_up([np.array([1.0, 0.5])], [np.array([0.5, 0.5])], np.random.default_rng(0), 100)
    assert censored.ratio == whole.ratio
    assert censored.ratio.value == pytest.approx(0.5 / 0.75)
    assert (censored.reached, censored.cells) == (1, 2)
    assert whole.reached == 2


def test_equal_shares_are_no_speed_up() -> None:
    """Exactly 1, with an interval of no width."""
    shares = [np.array([0.3, 0.6, INF]), np.array([0.2])]
    assert speed_up(shares, shares, np.random.default_rng(0), 100).ratio == Interval(1, 1, 1)


@pytest.mark.parametrize("shares", [[], [np.array([])], [np.array([0.0, 0.5])], [np.array([float("nan")])]])
def test_shares_that_mean_nothing_are_refused(shares: list[FloatArray]) -> None:
    """No task, no cell, no cost, no number."""
    with pytest.raises(ValueError, match="budget shares must be positive"):
        speed_up(shares, shares, np.random.default_rng(0), 10)


def test_cells_that_do_not_pair_are_refused() -> None:
    """Another number of tasks, or of splits."""
    with pytest.raises(ValueError, match="longer"):
        speed_up([np.array([0.5])], [np.array([0.5])] * 2, np.random.default_rng(0), 10)
    with pytest.raises(ValueError, match="shape"):
        speed_up([np.array([0.5])], [np.array([0.5, 0.5])], np.random.default_rng(0), 10)
