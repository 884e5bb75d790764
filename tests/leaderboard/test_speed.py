"""The ratio of calls to a target: hand cases and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.leaderboard.speed import speed_up
from harness.leaderboard.stats import Interval

if TYPE_CHECKING:
    from harness.leaderboard.stats import FloatArray

INF = float("inf")


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
