"""P-values, Holm, shared ranks, rank intervals: hand cases and invariants."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.leaderboard.stats import RESAMPLES, Bootstrap, TaskPredictions, bootstrap
from harness.leaderboard.ties import (
    ALPHA,
    compare,
    holm,
    p_values,
    rank_intervals,
    resamples_for,
    resolution,
    shared_ranks,
)

if TYPE_CHECKING:
    from harness.leaderboard.stats import FloatArray


def made(averages: list[float], noise: FloatArray) -> Bootstrap:
    """One task with these scores; replicates are the scores plus `noise` (resamples, systems)."""
    observed = np.array(averages)
    return Bootstrap(observed[None], (observed + noise)[:, None])


def simulated(seed: int, systems: int = 5, resamples: int = 600) -> Bootstrap:
    """Systems of unequal skill on a small test set, in no order."""
    rng = np.random.default_rng(seed)
    skill = rng.uniform(0.4, 0.95, systems)[:, None, None]
    right = (rng.random((systems, 3, 40)) < skill).astype(np.int64)
    return bootstrap([TaskPredictions(right, np.ones(40, dtype=np.int64), "accuracy", 2)], rng, resamples)


def test_a_p_value_by_hand() -> None:
    """Of 99 replicates two are not above 0: 2 (1 + 2) / 100. None: 2 / 100. All alike: 1."""
    two_below = np.concatenate([[-1.0, 0.0], np.full(97, 1.0)])
    assert p_values(two_below) == pytest.approx(0.06)
    assert p_values(-two_below) == pytest.approx(0.06)
    assert p_values(np.ones((1, 99))).tolist() == [0.02]
    assert p_values(np.zeros(99)) == 1


def test_holm_by_hand() -> None:
    """0.01, 0.02, 0.03 of four with 0.9: 0.04, 0.06, 0.06, 0.9; held against a/4, then a/3, where it stops."""
    adjusted, levels = holm(np.array([0.03, 0.01, 0.9, 0.02]))
    assert adjusted.tolist() == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert levels.tolist() == pytest.approx([ALPHA / 3, ALPHA / 4, ALPHA / 3, ALPHA / 3])


def test_holm_that_rejects_all_ends_at_alpha_itself() -> None:
    """The last of m is held against alpha."""
    adjusted, levels = holm(np.array([0.001, 0.04]))
    assert adjusted.tolist() == pytest.approx([0.002, 0.04])
    assert levels.tolist() == pytest.approx([ALPHA / 2, ALPHA])


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_adjustment_and_bonferroni(p: list[float]) -> None:
    """And keeps the order; who is rejected is exactly who passes the level held against."""
    values = np.array(p)
    adjusted, levels = holm(values)
    assert (adjusted >= values).all()
    assert (adjusted <= np.minimum(1, len(p) * values) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(values, kind="stable")]) >= 0).all()
    clear = abs(values - levels) > 1e-12
    assert ((adjusted <= ALPHA) == (values <= levels))[clear].all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_0_exactly_where_the_order_is_open(seed: int) -> None:
    """The interval at Holm's level and the adjusted p-value say the same."""
    for each in compare(simulated(seed), 0, [1, 2, 3, 4]):
        assert each.tied == (each.difference.low <= 0 <= each.difference.high)
        assert each.p <= each.p_holm
        assert each.difference.low <= each.difference.high


def test_one_comparison_is_the_plain_interval() -> None:
    """Nothing to adjust: the 250th of 9,999 replicates from each end."""
    noise = np.zeros((9_999, 2))
    noise[:, 0] = np.random.default_rng(0).permutation(9_999)
    (found,) = compare(made([0.0, 0.0], noise), 0, [1])
    assert (found.difference.low, found.difference.high) == (249, 9_749)
    assert found.p == found.p_holm


def test_too_few_replicates_for_a_family_are_refused() -> None:
    """Three comparisons need 2 * 3 / 0.05 = 120."""
    noise = np.random.default_rng(0).standard_normal((119, 4))
    with pytest.raises(ValueError, match="119 replicates for 3 comparisons, 120 needed"):
        compare(made([0.0] * 4, noise), 0, [1, 2, 3])


def test_replicates_grow_with_the_field() -> None:
    """As many as ever for a few systems, and enough for Holm's first step among many."""
    assert resamples_for(50) == RESAMPLES
    assert resamples_for(500) * ALPHA / 2 > 499


