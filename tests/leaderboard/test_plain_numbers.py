"""Logarithmic axes of figures have plain numbers, which need no TeX."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from harness.leaderboard.report.figures import STYLE, plain_numbers


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((1, 20_000), ["1", "10", "100", "1,000", "10,000"]),
        ((0.15, 2.2), ["0.2", "0.5", "1", "2"]),
        ((1e-6, 1e-2), ["1e-06", "1e-05", "0.0001", "0.001", "0.01"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(limits: tuple[float, float], labels: list[str]) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 2))
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_xlim(*limits)
        plain_numbers(axes.xaxis)
        figure.canvas.draw()
        texts = [
            tick.get_text() for tick in axes.xaxis.get_ticklabels() if limits[0] <= tick.get_position()[0] <= limits[1]
        ]
        assert texts == labels
        assert not any(tick.get_text() for tick in axes.xaxis.get_ticklabels(minor=True))
