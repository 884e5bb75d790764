"""Finds the best tier of isolation that works on this machine.

A tier is defined by what a worker in it cannot do. Each tier is tried with a real worker, whose canaries must all fail.
If a canary succeeds or no worker starts, the next lower tier is tried. Version numbers are not used, because a kernel
may have a feature that a container's filter denies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from harness.errors import SandboxError
from harness.sandbox.launch import Isolation, start
from harness.tracks.limits import Limits
from harness.tracks.tiers import TIERS, Tier

BANNER = """\
!!! NO ISOLATION: submissions run as you, with your files, your processes and your network. !!!
!!! Run only code that you have read. Such runs are stored as unsandboxed and not ranked    !!!
!!! unless `harness leaderboard --allow-unsandboxed` says so. `harness doctor` says why.    !!!"""
_TRIAL = Limits(wall_s=60, memory_gb=1)


@dataclass(frozen=True)
class Choice:
    """The tier that workers run in here."""

    isolation: Isolation
    """What a worker without a submission found when the tier was tried."""
    refused: dict[Tier, str]
    """The better tiers, and the reasons why they do not work here."""

    @property
    def tier(self) -> Tier:
        """The tier."""
        return self.isolation.tier


@cache
def best() -> Choice:
    """Find the best tier by starting a worker in each tier to try. This is done once in a process."""
    refused: dict[Tier, str] = {}
    for tier in TIERS:
        try:
            worker = start(_TRIAL, None, tier)
        except SandboxError as problem:
            refused[tier] = str(problem)
            continue
        worker.end(1.0)
        return Choice(worker.isolation, refused)
    raise SandboxError("no worker process comes up at all:\n" + "\n".join(refused.values()))
