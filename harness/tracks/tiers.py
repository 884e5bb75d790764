"""The tiers of isolation, and the layers that each has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from harness.errors import InputError

Tier: TypeAlias = Literal["A", "B", "B'", "0"]
REFEREE = "none (referee process)"
"""Stands in a cell's facts where the tier does: a reference's code runs in the referee's own process."""
ELSEWHERE = "none (a solver elsewhere, over HTTP)"
"""Stands there, too: the solver ran on a machine of its own, and neither its time nor its means were under control."""


@dataclass(frozen=True)
class Layers:
    """What a tier is made of, beside resource limits and a scrubbed environment, which all have."""

    bubblewrap: bool
    """Namespaces of its own: another file system, no other processes, no network."""
    landlock: bool
    """The kernel denies files, TCP and signals to the outside."""
    seccomp: bool
    """The kernel denies system calls that are not on a list: fork, exec, sockets, …"""


TIERS: Final[dict[Tier, Layers]] = {
    "A": Layers(bubblewrap=True, landlock=True, seccomp=True),
    "B": Layers(bubblewrap=False, landlock=True, seccomp=True),
    "B'": Layers(bubblewrap=True, landlock=False, seccomp=True),
    "0": Layers(bubblewrap=False, landlock=False, seccomp=False),
}
"""Best first. ``0`` is no isolation worth the name."""


def tier_named(name: str | None) -> Tier | None:
    """The tier of that name; None for none.

    Raises:
        InputError: there is no such tier.
    """
    found = next((tier for tier in TIERS if tier == name), None)
    if name is not None and found is None:
        raise InputError(f"no tier {name!r} of isolation; there are {', '.join(TIERS)}")
    return found
