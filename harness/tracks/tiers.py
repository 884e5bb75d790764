"""The tiers of isolation, and the layers of each tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from harness.errors import InputError

Tier: TypeAlias = Literal["A", "B", "B'", "0"]
REFEREE = "none (referee process)"
"""The value in a cell's facts for a reference, which has no tier: its code runs in the referee's own process."""
ELSEWHERE = "none (a solver elsewhere, over HTTP)"
"""The value for a solver on another machine, whose time and means were not under control."""
IN_PROCESS = "none (an optimizer in the referee's process)"
"""The value for an optimizer that was given the black box as a problem (`harness.problems`)."""


@dataclass(frozen=True)
class Layers:
    """The layers of a tier. Resource limits and a cleaned environment are in every tier."""

    bubblewrap: bool
    """Namespaces of its own: another file system, no other processes, no network."""
    landlock: bool
    """The kernel denies files, TCP and signals to the outside."""
    seccomp: bool
    """The kernel denies system calls that are not on a list, such as fork, exec and sockets."""


TIERS: Final[dict[Tier, Layers]] = {
    "A": Layers(bubblewrap=True, landlock=True, seccomp=True),
    "B": Layers(bubblewrap=False, landlock=True, seccomp=True),
    "B'": Layers(bubblewrap=True, landlock=False, seccomp=True),
    "0": Layers(bubblewrap=False, landlock=False, seccomp=False),
}
"""The tiers, best first. ``0`` isolates almost nothing."""


def tier_named(name: str | None) -> Tier | None:
    """The tier with this name, or None for None.

    Raises:
        InputError: there is no such tier.
    """
    found = next((tier for tier in TIERS if tier == name), None)
    if name is not None and found is None:
        raise InputError(f"no tier {name!r} of isolation; there are {', '.join(TIERS)}")
    return found