def test_who_cannot_be_told_from_the_leader_shares_its_rank() -> None:
    """Noise of SD 1.4 in a difference: 10 and 9 are one group, 4 and 3 the next, whose rank is its place."""
    noise = np.random.default_rng(0).standard_normal((2_000, 4))
    assert shared_ranks(made([4.0, 10.0, 3.0, 9.0], noise)).tolist() == [3, 1, 3, 1]


def test_equal_systems_share_the_first_rank() -> None:
    """Copies differ by 0 in all replicates."""
    noise = np.repeat(np.random.default_rng(0).standard_normal((500, 1)), 3, axis=1)
    assert shared_ranks(made([0.5, 0.5, 0.5], noise)).tolist() == [1, 1, 1]


def test_a_chain_of_small_steps_does_not_hide_a_large_one() -> None:
    """Each is close to the next; the group ends where the leader can be told apart."""
    noise = np.random.default_rng(0).standard_normal((2_000, 6))
    ranks = shared_ranks(made([10.0, 8.0, 6.0, 4.0, 2.0, 0.0], noise))
    assert ranks[0] == ranks[1] == 1
    assert ranks[-1] > 1
    assert len(set(ranks.tolist())) >= 2


def test_being_noisy_does_not_help() -> None:
    """The last cannot be told from the first, but somebody above it can: it is not taken along."""
    rng = np.random.default_rng(0)
    noise = np.column_stack([0.1 * rng.standard_normal((2_000, 2)), 50 * rng.standard_normal(2_000)])
    found = made([10.0, 8.0, 7.0], noise)
    assert [each.tied for each in compare(found, 0, [1, 2])] == [False, True]
    assert shared_ranks(found).tolist() == [1, 2, 2]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_shared_ranks_are_an_order_with_ties(seed: int) -> None:
    """Never better for a lower score; a rank is the place of the first who has it; the order given does not matter."""
    found = simulated(seed)
    ranks, averages = shared_ranks(found), found.observed[0]
    order = np.argsort(-averages, kind="stable")
    assert (np.diff(ranks[order]) >= 0).all()
    assert all(ranks[order].tolist().index(rank) + 1 == rank for rank in set(ranks.tolist()))
    if len(set(averages.tolist())) == len(averages):
        mixed = np.random.default_rng(seed).permutation(len(ranks))
        again = shared_ranks(Bootstrap(found.observed[:, mixed], found.replicates[:, :, mixed]))
        assert again.tolist() == ranks[mixed].tolist()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_each_step_between_ranks_was_shown(seed: int) -> None:
    """The first of each rank can be told from the first of the rank before, as one of the family below it."""
    found = simulated(seed)
    ranks = shared_ranks(found)
    order = np.argsort(-found.observed[0], kind="stable")
    leaders = [int(order[rank - 1]) for rank in sorted(set(ranks.tolist()))]
    for leader, following in pairwise(leaders):
        after = order[int(ranks[leader]) :].tolist()
        assert not compare(found, leader, after)[after.index(following)].tied


def test_a_rank_interval_by_hand() -> None:
    """Two swap places in every fourth replicate, the third is always last; equals share the better rank."""
    noise = np.zeros((400, 3))
    noise[::4, 1] = 2
    assert rank_intervals(made([2.0, 1.0, 0.0], noise)).tolist() == [[1, 2], [1, 2], [3, 3]]
    assert rank_intervals(made([1.0, 1.0, 0.0], np.zeros((10, 3)))).tolist() == [[1, 1], [1, 1], [3, 3]]


def test_a_rare_swap_is_outside_a_rank_interval() -> None:
    """One replicate in a hundred is less than 2.5 %."""
    noise = np.zeros((400, 2))
    noise[:4, 1] = 2
    assert rank_intervals(made([2.0, 1.0], noise)).tolist() == [[1, 1], [2, 2]]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_rank_intervals_are_within_the_field(seed: int) -> None:
    """Low is not above high, and the sum of ranks leaves room for all."""
    limits = rank_intervals(simulated(seed))
    assert (limits[:, 0] <= limits[:, 1]).all()
    assert limits.min() >= 1
    assert limits.max() <= 5


def test_the_resolution_is_the_middle_half_width() -> None:
    """Of comparisons with the first; none where there is nobody else."""
    found = compare(simulated(1), 0, [1, 2, 3])
    halves = sorted((each.difference.high - each.difference.low) / 2 for each in found)
    assert resolution(found) == pytest.approx(halves[1])
    assert resolution([]) is None
    assert compare(simulated(1), 0, []) == []
