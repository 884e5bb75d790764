"""The chart of policies: points lost against leakage prevented, drawn by matplotlib like the report's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.leaderboard.report.figures import COLOURS, MARKERS, STYLE, WIDTH, write_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_NEAR = 0.08
"""Shares of both axes that names need for themselves."""


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the chart of `harness.leaks.policy.records` as SVG; the same rows give the same bytes.

    Policies are left out that cannot be placed: cells are missing, or nothing was stolen of the track as it is.

    Raises:
        InputError: the file cannot be written.
    """
    placed = [row for row in rows if row["lost"] is not None and row["prevented"] is not None]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 * WIDTH), layout="constrained")
        axes: Any = figure.subplots()
        for n, solver in enumerate(dict.fromkeys(row["solver"] for row in placed)):
            own = [row for row in placed if row["solver"] == solver]
            y = [100 * row["lost"] for row in own]
            below = [100 * (row["lost"] - row["lost_low"]) for row in own]
            above = [100 * (row["lost_high"] - row["lost"]) for row in own]
            # Solvers of a policy stand beside each other.
            x = [100 * row["prevented"] + 0.8 * n for row in own]
            axes.errorbar(
                x, y, [below, above], linestyle="", marker=MARKERS[n % 8], color=COLOURS[n % 8], capsize=2, label=solver
            )
        for place, top, names in _labels(placed):
            axes.annotate(
                ", ".join(names),
                (100 * place, 100 * top),
                xytext=(0, 6),
                textcoords="offset points",
                rotation=30,
                fontsize=7,
            )
        axes.axhline(0, linewidth=0.6, color="black")
        axes.margins(y=0.3)
        axes.set_xlabel("leakage prevented (% of the last layer that the attack knows without the policy)")
        axes.set_ylabel("points lost, with intervals")
        if placed:
            axes.legend(fontsize=7)
        write_figure(figure, path)


def _labels(placed: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, list[str]]]:
    """Where the names of policies stand, and which: those that would stand on each other share a place."""
    tops: dict[str, tuple[float, float]] = {}
    for row in placed:
        x, top = tops.get(row["policy"], (row["prevented"], row["lost_high"]))
        tops[row["policy"]] = x, max(top, row["lost_high"])
    found: list[tuple[float, float, list[str]]] = []
    for name, (x, top) in sorted(tops.items(), key=lambda each: each[1]):
        near = [each for each in found if abs(each[0] - x) < _NEAR and abs(each[1] - top) < _NEAR]
        if near:
            near[0][2].append(name)
        else:
            found.append((x, top, [name]))
    return found
