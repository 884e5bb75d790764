"""Who won, by how much, how sure, at which cost: one sentence for each division, the first words of table and page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import Division, Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.stats import Interval

CHEAP = 0.5
"""Share of the best entry's calls that an entry uses at most to be named as the cheaper one."""
NAMED = 3
"""Largest number of tied entries that are named; of more, the first ones and how many there are."""


def headline(ranking: Ranking, division: Division) -> str | None:
    """A division's result in words; None where no entry is complete.

    The lead is over the best entry that was told apart from the leader, with the interval that decides about it
    (simultaneous for all pairs). Then come the entries that were not told apart, and what the cheapest of them used.
    """
    found, complete = ranking.standings(division), ranking.complete(division)
    if found is None:
        return None
    best = complete[0]
    if len(complete) == 1:
        return f"{best.name} is the only complete entry: {_points(found.entries[best.name].average)}"
    if not found.ranked:
        return (
            f"{best.name} has the highest average, {_points(found.entries[best.name].average)}; "
            "this design shows too little to rank the entries"
        )
    alike = tied(ranking, division)
    apart = next((entry for entry in complete[1:] if entry not in alike), None)
    if apart is None:
        second = found.pairs.compare(0, 1).difference
        first = f"{best.name} has the highest average, {_points(second)} above {complete[1].name}"
        return f"{first}; {_ties(best, alike)}"
    lead = found.pairs.compare(0, found.names.index(apart.name)).difference
    over = f" over {apart.name}" if alike else ""
    first = f"{best.name} leads by {_points(lead)}{over}"
    return f"{first}; {_ties(best, alike)}" if alike else first


def tied(ranking: Ranking, division: Division) -> list[Entry]:
    """Entries of a division that were not told apart from its best one, best first."""
    found, complete = ranking.standings(division), ranking.complete(division)
    if found is None or not found.ranked:
        return []
    return [entry for entry in complete[1:] if not found.pairs.better[0, found.names.index(entry.name)]]


def cheaper(ranking: Ranking, division: Division) -> str | None:
    """Who cannot be told from the best entry and needs far fewer calls, in words; None where nobody does."""
    alike = tied(ranking, division)
    if not alike:
        return None
    best, least = ranking.complete(division)[0], _cheapest(alike)
    if least.calls > CHEAP * best.calls:
        return None
    return (
        f"{least.name} has {100 * least.average:.1f} points at {least.calls:,.0f} calls and cannot be told apart from "
        f"{best.name}, {100 * best.average:.1f} points at {best.calls:,.0f} calls"
    )


def _cheapest(entries: Sequence[Entry]) -> Entry:
    return min(entries, key=lambda entry: (entry.calls, -entry.average))


def _ties(best: Entry, alike: Sequence[Entry]) -> str:
    """Who ties with the best entry, and at which share of its calls the cheapest of them does."""
    least = _cheapest(alike)
    share = _share(least.calls, best.calls)
    if len(alike) == 1:
        return f"{least.name} ties with it" + (f" {share}" if share else "")
    more = len(alike) - NAMED
    names = [entry.name for entry in alike[:NAMED]] + ([f"{more} more"] if more > 0 else [])
    of_it = f", {least.name} {share}" if share else ""
    return f"{', '.join(names[:-1])} and {names[-1]} tie with it{of_it}"


def _share(calls: float, of: float) -> str:
    """Calls as a share of more calls, in words; empty where they are not far fewer."""
    if not of or calls > CHEAP * of:
        return ""
    return f"at 1/{of / calls:,.0f} of the calls" if calls else "without a call"


def _points(interval: Interval) -> str:
    value, low, high = (f"{100 * each:.1f}" for each in (interval.value, interval.low, interval.high))
    return f"{value} points [{low}, {high}]"
