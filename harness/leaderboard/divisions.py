"""What may be compared with what: divisions, and the lists within them.

A *division* holds the runs that had the same means: no data from outside or the same, one sandbox tier, one device.
Ranks, intervals, ties and fronts are computed within a division and never across. The main one is pure (no outside
data) and on the device that ranks; of several, it is the one with the most complete entries.

Runs without isolation (tier 0) are listed and not ranked, unless the organiser says so. Runs that say ``process`` were
made before there were tiers, in a separate process with limits; they are a division of their own, ranked as they were.

Within a division the access level is a ceiling: the list up to L1 holds everybody who asked for nothing above input
prompts, and ranks them anew. A submission that asks for less is in the wider lists as well, since asking for less is
nobody's advantage; one that asks for more is never in the narrower.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.leaderboard.entries import Division, Entry

ACCESS = ("L0 logits", "L1 input prompts", "L2 deep prompts", "L3 hidden states", "white-box")
"""Names of the access levels."""


def divisions(entries: Iterable[Entry]) -> tuple[Division, ...]:
    """The divisions of the entries, main one first: pure, isolated, here, then most complete entries, then by name.

    White-box references count nothing; where there is nobody else, theirs are listed.
    """
    listed = list(entries)
    contestants = [entry for entry in listed if not entry.white_box] or listed
    complete = Counter(entry.division for entry in contestants if not entry.missing)
    found = {entry.division for entry in contestants}
    return tuple(sorted(found, key=lambda d: (bool(d.external), d.unsandboxed, d.elsewhere, -complete[d], d)))


def ceilings(entries: Iterable[Entry]) -> tuple[int, ...]:
    """Access levels that are somebody's highest, ascending: each makes a list, the last one holds all contestants."""
    return tuple(sorted({entry.access for entry in entries if not entry.white_box}))
