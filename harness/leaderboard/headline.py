"""Writes the result of a division in words: the winner, the lead, its certainty and the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import Division, Entry
    from harness.leaderboard.rank import Ranking

CHEAP = 0.5
"""An entry is named as cheaper if it uses at most this share of the best entry's calls."""
NAMED = 3
"""Largest number of tied entries that are named. If there are more, the first ones and the total are given."""


def headline(ranking: Ranking, division: Division) -> str | None:
    """A division's result in words; None if no entry is complete.

    The lead is over the best entry that differs significantly from the leader, with the interval that decides this
    (simultaneous for all pairs). Then come the entries without a significant difference, and the cheapest one's calls.
    """
    found, complete = ranking.standings(division), ranking.complete(division)
    if found is None:
        return None
    best = complete[0]
    if len(complete) == 1:
        return f"{best.name} is the only complete entry: {found.entries[best.name].average.points(unit=' points')}"
    if not found.ranked:
        return (
            f"{best.name} has the highest average, {found.entries[best.name].average.points(unit=' points')}; "
            "this design shows too little to rank the entries"
        )
    alike = tied(ranking, division)
    apart = next((entry for entry in complete[1:] if entry not in alike), None)
    if apart is None:
        second = found.pairs.compare(0, 1).difference
        first = f"{best.name} has the highest average, {second.points(unit=' points')} above {complete[1].name}"
        return f"{first}; {_ties(best, alike)}"
    lead = found.pairs.compare(0, found.names.index(apart.name)).difference
    over = f" over {apart.name}" if alike else ""
    first = f"{best.name} leads by {lead.points(unit=' points')}{over}"
    return f"{first}; {_ties(best, alike)}" if alike else first


def tied(ranking: Ranking, division: Division) -> list[Entry]:
    """Entries of a division that do not differ significantly from its best one, best first."""
    found, complete = ranking.standings(division), ranking.complete(division)
    if found is None or not found.ranked:
        return []
    return [entry for entry in complete[1:] if not found.pairs.better[0, found.names.index(entry.name)]]


def cheaper(ranking: Ranking, division: Division) -> str | None:
    """The entry that ties with the best one and needs far fewer calls, in words; None if there is none."""
    alike = tied(ranking, division)
    if not alike:
        return None
    best, least = ranking.complete(division)[0], _cheapest(alike)
    if not best.calls or least.calls > CHEAP * best.calls:
        return None
    return (
        f"{least.name} has {100 * least.average:.1f} points at {least.calls:,.0f} calls and cannot be told apart from "
        f"{best.name}, {100 * best.average:.1f} points at {best.calls:,.0f} calls"
    )


def _cheapest(entries: Sequence[Entry]) -> Entry:
    return min(entries, key=lambda entry: (entry.calls, -entry.average))


def _ties(best: Entry, alike: Sequence[Entry]) -> str:
    """The entries that tie with the best one, and the cheapest one's share of its calls."""
    least = _cheapest(alike)
    share = _share(least.calls, best.calls)
    if len(alike) == 1:
        return f"{least.name} ties with it" + (f" {share}" if share else "")
    more = len(alike) - NAMED
    names = [entry.name for entry in alike[:NAMED]] + ([f"{more} more"] if more > 0 else [])
    of_it = f", {least.name} {share}" if share else ""
    return f"{', '.join(names[:-1])} and {names[-1]} tie with it{of_it}"


def _share(calls: float, of: float) -> str:
    """Calls as a share of more calls, in words; empty if they are not far fewer."""
    if not of or calls > CHEAP * of:
        return ""
    return f"at 1/{of / calls:,.0f} of the calls" if calls else "without a call"
