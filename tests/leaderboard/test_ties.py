"""One set of differences, and the ranks that follow: hand cases, invariants, and that nothing contradicts anything."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.leaderboard.stats import Differences, TaskPredictions, scores_of
from harness.leaderboard.ties import ALPHA, Pairs, adjusted_p, critical, resolution


def made(averages: list[float], error: float | list[list[float]] = 1.0, freedom: float = 30.0) -> Pairs:
    """Systems with these averages, standard errors of all pairs and degrees of freedom."""
    values = np.array(averages)
    errors = np.broadcast_to(np.asarray(error, dtype=float), (len(values), len(values)))
    return Pairs(Differences(values, values[:, None] - values, errors, np.full(errors.shape, freedom)))


def uneven(seed: int, systems: int = 7) -> Pairs:
    """Averages and standard errors that differ widely from pair to pair."""
    rng = np.random.default_rng(seed)
    own = rng.choice([0.1, 1.0, 4.0], systems)
    return made(
        rng.normal(0, 5, systems).tolist(), np.sqrt(own[:, None] ** 2 + own**2).tolist(), float(rng.uniform(6, 80))
    )


def simulated(seed: int) -> Pairs:
    """Systems of unequal skill on three tasks of small test sets."""
    rng = np.random.default_rng(seed)
    skill = rng.uniform(0.4, 0.95, 5)[:, None, None]
    right = [(rng.random((5, 3, 40)) < skill).astype(np.int64) for _ in range(3)]
    tasks = [TaskPredictions(each, np.ones(40, dtype=np.int64), "accuracy", 2) for each in right]
    return Pairs(scores_of(tasks).differences())


@pytest.mark.parametrize("entries", [3, 10, 20, 100])
def test_the_quantile_is_the_studentized_ranges(entries: int) -> None:
    """Interpolated to 1e-4 of itself, from two degrees of freedom to infinitely many; direct below."""
    freedom = np.array([1.5, 2, 3, 10, 97.3, 4_000, np.inf])
    expected = stats.studentized_range.ppf(0.95, entries, freedom) / np.sqrt(2)
    np.testing.assert_allclose(critical(entries, freedom), expected, rtol=1e-4)


def test_two_systems_have_students_t() -> None:
    """One pair: nothing to adjust."""
    found = made([2.0, 0.0], freedom=10).compare(0, 1)
    assert found.p == pytest.approx(2 * stats.t.sf(2, 10))
    assert found.difference.high - 2 == pytest.approx(stats.t.ppf(0.975, 10))


def test_an_adjusted_p_value_is_tukeys() -> None:
    """As scipy's own test of all pairs, for groups with equal variances."""
    rng = np.random.default_rng(0)
    groups = rng.normal(0, 1, (4, 6)) + np.array([0, 0.5, 1, 2])[:, None]
    error = np.sqrt(2 * groups.var(axis=1, ddof=1).mean() / 6)
    found = made(groups.mean(axis=1).tolist(), float(error), 20)
    expected = stats.tukey_hsd(*groups)
    for a, b in combinations(range(4), 2):
        assert found.compare(a, b).p == pytest.approx(expected.pvalue[a, b], abs=1e-6)
        assert found.compare(a, b).difference.low == pytest.approx(expected.confidence_interval().low[a, b], abs=1e-3)


