"""The content of the history page: who led when, and every run."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from harness.leaderboard.report import plots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.history import Tried
    from harness.leaderboard.report.facts import Facts


def history(facts: Facts) -> dict[str, Any]:
    """The leaders and all runs, newest first."""
    past, slugs = facts.history, {system.entry.run: system.slug for system in facts.systems}
    leads = [(lead, moment(lead.since), moment(lead.until) if lead.until else "", slugs.get(lead.tried.run.id))
             for lead in reversed(past.leads)]  # fmt: skip
    return {
        "leads": leads,
        "rows": rows(facts, past.runs[::-1]),
        "spec": plots.leaders(past) if past.leads else None,
        "track": facts.track.name,
    }


def rows(facts: Facts, runs: Sequence[Tried]) -> list[dict[str, Any]]:
    """Lines of the table of runs."""
    slugs = {system.entry.run: system.slug for system in facts.systems}
    return [
        {
            "tried": each,
            "slug": slugs.get(each.run.id),
            "began": moment(each.run.started),
            "ended": moment(each.ended) if each.ended else "",
            "state": state(each),
        }
        for each in runs
    ]


def state(each: Tried) -> str:
    """What a run counts for, in words."""
    key = each.run.key
    lacking = "" if each.complete or key.access == "white-box" else ", cells missing"
    said = (
        (each.withdrawn, f"withdrawn: {each.withdrawn.reason if each.withdrawn else ''}"),
        (key.access == "predictions", "uploaded predictions"),
        (key.modified, f"trial: replaced {', '.join(key.modified).replace('_', ' ')}"),
        (each.counts, f"stands in the list{lacking}"),
        (key.repeat, f"repeat {key.repeat}"),
        (not each.outcome.places, "no cell is finished"),
        (each.comparable, "a newer run counts"),
        (True, "older, or of another version, model, data or device"),
    )
    return next(words for holds, words in said if holds)


def moment(at: float) -> str:
    """A time for people, in UTC."""
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M}"
