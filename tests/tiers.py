"""Which tiers of isolation this machine can give."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from harness.errors import SandboxError
from harness.sandbox import launch
from harness.tracks.track import Limits

if TYPE_CHECKING:
    from harness.tracks.tiers import Tier

LIMITS = Limits(wall_s=60, memory_gb=1)


@cache
def missing(tier: Tier) -> str:
    """Why this machine cannot give a tier; empty where it can."""
    try:
        launch.start(LIMITS, None, tier).end(1.0)
    except SandboxError as problem:
        return str(problem)
    return ""


def skip_where_missing(tier: Tier) -> None:
    """Skip the test, with the reason."""
    if missing(tier):
        pytest.skip(missing(tier))
