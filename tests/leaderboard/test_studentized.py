"""The studentized range is scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.leaderboard.studentized import exceeds, quantile


@pytest.mark.parametrize("k", [3, 13, 500])
@pytest.mark.parametrize("freedom", [2.0, 7.3, 102.1, np.inf])
def test_chances_are_those_of_scipy(k: int, freedom: float) -> None:
    q = [0.0, 0.5, 3.5, 8.0]
    expected = [stats.studentized_range.sf(each, k, freedom) for each in q]
    assert exceeds(np.array(q), k, freedom) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("k", "freedom"), [(3, 2.0), (13, 30.0), (500, 6.0)])
def test_quantiles_are_those_of_scipy(k: int, freedom: float) -> None:
    assert quantile(0.95, k, freedom) == pytest.approx(stats.studentized_range.ppf(0.95, k, freedom), rel=1e-6)


def test_many_numbers_are_computed_as_each_alone() -> None:
    """Any shape, and more of them than fit into a piece."""
    q, freedom = np.linspace(0, 9, 20_011), np.linspace(2, 300, 20_011)
    found = exceeds(q, 13, freedom)
    assert (np.diff(found) < 1e-9).all()
    for n in (0, 19_999, 20_000, 20_010):
        assert exceeds(q[n], 13, freedom[n]) == pytest.approx(found[n], abs=1e-14)
    assert exceeds(q[:6].reshape(2, 3), 13, 20.0).shape == (2, 3)
    assert exceeds(1e6, 13, 20.0) == 0
