"""Plots as data in plotly's format, which `static/site.js` passes to plotly.js.

A plot is {"data": traces, "layout": …}. `meta` of a trace is the number of its colour, which the style sheet defines
for light and for dark mode. A plot may have "choices": other x values and axes for the same traces. Names come from
submissions, and plotly interprets some HTML in them, so they are escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.leaderboard.anytime import ecdf, profile
from harness.leaderboard.pareto import cost, front
from harness.results.status import MARKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import CellScore
    from harness.leaderboard.report.facts import System
    from harness.leaderboard.stats import FloatArray

Plot = dict[str, Any]

COLOURS = 8
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
DRAWN = 24
"""Largest number of entries in a plot of curves; more cannot be told apart. The table below the plot has all
entries."""
SHOWN = 8
"""Number of these entries that the plot shows at first, one for each colour."""
MARK_NAMES = tuple("1" if mark == 1 else f"1/{1 / mark:.0f}" for mark in MARKS)
PROFILED = 2
"""Which of `harness.leaderboard.anytime.TARGETS` performance profiles are about."""
COSTS = {
    "calls": "calls",
    "tokens": "tokens sent through the model",
    "bytes": "bytes, up and down",
    "seconds": "seconds of tuning",
}


def style(n: int) -> dict[str, Any]:
    """Colour, dash and symbol of the n-th series, so that series differ without colour, too."""
    return {
        "meta": n % COLOURS,
        "line": {"dash": DASHES[n // COLOURS % len(DASHES)], "width": 2},
        "marker": {"symbol": SYMBOLS[n % len(SYMBOLS)], "size": 8},
    }


def progress(systems: Sequence[System], task: str | None = None, calls: int | None = None) -> Plot:
    """The anytime curve: score of the incumbent against the share of the budget, on average or on one task.

    The x axis is in calls if the budget of the task's cells is given. On average it is a share, because tasks have
    different budgets.
    """
    x_of = [mark * (calls or 1) for mark in MARKS]
    traces = []
    for n, system in enumerate(systems[:DRAWN]):
        y = [anytime(system, mark, task) for mark in MARKS]
        trace = _trace(system.entry.name, n, x_of, y)
        trace["line"]["shape"] = "hv"  # an answer stands until the next one
        traces.append(trace | {"visible": n < SHOWN, "hovertemplate": "%{fullData.name}: %{y:.1f}<extra></extra>"})
    names = [f"{x:,.1f}".removesuffix(".0") for x in x_of] if calls else list(MARK_NAMES)
    title = "calls" if calls else "share of the budget"
    x = {"type": "log", "tickvals": x_of, "ticktext": names, "title": {"text": title}}
    return {"data": traces, "layout": {"xaxis": x, "yaxis": _points("score"), "hovermode": "x"}}


def targets(systems: Sequence[System], times: Sequence[FloatArray]) -> Plot:
    """Share of (task, split, target) reached within a number of calls, from each system's calls to the targets."""
    furthest = max((float(own[np.isfinite(own)].max(initial=1.0)) for own in times), default=1.0)
    curves = []
    for own in times[:DRAWN]:
        calls, shares = ecdf(own)
        last = shares[-1] if len(shares) else 0.0
        curves.append(([1.0, *calls.tolist(), furthest], [0.0, *shares.tolist(), last]))
    return _shares_by_calls(systems, curves, "%{x:,.0f} calls", "calls", "targets reached (%)")


def profiles(systems: Sequence[System], times: Sequence[FloatArray]) -> Plot:
    """Performance profiles: share of cells where an entry gets to a target within so many times the fewest calls."""
    ratios, shares = profile(np.stack([own[:, PROFILED] for own in times]))
    curves = [(ratios.tolist(), own.tolist()) for own in shares]
    within = "%{x:,.1f} times the fewest calls"
    return _shares_by_calls(systems, curves, within, "calls, as a multiple of the fewest", "cells (%)")


def _shares_by_calls(
    systems: Sequence[System], curves: Sequence[tuple[list[float], list[float]]], within: str, x: str, y: str
) -> Plot:
    """Plot shares against calls in steps, one curve (calls, shares) for each system.

    `within` says in the hover text how many calls a point stands for; `x` and `y` are the titles of the axes.
    """
    traces = []
    for n, (system, (calls, shares)) in enumerate(zip(systems[:DRAWN], curves, strict=False)):
        trace = _trace(system.entry.name, n, calls, [round(100 * share, 2) for share in shares]) | {"mode": "lines"}
        trace["line"]["shape"] = "hv"
        hover = f"%{{fullData.name}}: %{{y:.0f}} % within {within}<extra></extra>"
        traces.append(trace | {"visible": n < SHOWN, "hovertemplate": hover})
    x_axis = {"type": "log", "dtick": 1, "title": {"text": x}}
    y_axis = {"title": {"text": y}, "range": [0, 100]}
    return {"data": traces, "layout": {"xaxis": x_axis, "yaxis": y_axis}}


