"""The main plots as SVG, PDF and PNG files for a paper, drawn by matplotlib. The same facts give the same bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from harness.leaderboard.anytime import ecdf, profile, runtimes
from harness.leaderboard.pareto import cost, front
from harness.leaderboard.report.plots import MARK_NAMES, PROFILED, SHOWN, anytime, log_with_zero
from harness.results.status import MARKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from harness.leaderboard.anytime import Reference
    from harness.leaderboard.report.facts import Facts, System

MOST = 40
"""Largest number of entries in a figure."""
COLOURS = ("#0072b2", "#d55e00", "#008560", "#b0508c", "#8a6a00", "#3f3f46", "#2f8fc7", "#8c4fd0")
MARKERS = ("o", "s", "D", "^", "P", "X", "*", "v")
LONGEST_NAME = 28
"""Largest number of characters of a name."""
WIDTH = 6.0
"""Width in inches, that of a text column in most papers."""
STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "text.parse_math": False,
}


def draw_all(facts: Facts, folder: Path) -> bool:
    """Write every figure in three formats. Returns False if there is no complete entry to draw."""
    systems = facts.main
    if not systems:
        return False
    folder.mkdir()
    with mpl.rc_context(STYLE):
        for name, made in (
            ("ranking", ranking(systems[:MOST])),
            ("progress", progress(systems[:SHOWN])),
            ("cost", trade(systems[:MOST])),
            *([("ecdf", targets(systems[:SHOWN], facts.reference))] if facts.reference else []),
            *([("profiles", profiles(systems[:SHOWN], facts.reference))] if facts.reference else []),
            *((f"progress-{task}", progress(_with(task, systems)[:SHOWN], task)) for task in facts.tasks),
        ):
            made.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            made.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
            made.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
    return True


def ranking(systems: Sequence[System]) -> Figure:
    """Averages with their intervals, best on top. A hollow point is tied with the leader."""
    figure, axes = _figure(0.6 + 0.24 * len(systems))
    for n, system in enumerate(systems):
        if system.average is None:
            continue
        low, value, high = (100 * x for x in (system.average.low, system.average.value, system.average.high))
        axes.plot([low, high], [n, n], color=COLOURS[0], linewidth=1.5)
        axes.plot([value], [n], "o", color=COLOURS[0], markerfacecolor="white" if system.tied else COLOURS[0])
    axes.set_yticks(range(len(systems)), [_name(system) for system in systems])
    axes.invert_yaxis()
    axes.set_xlabel("average score (points), 95 % interval; hollow: tied with the first")
    axes.grid(axis="x", linewidth=0.4)
    return figure


def progress(systems: Sequence[System], task: str | None = None) -> Figure:
    """Score of the incumbent against the share of the budget: on a task, or on average."""
    figure, axes = _figure(3.6)
    for n, system in enumerate(systems):
        y = [math.nan if (score := anytime(system, mark, task)) is None else score for mark in MARKS]
        shown: dict[str, Any] = {
            "color": COLOURS[n % 8],
            "marker": MARKERS[n % 8],
            "markersize": 4,
            "label": _name(system),
        }
        axes.plot(MARKS, y, drawstyle="steps-post", **shown)
    axes.set_xscale("log", base=2)
    axes.set_xticks(MARKS, MARK_NAMES)
    axes.set_xlabel("share of the budget")
    axes.set_ylabel("average score (points)" if task is None else f"score on {task} (points)")
    axes.grid(linewidth=0.4)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def targets(systems: Sequence[System], reference: Reference) -> Figure:
    """Share of (task, split, target) reached within a number of calls."""
    figure, axes = _figure(3.6)
    end = max([1.0, *(float(cell.record.calls_total) for system in systems for cell in system.entry.cells)])
    for n, system in enumerate(systems):
        calls, shares = ecdf(runtimes(system.entry, reference))
        x, y = [1.0, *calls, end], [0.0, *(100 * shares), 100 * shares[-1] if len(shares) else 0.0]
        axes.plot(x, y, color=COLOURS[n % 8], drawstyle="steps-post", label=_name(system))
    _shares_by_calls(axes, "calls", "targets reached (%)")
    return figure


def profiles(systems: Sequence[System], reference: Reference) -> Figure:
    """Share of cells in which an entry gets to a target within so many times the fewest calls of anybody."""
    figure, axes = _figure(3.6)
    ratios, shares = profile(np.stack([runtimes(system.entry, reference)[:, PROFILED] for system in systems]))
    for n, (system, own) in enumerate(zip(systems, shares, strict=True)):
        axes.plot(ratios, 100 * own, color=COLOURS[n % 8], drawstyle="steps-post", label=_name(system))
    _shares_by_calls(axes, "calls, as a multiple of the fewest", "cells (%)")
    return figure


def _shares_by_calls(axes: Axes, x: str, y: str) -> None:
    """Scale and label a plot of shares in percent against calls, with its legend."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda calls, _: f"{calls:,.0f}")
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(linewidth=0.4)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def trade(systems: Sequence[System]) -> Figure:
    """Score against calls. The entries of the Pareto front are joined and named."""
    figure, axes = _figure(3.6)
    scores = [100 * system.entry.average for system in systems]
    used = [cost(system.entry, "calls") for system in systems]
    calls, axis = log_with_zero(used, "calls")
    on_front = front(scores, used)
    best = sorted((n for n in range(len(systems)) if on_front[n]), key=calls.__getitem__)
    axes.plot(
        [calls[n] for n in best], [scores[n] for n in best], color=COLOURS[1], drawstyle="steps-post", linewidth=1
    )
    axes.plot(calls, scores, "o", color=COLOURS[0])
    for n in best:  # names of all would overlap
        place = (calls[n], scores[n])
        axes.annotate(_name(systems[n]), place, (-4, 4), textcoords="offset points", fontsize=8, ha="right")
    axes.set_xscale("log")
    axes.set_xticks(axis["tickvals"], axis["ticktext"])
    axes.minorticks_off()
    axes.set_xlabel("calls, all cells")
    axes.set_ylabel("average score (points)")
    axes.grid(linewidth=0.4)
    return figure


def _with(task: str, systems: Sequence[System]) -> list[System]:
    """Systems that have cells of a task."""
    return [system for system in systems if task in system.entry.tasks]


def _name(system: System) -> str:
    """An entry's name on one line, cut to the space in a figure."""
    name = " ".join(system.entry.name.split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()
