"""The tiers of isolation that an attack is tried in."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from tiers import skip_where_missing

from harness.sandbox import best_tier

if TYPE_CHECKING:
    from harness.tracks.tiers import Tier


@pytest.fixture(params=["best", *(pytest.param(tier, marks=pytest.mark.slow) for tier in ("A", "B", "B'"))])
def tier(request: pytest.FixtureRequest) -> Tier:
    """The best tier of this machine and, in the slow tests, each that it can give."""
    if request.param != "best":
        skip_where_missing(request.param)
        return cast("Tier", request.param)
    best = best_tier.best().tier
    if best == "0":
        pytest.skip("no sandbox holds here")
    return best
