"""Figures of an ablation: scores by value, and how the searches converged, from what they logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.leaderboard.report.figures import COLOURS, MARKERS, STYLE, WIDTH, plain_numbers, write_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.leaderboard.ablation import Variant
    from harness.leaderboard.entries import CellScore

PANELS = {
    "loss": "best training loss of the generation",
    "sigma": "step size",
    "condition": "condition number of the covariance",
}
"""What searches log (`BlackBox.log`), with the titles of the panels."""
LOGARITHMIC = ("sigma", "condition")


def draw(found: Sequence[Variant], folder: Path) -> list[Path]:
    """Write ``OPTION.svg`` and, for each task, ``OPTION-TASK-convergence.svg``; the same facts give the same bytes.

    Args:
        found: variants of one or more options.
        folder: made where it is not there.

    Returns:
        The files, in the order in which they were written.

    Raises:
        InputError: a file cannot be written.
    """
    written = []
    with mpl.rc_context(STYLE):
        for option in dict.fromkeys(variant.option for variant in found):
            own = [variant for variant in found if variant.option == option]
            figures = {option: scores(own)}
            for task in dict.fromkeys(task for variant in own for task in variant.entry.tasks):
                curves = convergence(own, task)
                if curves is not None:
                    figures[f"{option}-{task}-convergence"] = curves
            for name, figure in figures.items():
                written.append(folder / f"{name}.svg")
                write_figure(figure, written[-1])
    return written


def scores(own: Sequence[Variant]) -> Figure:
    """Average against the values, with intervals; and each task's scores."""
    figure = Figure(figsize=(WIDTH, 0.6 * WIDTH), layout="constrained")
    axes: Any = figure.subplots()
    x = range(len(own))
    known = [(n, variant) for n, variant in enumerate(own) if variant.average is not None]
    if known:
        limits = [variant.average for _, variant in known if variant.average is not None]
        mean = [100 * i.value for i in limits]
        below = [100 * (i.value - i.low) for i in limits]
        above = [100 * (i.high - i.value) for i in limits]
        axes.errorbar(
            [n for n, _ in known], mean, [below, above], color="black", marker="o", capsize=3, label="average, 95 %"
        )
    for k, task in enumerate(dict.fromkeys(task for variant in own for task in variant.entry.tasks)):
        y = [100 * v.entry.task(task)[0] if task in v.entry.tasks else None for v in own]
        axes.plot(x, y, color=COLOURS[k % 8], marker=MARKERS[k % 8], linestyle=":", label=task)
    axes.set_xticks(list(x), [variant.value for variant in own])
    axes.set_xlabel(own[0].option)
    axes.set_ylabel("score (points)")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def convergence(own: Sequence[Variant], task: str) -> Figure | None:
    """What was logged against calls: a panel for each number, a colour for each value, a line for each split.

    None where nothing was logged.
    """
    logged = [[cell for cell in variant.entry.cells if cell.task == task and cell.record.log] for variant in own]
    keys = [key for key in PANELS if any(_line(cell, key) for cells in logged for cell in cells)]
    if not keys:
        return None
    figure = Figure(figsize=(WIDTH, 0.4 * WIDTH * len(keys)), layout="constrained")
    panels: Any = figure.subplots(len(keys), squeeze=False, sharex=True)
    for key, axes in zip(keys, panels[:, 0], strict=True):
        for n, (variant, cells) in enumerate(zip(own, logged, strict=True)):
            for k, cell in enumerate(cells):
                line = _line(cell, key)
                label = f"{variant.option}={variant.value}" if k == 0 else None
                axes.plot([x for x, _ in line], [y for _, y in line], color=COLOURS[n % 8], lw=1, label=label)
        if key in LOGARITHMIC:
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        axes.set_title(f"{task}: {PANELS[key]}", fontsize=8)
    panels[-1, 0].set_xlabel("calls")
    panels[0, 0].legend(fontsize=7)
    return figure


def _line(cell: CellScore, key: str) -> list[tuple[float, float]]:
    """(calls, value) of each time that a number was logged."""
    rows = cell.record.train_rows
    return [(spent / rows, note[key]) for spent, note in cell.record.log if key in note]
