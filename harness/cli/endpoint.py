"""Before a run over a served model: `endpoint` says what a server gives, `headroom` whether tuning is worth it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.console import note, print_json, say
from harness.cli.options import NOTHING, AsJson, TrackName, overriding
from harness.errors import InputError, ModelError

if TYPE_CHECKING:
    from harness.evaluation.headroom import Forecast, Point, Signals
    from harness.evaluation.overrides import Overrides

commands = typer.Typer()


@commands.command(
    epilog="Examples:\n\n"
    "  harness endpoint http://127.0.0.1:8080\n\n"
    "  harness endpoint https://api.example.com --served-model NAME --model DIR"
)
@overriding("model", "served_model", helps={"model": "Directory, hub id or package with the served model's tokenizer."})
def endpoint(
    url: Annotated[str, typer.Argument(help="Address of a server that speaks the OpenAI protocol.", metavar="URL")],
    track: TrackName = "api",
    overrides: Overrides = NOTHING,
    as_json: AsJson = False,
) -> None:
    """Say what a server really gives: its access level, how it reads prompts, and what it refuses and why.

    Some requests are sent, and numbers are compared: servers answer 200 to fields that they ignore. A key is read from
    the environment variable HARNESS_ENDPOINT_KEY, and is shown nowhere. docs/endpoints.md lists servers.
    """
    from harness.evaluation.preparation import replaced  # noqa: PLC0415
    from harness.lm.endpoint.model import connect  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen = replaced(load_track(track), overrides)
    lm = connect(chosen.model, chosen.prompt, url, overrides.served_model)
    try:
        found, text, lines = lm.found, None, []
        try:
            text = lm.text_found
            lines = text.lines()
        except ModelError as problem:  # what it gives of label words is told all the same
            lines = [f"text tasks: not here ({problem})"]
        if as_json:
            shown = ("url", "server", "model", "context", "gives", "takes_ids", "varies")
            refused = [dataclasses.asdict(each) for each in (*found.refused, *(text.refused if text else ()))]
            scores = text.scores.name if text and text.scores else None
            written = {"scores": scores, "writes": text.writes.name if text else None}
            print_json({name: getattr(found, name) for name in shown} | {"text": written, "refused": refused})
            return
        say("\n".join([*found.lines(), *lines, f"{lm.asked} requests were sent to find out"]))
    finally:
        lm.close()


@commands.command(
    epilog="Examples:\n\n"
    "  harness headroom --task sst2 --split 1\n\n"
    "  harness headroom --track api --backend openai --endpoint http://127.0.0.1:8080\n\n"
    "  harness headroom --validate"
)
@overriding(
    "data",
    "model",
    "staged",
    "device",
    "backend",
    "endpoint",
    "served_model",
    "concurrency",
    "tasks",
    "splits",
    "shots",
)
def headroom(
    track: TrackName = "mini",
    overrides: Overrides = NOTHING,
    measured: Annotated[
        Path | None, typer.Option("--measured", help="Measured cells of your own: a file of tools/headroom_points.py.")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Ask no model: show how forecasts came out on the measured cells.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell from two calls whether tuning will beat the bare template on a task and model, with an interval.

    The bare template is asked about train and dev, once each. What tuning added on measured cells with a like lean to
    one class is the forecast, and its interval held for nine of ten cells of tasks that it had not seen. Where the
    interval has 0 in it, or the model is none of the measured ones, the answer is "cannot tell".
    """
    from harness.evaluation.headroom import POINTS, forecast, read_points, signals  # noqa: PLC0415

    path = measured or POINTS
    if not path.is_file():
        raise InputError(f"--measured {path}: no such file; write one with: python tools/headroom_points.py STORE")
    points = read_points(path)
    if not points:
        raise InputError(f"{path}: no measured cell; write some with: python tools/headroom_points.py STORE")
    if validate:
        _validation(points, as_json)
        return
    from harness.evaluation.run import Evaluation  # noqa: PLC0415 - torch
    from harness.evaluation.text_cells import with_classes  # noqa: PLC0415
    from harness.results.store import Store  # noqa: PLC0415
    from harness.tracks.examples import load_shots  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    evaluation = Evaluation(load_track(track), overrides, Store("sqlite://"))
    rows: list[dict[str, Any]] = []
    for cell in evaluation.cells:
        shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
        found = signals(evaluation.model_for(cell), with_classes(cell.task, "harness headroom"), shots)
        told = forecast(points, found, evaluation.lm.name)
        rows.append({"task": cell.task.name, "split": cell.split} | _record(found, told))
        if not as_json:
            say(_line(f"{cell.task.name}/{cell.split}", found, told))
    if as_json:
        print_json({"model": evaluation.lm.name, "measured": len(points), "cells": rows})
        return
    for doubt in dict.fromkeys(str(row["doubt"]) for row in rows if row["doubt"]):
        own = [f"{row['task']}/{row['split']}" for row in rows if row["doubt"] == doubt]
        where = "" if len(own) == len(rows) else f" on {', '.join(own)}"
        note(f"why it cannot tell{where}: {doubt}")


def _record(found: Signals, told: Forecast) -> dict[str, Any]:
    return {
        **dataclasses.asdict(found),
        "verdict": told.verdict,
        **dataclasses.asdict(told),
    }


def _line(place: str, found: Signals, told: Forecast) -> str:
    said = {"yes": "tuning will beat it", "no": "tuning will not beat it", "cannot tell": "cannot tell"}[told.verdict]
    return (
        f"{place:<12} bare {100 * found.bare:5.1f}, centred {100 * found.centred:5.1f} on {found.texts} texts; tuning "
        f"adds {100 * told.gain:+.1f} [{100 * told.low:+.1f}, {100 * told.high:+.1f}]: {said}"
    )


def _validation(points: tuple[Point, ...], as_json: bool) -> None:
    """Print how forecasts of each task came out that had not seen it."""
    from harness.evaluation.headroom import validate  # noqa: PLC0415

    found = validate(points)
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
        return
    if not found:
        raise InputError(
            f"--validate: all {len(points):,} measured cells are of one task, and none is left to tell from"
        )
    for each in found:
        say(
            f"{each.task:<8} {each.cells} cells: off by {100 * each.error:.1f} points (the other tasks' mean gain: "
            f"{100 * each.constant:.1f}), {each.covered} in the interval, {each.told} verdicts, {each.right} right"
        )
    cells, covered = sum(each.cells for each in found), sum(each.covered for each in found)
    told, right = sum(each.told for each in found), sum(each.right for each in found)
    say(f"all      {cells} cells: {covered} in the interval, {told} verdicts, {right} right; the others: cannot tell")