def test_differences_without_any_error() -> None:
    """Copies are tied with certainty, and what differs for certain is told apart."""
    found = made([1.0, 1.0, 0.0], 0.0)
    assert found.compare(0, 1).p == 1
    assert found.compare(0, 2).p == 0
    assert found.ranks().tolist() == [1, 1, 3]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_comparisons_turn_around(seed: int) -> None:
    """The same p, and the interval mirrored."""
    found = uneven(seed, systems=4)
    for a, b in combinations(range(4), 2):
        one, other = found.compare(a, b), found.compare(b, a)
        assert one.p == other.p
        assert one.difference.low == -other.difference.high


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_nothing_contradicts_anything(seed: int) -> None:
    """Interval, p-value, rank and rank interval of each pair say the same, however unequal the errors are."""
    for found in (uneven(seed, systems=5), simulated(seed)):
        ranks, limits = found.ranks(), found.rank_intervals()
        for a, b in combinations(range(5), 2):
            pair = found.compare(a, b)
            apart = not pair.difference.low <= 0 <= pair.difference.high
            assert apart == (pair.p <= ALPHA) == (not pair.tied)
            if apart:
                better, worse = (a, b) if pair.difference.value > 0 else (b, a)
                assert ranks[better] < ranks[worse]
                assert limits[better, 0] < limits[worse, 1]
            if ranks[a] == ranks[b]:
                assert pair.tied
        assert (limits[:, 0] <= ranks).all()
        assert (ranks <= limits[:, 1]).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_ranks_are_an_order_with_ties(seed: int) -> None:
    """Never better for a lower score; a rank is the place of the first who has it; the order given does not matter."""
    found = uneven(seed)
    ranks, averages = found.ranks(), found.found.averages
    order = np.argsort(-averages, kind="stable")
    assert (np.diff(ranks[order]) >= 0).all()
    assert all(ranks[order].tolist().index(rank) + 1 == rank for rank in set(ranks.tolist()))
    mixed = np.random.default_rng(seed).permutation(len(ranks))
    square = np.ix_(mixed, mixed)
    again = Pairs(
        Differences(
            averages[mixed], found.found.values[square], found.found.errors[square], found.found.freedom[square]
        )
    )
    assert again.ranks().tolist() == ranks[mixed].tolist()


def test_ranks_by_hand() -> None:
    """A step of 4 standard errors is seen, one of 1 is not: 10 and 9 are one group, 5 and 4 the next."""
    found = made([5.0, 10.0, 4.0, 9.0])
    assert found.ranks().tolist() == [3, 1, 3, 1]
    assert found.rank_intervals().tolist() == [[3, 4], [1, 2], [3, 4], [1, 2]]


def test_a_chain_of_small_steps_does_not_hide_a_large_one() -> None:
    """The middle one is told apart from neither; the last is, from the first, and its interval says what is open."""
    found = made([4.0, 2.0, 0.0])
    assert found.ranks().tolist() == [1, 1, 3]
    assert found.rank_intervals().tolist() == [[1, 2], [1, 3], [2, 3]]


def test_being_noisy_does_not_help() -> None:
    """The last cannot be told from the first, but stands below somebody who can: it is not taken along."""
    errors = [[0, 0.2, 50], [0.2, 0, 50], [50, 50, 0]]
    found = made([10.0, 8.0, 7.0], errors)
    assert found.compare(0, 2).tied
    assert found.ranks().tolist() == [1, 2, 2]


def test_who_was_shown_to_be_worse_than_a_member_does_not_share_its_rank() -> None:
    """The first is noisy; the second is not, and is better than the third."""
    errors = [[0, 50, 50], [50, 0, 0.2], [50, 0.2, 0]]
    assert made([10.0, 8.0, 7.0], errors).ranks().tolist() == [1, 1, 3]


def test_the_resolution_is_the_middle_half_width() -> None:
    """Of comparisons with one system; none where there is nobody else."""
    errors = [[0, 1, 2, 3], [1, 0, 9, 9], [2, 9, 0, 9], [3, 9, 9, 0]]
    found = made([4.0, 3.0, 2.0, 1.0], errors)
    assert resolution(found) == pytest.approx(2 * critical(4, np.array([30.0]))[0])
    assert resolution(made([1.0])) is None


def test_a_single_system_is_first() -> None:
    found = made([0.5])
    assert found.ranks().tolist() == [1]
    assert found.rank_intervals().tolist() == [[1, 1]]


def test_p_values_of_many_pairs_at_once() -> None:
    """Growing with the field, falling with the difference."""
    few, many = (adjusted_p(k, np.array([1.0, 3.0]), np.ones(2), np.array([20.0, 20.0])) for k in (5, 20))
    assert (many > few).all()
    assert few[1] < few[0]
