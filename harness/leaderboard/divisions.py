"""Divides entries into groups that may be compared: divisions, and the lists within them.

A *division* holds the runs with the same conditions: the same outside data or none, one sandbox tier, one device.
Ranks, intervals, ties and fronts are computed within a division and never across divisions. The main division has no
outside data and is on the device that ranks. If several do, it is the one with the most complete entries.

Runs without isolation (tier 0) are listed but not ranked, unless the organiser allows it. Runs with the tier
``process`` were made before there were tiers, in a separate process with limits. They form a separate division, which
is ranked as before.

Within a division the access level is a ceiling. The list up to L1 holds all entries that asked for nothing above input
prompts, and ranks them again. A submission that asks for less is in the wider lists, too, because less access is no
advantage. A submission that asks for more is never in the narrower lists. Level W, changes of weights, is above all
others.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.leaderboard.entries import Division, Entry

ACCESS = ("L0 logits", "L1 input prompts", "L2 deep prompts", "L3 hidden states", "white-box", "W weights")
"""Names of the access levels, in the order in which each includes the ones before; only references have white-box."""


def level_name(level: int) -> str:
    """The short name of an access level: ``L0`` to ``L3``, ``white-box``, or ``W``."""
    return ACCESS[level].split()[0]


def divisions(entries: Iterable[Entry]) -> tuple[Division, ...]:
    """The divisions of the entries, the main one first.

    The order is: without outside data, isolated, on the device that ranks, most complete entries, name. White-box
    references do not count. If there are no other entries, their divisions are listed.
    """
    listed = list(entries)
    contestants = [entry for entry in listed if not entry.white_box] or listed
    complete = Counter(entry.division for entry in contestants if not entry.missing)
    found = {entry.division for entry in contestants}
    return tuple(sorted(found, key=lambda d: (bool(d.external), d.unsandboxed, d.elsewhere, -complete[d], d)))


def ceilings(entries: Iterable[Entry]) -> tuple[int, ...]:
    """The highest access levels of the entries, ascending. Each makes a list; the last list holds all contestants."""
    return tuple(sorted({entry.access for entry in entries if not entry.white_box}))
