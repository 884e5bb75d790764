"""The main plots as SVG, PDF and PNG files for a paper, drawn by matplotlib. The same facts give the same bytes."""

from __future__ import annotations

import datetime as dt
import io
import math
from html import unescape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from harness.leaderboard.anytime import ecdf, profile, runtimes
from harness.leaderboard.report import plots
from harness.leaderboard.report.curves import SHOWN, spread
from harness.leaderboard.report.plots import PROFILED
from harness.leaderboard.table import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from harness.leaderboard.anytime import Reference
    from harness.leaderboard.history import History
    from harness.leaderboard.report.curves import Curves
    from harness.leaderboard.report.facts import Facts, System

MOST = 40
"""Largest number of entries in a figure."""
COLOURS = ("#0072b2", "#d55e00", "#008560", "#b0508c", "#8a6a00", "#3f3f46", "#2f8fc7", "#8c4fd0")
MARKERS = ("o", "s", "D", "^", "P", "X", "*", "v")
LONGEST_NAME = 28
"""Largest number of characters of a name."""
_DECADES = 50
"""Up to which ratio of its ends a logarithmic axis is labelled at 2 and 5, too."""
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
    systems, curves = facts.main, facts.curves
    if not systems:
        return False
    drawn = plots.ordered(systems, curves)[:SHOWN]
    folder.mkdir()
    with mpl.rc_context(STYLE):
        for name, made in (
            ("ranking", ranking(systems[:MOST])),
            ("progress", progress(drawn, curves, beside=facts.beside)),
            ("cost", budgets(systems, curves)),
            *([("leaders", leaders(facts.history))] if facts.history.leads else []),
            *([("ecdf", targets(drawn, facts.reference))] if facts.reference else []),
            *([("profiles", profiles(drawn, facts.reference))] if facts.reference else []),
            *((f"progress-{task}", progress(drawn, curves, task, facts.beside)) for task in sorted(curves.budgets)),
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


def progress(systems: Sequence[System], curves: Curves, task: str | None = None, beside: plots.Beside = ()) -> Figure:
    """Score of the answer that stood after so many calls, with intervals as bands: on a task, or on average.

    References over their forward passes have long dashes.
    """
    figure, axes = _figure(3.6)
    low, high = curves.limits([system.entry.run for system in systems], task)
    ends: list[tuple[str, float, str]] = []
    for n, system in enumerate(systems):
        trace = curves.on(task)[system.entry.run]
        known = plots.known(trace, curves.budget(task))
        if not known:
            continue
        x, colour = [calls for calls, _ in known], COLOURS[n % 8]
        bounds = ([100 * value.low for _, value in known], [100 * value.high for _, value in known])
        axes.fill_between(x, *bounds, step="post", color=colour, alpha=0.1, linewidth=0)
        axes.plot(x, [100 * value.value for _, value in known], color=colour, drawstyle="steps-post", linewidth=1.3)
        ends.append((_name(system), 100 * known[-1][1].value, colour))
    for name, theirs, run in beside:
        points = plots.known(theirs.on(task)[run], curves.budget(task))
        if points:
            y = [100 * value.value for _, value in points]
            drawn: dict[str, Any] = {"drawstyle": "steps-post", "linestyle": (0, (8, 3)), "linewidth": 1}
            axes.plot([calls for calls, _ in points], y, color="0.4", **drawn)
            ends.append((_cut(name), y[-1], "0.4"))
    before = curves.before(task)
    if before is not None:
        axes.axhline(100 * before, color="0.4", linestyle=":", linewidth=1)
        ends.append(("bare template", 100 * before, "0.4"))
    axes.set_xscale("log")
    axes.set_xlim(curves.calls[0], max(curves.budget(task), 2 * curves.calls[0]))
    plain_numbers(axes.xaxis)
    axes.set_ylim(low, high)
    _at_the_ends(axes, ends)
    axes.set_xlabel("calls of a cell")
    axes.set_ylabel("average score (points)" if task is None else f"score on {task} (points)")
    axes.grid(linewidth=0.4)
    return figure


def _at_the_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write names right of the plot, each in its line's colour, apart from each other. The limits must be set."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.055
    ends = [(f"{name} \N{DOWNWARDS ARROW} {y:.1f}" if y < low else name, y, colour) for name, y, colour in ends]
    places = spread([value for _, value, _ in ends], gap, low, high)
    for (name, _, colour), y in zip(ends, places, strict=True):
        place: dict[str, Any] = {"xy": (1, y), "xycoords": ("axes fraction", "data")}
        place |= {"xytext": (5, 0), "textcoords": "offset points"}
        axes.annotate(name, color=colour, fontsize=8, va="center", **place)


def targets(systems: Sequence[System], reference: Reference) -> Figure:
    """Share of (task, split, target) reached within a number of calls."""
    figure, axes = _figure(3.6)
    ends: list[tuple[str, float, str]] = []
    end = max([1.0, *(float(cell.record.calls_total) for system in systems for cell in system.entry.cells)])
    for n, system in enumerate(systems):
        calls, shares = ecdf(runtimes(system.entry, reference))
        x, y = [1.0, *calls, end], [0.0, *(100 * shares), 100 * shares[-1] if len(shares) else 0.0]
        axes.plot(x, y, color=COLOURS[n % 8], drawstyle="steps-post")
        ends.append((_name(system), float(y[-1]), COLOURS[n % 8]))
    _shares_by_calls(axes, "calls", "targets reached (%)", ends)
    return figure


def profiles(systems: Sequence[System], reference: Reference) -> Figure:
    """Share of cells in which an entry gets to a target within so many times the fewest calls of anybody."""
    figure, axes = _figure(3.6)
    ends: list[tuple[str, float, str]] = []
    ratios, shares = profile(np.stack([runtimes(system.entry, reference)[:, PROFILED] for system in systems]))
    for n, (system, own) in enumerate(zip(systems, shares, strict=True)):
        axes.plot(ratios, 100 * own, color=COLOURS[n % 8], drawstyle="steps-post")
        ends.append((_name(system), float(100 * own[-1]) if len(own) else 0.0, COLOURS[n % 8]))
    _shares_by_calls(axes, "calls, as a multiple of the fewest", "cells (%)", ends)
    return figure


def _shares_by_calls(axes: Axes, x: str, y: str, ends: Sequence[tuple[str, float, str]]) -> None:
    """Scale and label a plot of shares in percent against calls, with names at the ends of its lines."""
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(linewidth=0.4)
    _at_the_ends(axes, ends)


def leaders(past: History) -> Figure:
    """The highest average over time with the leaders' names, and the runs that were complete."""
    figure, axes = _figure(3.0)
    line, runs = plots.leaders(past)["data"]
    when: Any = [dt.datetime.fromisoformat(each) for each in line["x"]]
    axes.plot(when, line["y"], color=COLOURS[1], drawstyle="steps-post", linewidth=1.5)
    for marker in ("circle", "x"):
        own = [n for n, symbol in enumerate(runs["marker"]["symbol"]) if symbol == marker]
        days: Any = [dt.datetime.fromisoformat(runs["x"][n]) for n in own]
        axes.plot(days, [runs["y"][n] for n in own], "x" if marker == "x" else "o", color=COLOURS[0], markersize=4)
    for x, y, name in zip(when, line["y"], line["text"], strict=True):
        axes.annotate(_cut(unescape(name)), (x, y), (3, 4), textcoords="offset points", fontsize=8)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set_xlabel("UTC; crosses: withdrawn")
    axes.set_ylabel("average score (points)")
    axes.grid(linewidth=0.4)
    return figure


def budgets(systems: Sequence[System], curves: Curves) -> Figure:
    """Score against calls: each entry's way to its score, where it ended, and the front over budgets with names."""
    figure, axes = _figure(3.6)
    spec = plots.budgets(systems, curves)
    *ways, front, dots = spec["data"]
    for way in ways:
        axes.plot(way["x"], way["y"], color="0.6", drawstyle="steps-post", linewidth=0.7)
    heights = [math.nan if y is None else y for y in front["y"]]
    axes.plot(front["x"], heights, color=COLOURS[1], drawstyle="steps-post", linewidth=1.8)
    axes.plot(dots["x"], dots["y"], "o", color=COLOURS[0], markersize=4)
    for x, y, name in zip(front["x"], heights, front["text"], strict=True):
        if name:
            axes.annotate(_cut(unescape(name)), (x, y), (3, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(curves.calls[0], max(curves.budget(), 2 * curves.calls[0]))
    plain_numbers(axes.xaxis)
    axes.set_ylim(*spec["layout"]["yaxis"]["range"])
    axes.set_xlabel("calls of a cell")
    axes.set_ylabel("average score (points)")
    axes.grid(linewidth=0.4)
    return figure


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers. Its limits must be set.

    Matplotlib's own labels are powers in TeX, which `STYLE` takes literally because names of entries may look like it.
    """
    low, high = axis.get_view_interval()
    if high / low < _DECADES:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axis.set_minor_formatter(lambda *_: "")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, whole or not at all; the same figure gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    write_text(drawn.getvalue(), path)


def _name(system: System) -> str:
    """An entry's name on one line, cut to the space in a figure."""
    return _cut(system.entry.name)


def _cut(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()
