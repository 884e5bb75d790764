"""Plots as data in plotly's format, which `static/site.js` passes to plotly.js.

A plot is {"data": traces, "layout": …}. `meta` of a trace says its series, the number of its colour, which the style
sheet defines for light and for dark mode, and whether it is a band. The name of an annotation is the series that it
labels; the script moves labels apart. A plot may have "choices": other x values and axes for the same traces. Names
come from submissions, and plotly interprets some HTML in them, so they are escaped.
"""

from __future__ import annotations

import datetime as dt
import itertools
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from harness.leaderboard.anytime import ecdf, profile
from harness.leaderboard.pareto import cost, front
from harness.leaderboard.report.curves import SHOWN, shown_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import CellScore
    from harness.leaderboard.history import History
    from harness.leaderboard.report.curves import Curves
    from harness.leaderboard.report.facts import System
    from harness.leaderboard.stats import FloatArray, Interval
    from harness.leaderboard.traces import Trace

Plot = dict[str, Any]
Beside: TypeAlias = "Sequence[tuple[str, Curves, str]]"
"""References that are drawn beside entries: name, curves, and the run that is theirs in the curves."""

COLOURS = 8
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
DRAWN = 24
"""Largest number of entries in a plot of curves; more cannot be told apart. The table below the plot has all
entries."""
LONGEST_LABEL = 24
"""Characters of a label at a line's end."""
SOFT = -1
"""Colour of what stands behind: the bare template, and the entries that are not on a front."""
MOST_TRACES = 40
"""Largest number of entries in the plot of budgets."""
PROFILED = 2
"""Which of `harness.leaderboard.anytime.TARGETS` performance profiles are about."""
COSTS = {
    "tokens": "tokens sent through the model",
    "bytes": "bytes, up and down",
    "seconds": "seconds of tuning",
}


