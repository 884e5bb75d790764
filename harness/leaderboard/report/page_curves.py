"""The contents of the pages about scores over calls: progress, and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.leaderboard.anytime import TARGETS, normalised_area, runtimes
from harness.leaderboard.cost import costs as cost_by_task
from harness.leaderboard.report import plots
from harness.leaderboard.report.curves import SHOWN, columns, shown_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.report.facts import Facts, System

AT_CALLS = (1, 10, 100)
"""Numbers of calls that are columns in the table of targets."""


def progress(facts: Facts) -> dict[str, Any]:
    """Scores over calls of complete black-box entries, and targets.

    References are drawn if they had a budget of forward passes, and counted if their forward passes were.
    """
    systems, curves = facts.main, facts.curves
    if not systems:
        return {"table": {"heads": [], "rows": []}, "bare": curves.before()}
    values = {
        "table": over_calls(facts, systems),
        "spec": plots.progress(systems, curves, beside=facts.beside),
        "small": [(task, facts.tasks[task].file.title, plots.progress(systems, curves, task, True, facts.beside))
                  for task in sorted(curves.budgets)],
        "drawn": plots.DRAWN,
        "shown": SHOWN,
        "bare": curves.before(),
        "track": facts.track.name,
        "best": systems[0].entry.name,
        "reached": [],
        "passes": passes(facts),
        "gradients": bool(facts.gradients.parts),
    }  # fmt: skip
    frozen = facts.reference
    if frozen is None:
        return values | {"ecdf": None}
    drawn = plots.ordered(systems, curves)
    times = {system.entry.run: runtimes(system.entry, frozen) for system in systems}
    reached = [
        (s, normalised_area(s.entry, frozen), [float((times[s.entry.run] <= c).mean()) for c in (*AT_CALLS, 1e300)])
        for s in systems
    ]
    return values | {
        "ecdf": plots.targets(drawn, [times[s.entry.run] for s in drawn]),
        "profiles": plots.profiles(drawn, [times[s.entry.run] for s in drawn]),
        "profile_target": f"{TARGETS[plots.PROFILED]:.0%}",
        "reached": reached,
        "at_calls": AT_CALLS,
        "targets": ", ".join(f"{share:.0%}" for share in TARGETS),
        "origin": frozen.origin,
    }


def passes(facts: Facts) -> list[tuple[System, float | None, float | None]]:
    """Every complete entry and reference of the main division, and the forward passes of a cell.

    Returns:
        Systems with rows and with calls, means over cells; None where they were not counted.
    """
    systems = facts.lists[0].systems if facts.lists else ()
    found: list[tuple[System, float | None, float | None]] = []
    for system in systems:
        rows = [cell.record.forwarded for cell in system.entry.cells]
        calls = [cell.record.forward_calls for cell in system.entry.cells]
        if not system.entry.missing:
            found.append((system, _mean(rows), _mean(calls)))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def over_calls(facts: Facts, systems: Sequence[System], task: str | None = None) -> dict[str, Any]:
    """The table of scores over calls: heads, and for each system its interval at each number of calls, or None."""
    curves = facts.curves
    within = [calls for calls in curves.calls if calls <= curves.budget(task)]
    places, found = columns(within), curves.on(task)
    rows = [(s, [found[s.entry.run].values[n] for n in places]) for s in systems]
    return {"heads": [shown_calls(within[n]) for n in places], "rows": rows}


def costs(facts: Facts) -> dict[str, Any]:
    """Score against cost in the main division: over budgets, and in the end. The table has all complete entries."""
    by_run = {system.entry.run: system for system in facts.systems}
    rows = [(s, s.record["pareto"].split()) for s in facts.systems if not s.entry.missing]
    every = (*facts.ranking.entries, *facts.ranking.elsewhere)
    lines = [by_run[entry.run].slug for entry in every for _ in entry.tasks]  # the order of `cost_by_task`
    reigns = [
        (
            shown_calls(first.calls),
            shown_calls(last.calls),
            by_run[first.run] if first.run else None,
            first.score,
            last.score,
        )
        for first, last in facts.curves.reigns()
    ]
    return {
        "rows": rows,
        "budgets": plots.budgets(facts.main, facts.curves) if facts.main else None,
        "reigns": reigns,
        "spec": plots.trade(facts.main),
        "by_task": list(zip(lines, cost_by_task(facts.ranking), strict=True)),
    }