def anytime(system: System, mark: float, task: str | None = None) -> float | None:
    """Score of the incumbents at a mark in points: mean over splits, then over tasks if no task is named.

    None if some incumbents were not stored.
    """
    value = system.entry.at(mark, task)
    return None if value is None else round(100 * value, 3)


def trade(systems: Sequence[System]) -> Plot:
    """Score against cost, with the Pareto front. There is one choice for each kind of cost."""
    scores = [100 * system.entry.average for system in systems]
    names = [escape(system.entry.name) for system in systems]
    points: dict[str, Any] = {
        "name": "entries",
        "mode": "markers+text",
        "y": scores,
        "hovertext": names,
        "textposition": "top left",
        "cliponaxis": False,
        "meta": 0,
        "marker": {"size": 10},
        "hovertemplate": "%{hovertext}: %{y:.1f}<extra></extra>",
    }
    if all(system.average for system in systems):
        limits = [system.average for system in systems if system.average]
        points["error_y"] = {
            "type": "data",
            "array": [100 * i.high - s for i, s in zip(limits, scores, strict=True)],
            "arrayminus": [s - 100 * i.low for i, s in zip(limits, scores, strict=True)],
            "thickness": 1,
            "width": 0,
        }
    choices: list[dict[str, Any]] = []
    for kind, title in COSTS.items():
        values = [cost(system.entry, kind) for system in systems]
        x, axis = log_with_zero(values, title)
        on_front = front(scores, values)
        best = sorted((n for n in range(len(systems)) if on_front[n]), key=values.__getitem__)
        line = {"x": [x[n] for n in best], "y": [scores[n] for n in best]}
        beside = [name if n in best else "" for n, name in enumerate(names)]  # labels for all would overlap
        choices.append(
            {"name": kind, "x": [line["x"], x], "y": [line["y"], scores], "text": [[], beside], "xaxis": axis}
        )
    first = choices[0]
    path: dict[str, Any] = {"name": "best at its cost", "mode": "lines", "line": {"shape": "hv", "width": 2}, "meta": 1}
    data = [
        path | {"x": first["x"][0], "y": first["y"][0], "hoverinfo": "skip"},
        points | {"x": first["x"][1], "text": first["text"][1]},
    ]
    return {"data": data, "layout": {"xaxis": first["xaxis"], "yaxis": _points("score")}, "choices": choices}


def convergence(cells: Sequence[CellScore], tasks: Sequence[str]) -> Plot | None:
    """Dev score of every offered answer against calls: a series per task, a line per split. None without dev scores."""
    traces = []
    for n, task in enumerate(tasks):
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for cell in cells:
            offers = offered(cell) if cell.task == task else []
            if offers:
                x += [*(calls for calls, _ in offers), None]
                y += [*(100 * dev for _, dev in offers), None]
                text += [f"split {cell.split}"] * (len(offers) + 1)
        if y:
            hover = "%{fullData.name}, %{text}: dev %{y:.1f} after %{x:,.0f} calls<extra></extra>"
            traces.append(_trace(task, n, x, y) | {"text": text, "hovertemplate": hover, "connectgaps": False})
    if not traces:
        return None
    return {"data": traces, "layout": {"xaxis": {"title": {"text": "calls"}}, "yaxis": _points("dev score")}}


def offered(cell: CellScore) -> list[tuple[float, float]]:
    """(calls, dev score) of each answer with a dev score that a cell offered."""
    rows = cell.record.train_rows
    return [(spent / rows, float(note["dev"])) for spent, note in cell.record.history or () if "dev" in note]


def _trace(name: str, n: int, x: Sequence[float | None], y: Sequence[float | None]) -> dict[str, Any]:
    return {"name": escape(name), "mode": "lines+markers", "x": list(x), "y": list(y)} | style(n)


def _points(title: str) -> dict[str, Any]:
    return {"title": {"text": f"{title} (points)"}}


def log_with_zero(values: Sequence[float], title: str) -> tuple[list[float], dict[str, Any]]:
    """Positions on a logarithmic axis with a position for 0, one decade left of the smallest power of ten."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = int(np.floor(np.log10(min(positive)))), int(np.ceil(np.log10(max(positive))))
    zero = 10.0 ** (low - 1)
    ticks = [10.0**k for k in range(low, high + 1)]
    names = [_short(tick) for tick in ticks]
    if min(values, default=1.0) <= 0:
        ticks, names = [zero, *ticks], ["0", *names]
    axis = {"type": "log", "tickvals": ticks, "ticktext": names, "title": {"text": title}}
    return [value if value > 0 else zero for value in values], axis


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