def style(n: int) -> dict[str, Any]:
    """Series, colour, dash and symbol of the n-th series, so that series differ without colour, too."""
    return {
        "meta": {"series": n, "colour": n % COLOURS},
        "line": {"dash": DASHES[n // COLOURS % len(DASHES)], "width": 2},
        "marker": {"symbol": SYMBOLS[n % len(SYMBOLS)], "size": 6},
    }


def ordered(systems: Sequence[System], curves: Curves) -> list[System]:
    """The systems that plots of curves draw: first those that are shown at once, which have the first colours."""
    by_run = {system.entry.run: system for system in systems}
    shown = [by_run[run] for run in curves.chosen() if run in by_run]
    return [*shown, *(system for system in systems if system not in shown)][:DRAWN]


def progress(
    systems: Sequence[System], curves: Curves, task: str | None = None, small: bool = False, beside: Beside = ()
) -> Plot:
    """Score of the answer that stood after so many calls, with its interval: on average, or on one task.

    `small` leaves the names away, for several plots side by side. `beside` are references over their forward passes.
    """
    bands, lines, notes = [], [], []
    bottom, top = curves.limits(curves.chosen(), task)
    for n, system in enumerate(ordered(systems, curves)):
        trace = curves.on(task)[system.entry.run]
        points = known(trace, curves.budget(task))
        if not points:
            continue
        x, y = [calls for calls, _ in points], [round(100 * value.value, 3) for _, value in points]
        low, high = ([_in_points(v.low) for _, v in points], [_in_points(v.high) for _, v in points])
        shown = {"visible": n < SHOWN}
        band: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "line": {"width": 0, "shape": "hv"}}
        band |= {"name": "interval"} | shown
        meta = style(n)["meta"] | {"band": True}
        bands += [band | {"x": x, "y": low, "meta": meta}, band | {"x": x, "y": high, "meta": meta, "fill": "tonexty"}]
        line = _trace(system.entry.name, n, x, y) | {"mode": "lines"} | shown
        line["line"]["shape"] = "hv"  # an answer stands until the next one
        text = [f"[{a:.1f}, {b:.1f}] after {shown_calls(c)} calls" for a, b, c in zip(low, high, x, strict=True)]
        lines.append(line | {"text": text, "hovertemplate": "%{fullData.name}: %{y:.1f} %{text}<extra></extra>"})
        notes.append(_label(system.entry.name, n, y[-1], bottom))
    before = curves.before(task)
    if before is not None and lines:
        x = [curves.calls[0], curves.budget(task)]
        bare: dict[str, Any] = {"name": "bare template", "mode": "lines", "x": x, "y": [round(100 * before, 3)] * 2}
        bare |= {"line": {"dash": "dot", "width": 1.5}, "meta": {"series": SOFT, "colour": SOFT}}
        lines.append(bare | {"hovertemplate": "bare template: %{y:.1f}<extra></extra>"})
        notes.append(_label("bare template", SOFT, 100 * before))
    for name, theirs, run in beside:
        found = known(theirs.on(task)[run], curves.budget(task))
        if found and lines:
            x, y = [calls for calls, _ in found], [round(100 * value.value, 3) for _, value in found]
            drawn = {"name": escape(name), "mode": "lines", "x": x, "y": y, "meta": {"series": SOFT, "colour": SOFT}}
            drawn |= {"line": {"dash": "longdash", "width": 1.5, "shape": "hv"}}
            hover = "%{fullData.name}, with gradients: %{y:.1f} after %{x:,.3g} calls' forwards<extra></extra>"
            lines.append(drawn | {"hovertemplate": hover})
            notes.append(_label(name, SOFT, y[-1], bottom))
    layout: dict[str, Any] = {"xaxis": _calls_axis(curves.calls[0], curves.budget(task)), "yaxis": _points("score")}
    layout["yaxis"]["range"] = [bottom, top]
    if not small:
        layout["annotations"] = notes
    return {"data": bands + lines, "layout": layout | {"hovermode": "closest"}}


def known(trace: Trace, most: float) -> list[tuple[float, Interval]]:
    """The points of a trace that are known, up to so many calls."""
    points = zip(trace.calls, trace.values, strict=True)
    return [(calls, value) for calls, value in points if value is not None and calls <= most]


def _calls_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis of calls from `low` to `high`, with its ticks."""
    few = high / low < 2_000  # noqa: PLR2004 - room for ticks at 2 and 5, too
    ticks = [m * 10.0**k for k in range(-3, 10) for m in ((1, 3) if few else (1,)) if low <= m * 10.0**k <= high]
    return {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(max(high, low * 2)))],
        "tickvals": ticks,
        "ticktext": [_short(tick) for tick in ticks],
        "title": {"text": "calls of a cell"},
    }


def _label(name: str, n: int, y: float, bottom: float = 0.0) -> dict[str, Any]:
    """The name of a series at the right end of its line; `y` in points. An end below the plot says where it is."""
    short = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
    short += f" \N{DOWNWARDS ARROW} {y:.1f}" if y < bottom else ""
    place = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 6, "y": round(y, 3), "showarrow": False}
    return place | {"text": escape(short), "name": str(n)}


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
    traces, notes = [], []
    for n, (system, (calls, shares)) in enumerate(zip(systems[:DRAWN], curves, strict=False)):
        trace = _trace(system.entry.name, n, calls, [round(100 * share, 2) for share in shares]) | {"mode": "lines"}
        trace["line"]["shape"] = "hv"
        notes.append(_label(system.entry.name, n, 100 * shares[-1] if shares else 0.0))
        hover = f"%{{fullData.name}}: %{{y:.0f}} % within {within}<extra></extra>"
        traces.append(trace | {"visible": n < SHOWN, "hovertemplate": hover})
    x_axis = {"type": "log", "dtick": 1, "title": {"text": x}}
    y_axis = {"title": {"text": y}, "range": [0, 100]}
    return {"data": traces, "layout": {"xaxis": x_axis, "yaxis": y_axis, "annotations": notes}}


def budgets(systems: Sequence[System], curves: Curves) -> Plot:
    """Score against calls: how each entry came to its score, where it ended, and the front over budgets."""
    data: list[dict[str, Any]] = []
    ends: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for system in systems[:MOST_TRACES]:
        trace, used = curves.on()[system.entry.run], max(calls_used(system), curves.calls[0])
        known = [
            (calls, 100 * value.value)
            for calls, value in zip(trace.calls, trace.values, strict=True)
            if value is not None and calls < used
        ]
        final = round(100 * system.entry.average, 3)
        x, y = [*(calls for calls, _ in known), used], [*(round(score, 3) for _, score in known), final]
        behind = {"series": SOFT, "colour": SOFT}
        line = {"name": escape(system.entry.name), "mode": "lines", "x": x, "y": y, "meta": behind}
        hover = "%{fullData.name}: %{y:.1f} after %{x:,.3g} calls<extra></extra>"
        data.append(line | {"line": {"shape": "hv", "width": 1}, "hovertemplate": hover})
        for name, each in (("x", used), ("y", final), ("text", escape(system.entry.name))):
            ends[name].append(each)
    by_run = {system.entry.run: system for system in systems}
    points = [best for best in curves.front() if best.run in by_run and best.score]
    runs = [best.run for best in points]
    takes_over = [run if run != before else None for before, run in itertools.pairwise([None, *runs])]
    names = [escape(by_run[run].entry.name) if run else "" for run in takes_over]
    x, y = [best.calls for best in points], [_in_points(best.score.value) for best in points if best.score]
    dots = {
        "name": "at the end of its calls",
        "mode": "markers",
        "marker": {"size": 8},
        "meta": {"series": 0, "colour": 0},
    }
    dots |= ends | {"hovertemplate": "%{text}: %{y:.1f}, %{x:,.3g} calls used<extra></extra>"}
    front: dict[str, Any] = {"name": "front over budgets", "mode": "lines+text", "x": x, "y": y, "text": names}
    front |= {"textposition": "top right", "cliponaxis": False, "hoverinfo": "skip"}
    front |= {"line": {"shape": "hv", "width": 3}, "meta": {"series": 1, "colour": 1}}
    y_axis = _points("score") | {"range": list(curves.limits([system.entry.run for system in systems]))}
    return {
        "data": [*data, front, dots],
        "layout": {"xaxis": _calls_axis(curves.calls[0], curves.budget()), "yaxis": y_axis},
    }


def calls_used(system: System) -> float:
    """Calls that a cell of an entry used, on average over its cells."""
    return system.entry.calls / max(len(system.entry.cells), 1)


def leaders(past: History) -> Plot:
    """The best average over time, and every complete run that may be compared, where it ended."""
    steps_x: list[str] = []
    steps_y: list[float] = []
    names: list[str] = []
    for lead in past.leads:
        steps_x.append(_day(lead.since))
        steps_y.append(_in_points(lead.tried.outcome.average or 0.0))
        names.append(escape(lead.tried.run.key.label))
    dots = [each for each in past.runs if each.complete and each.comparable and each.ended]
    last = max([each.ended or 0.0 for each in dots] + [past.leads[-1].since])
    line = {"name": "highest average", "mode": "lines+text", "x": [*steps_x, _day(past.leads[-1].until or last)],
            "y": [*steps_y, steps_y[-1]], "text": [*names, ""], "textposition": "top right", "hoverinfo": "skip",
            "line": {"shape": "hv", "width": 2}, "meta": {"series": 1, "colour": 1}, "cliponaxis": False}  # fmt: skip
    runs = {"name": "complete runs", "mode": "markers", "x": [_day(each.ended or 0.0) for each in dots],
            "y": [_in_points(each.outcome.average or 0.0) for each in dots], "meta": {"series": 0, "colour": 0},
            "text": [escape(each.run.key.label) + (" (withdrawn)" if each.withdrawn else "") for each in dots],
            "marker": {"size": 8, "symbol": ["x" if each.withdrawn else "circle" for each in dots]},
            "hovertemplate": "%{text}: %{y:.1f}, %{x|%d %b %Y %H:%M}<extra></extra>"}  # fmt: skip
    return {"data": [line, runs], "layout": {"xaxis": {"type": "date"}, "yaxis": _points("average")}}


def _day(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M:%S}"


def _in_points(share: float) -> float:
    return round(100 * share, 3)


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
        "meta": {"series": 0, "colour": 0},
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
    path: dict[str, Any] = {"name": "best at its cost", "mode": "lines", "line": {"shape": "hv", "width": 2}}
    path["meta"] = {"series": 1, "colour": 1}
    data = [
        path | {"x": first["x"][0], "y": first["y"][0], "hoverinfo": "skip"},
        points | {"x": first["x"][1], "text": first["text"][1]},
    ]
    return {"data": data, "layout": {"xaxis": first["xaxis"], "yaxis": _points("score")}, "choices": choices}


def convergence(cells: Sequence[CellScore], tasks: Sequence[str]) -> Plot | None:
    """Dev score of every offered answer against calls: a series per task, a line per split. None without dev scores."""
    traces, notes = [], []
    for n, task in enumerate(tasks):
        ends: list[float] = []
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for cell in cells:
            offers = offered(cell) if cell.task == task else []
            if offers:
                x += [*(calls for calls, _ in offers), None]
                y += [*(100 * dev for _, dev in offers), None]
                text += [f"split {cell.split}"] * (len(offers) + 1)
                ends.append(100 * offers[-1][1])
        if y:
            hover = "%{fullData.name}, %{text}: dev %{y:.1f} after %{x:,.0f} calls<extra></extra>"
            traces.append(_trace(task, n, x, y) | {"text": text, "hovertemplate": hover, "connectgaps": False})
            notes.append(_label(task, n, float(np.mean(ends))))
    if not traces:
        return None
    layout = {"xaxis": {"title": {"text": "calls"}}, "yaxis": _points("dev score"), "annotations": notes}
    return {"data": traces, "layout": layout}


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
