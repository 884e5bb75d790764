"""Find a run again, and what happened in it: `runs` and `log`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.cli.again import command_line
from harness.cli.complete import complete_entries, complete_runs, complete_tasks, complete_tracks
from harness.cli.console import STORE, existing_store, out, print_json, say, shown
from harness.cli.formats import Form, export
from harness.cli.options import AsJson, StoreUrl
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.leaderboard.cell_log import CellLog
    from harness.results.records import Run
    from harness.results.store import Store

commands = typer.Typer()
AnyTrack = Annotated[
    str | None,
    typer.Option("--track", "-t", help="Only runs of this track; default any.", autocompletion=complete_tracks),
]


class Part(StrEnum):
    """A part of what `harness log` shows of a cell."""

    WHY = "why"
    OUTPUT = "output"
    CALLS = "calls"
    ANSWERS = "answers"


@commands.command(
    epilog="Examples:\n\n"
    "  harness runs\n\n"
    "  harness runs --trials --track mini\n\n"
    "  harness runs --entry mysolver --format csv > runs.csv"
)
def runs(
    track: AnyTrack = None,
    entry: Annotated[
        str | None,
        typer.Option(
            "--entry", help="Only runs of this entry, with or without its options.", autocompletion=complete_entries
        ),
    ] = None,
    trials: Annotated[
        bool, typer.Option("--trials", help="Only runs in which the track's choices were replaced.")
    ] = False,
    last: Annotated[int | None, typer.Option("--last", help="Only so many, the newest.", min=1)] = None,
    store: StoreUrl = STORE,
    form: Form = None,
    as_json: AsJson = False,
) -> None:
    """List every run in the results database, newest last: trials, failed and interrupted ones, too.

    The average is over the tasks that have a finished cell. What happened in a cell: harness log ENTRY.
    """
    from harness.leaderboard import trials as listed  # noqa: PLC0415

    results = existing_store(store)
    found = listed.tried(results, track=_name(track), entry=entry, trials=trials)[-last if last else None :]
    if form is not None:
        export(f"Runs in {shown(store)}", listed.records(found), form, "runs")
        return
    if as_json:
        print_json(listed.records(found))
        return
    if not found:
        say(f"no run like that in {shown(store)}")
        return
    _wide().print(listed.table(found, f"runs in {shown(store)}"))
    say(f"what happened in one: {command_line('log', found[-1].run.id[:8], store=store)}")


@commands.command(
    epilog="Examples:\n\n"
    "  harness log mysolver\n\n"
    "  harness log mysolver --task sst2 --split 1\n\n"
    "  harness log 6ea652ca --task sst2 --split 1 --show output\n\n"
    "  harness log mysolver --task sst2 --split 1 --format csv > queries.csv"
)
def log(
    name: Annotated[
        str,
        typer.Argument(
            help="An entry, whose newest run is taken, or the id of a run or its beginning.",
            metavar="ENTRY",
            autocompletion=complete_runs,
        ),
    ],
    task: Annotated[str | None, typer.Option("--task", help="Task of the cell.", autocompletion=complete_tasks)] = None,
    split: Annotated[int | None, typer.Option("--split", help="Split of the cell.")] = None,
    show: Annotated[
        list[Part] | None,
        typer.Option("--show", help="Only this part, and all of it; repeatable. Default: every part, calls in short."),
    ] = None,
    track: AnyTrack = None,
    store: StoreUrl = STORE,
    form: Form = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened in a cell: why it ended, what it printed, its traceback, its calls and its answers.

    Without --task and --split the run's cells are listed, unless it has one alone. --format gives the list of cells,
    or the queries of the cell.
    """
    from harness.leaderboard import cell_log  # noqa: PLC0415
    from harness.results.finding import find_run  # noqa: PLC0415

    results = existing_store(store)
    run = find_run(results, name, _name(track))
    place = _place(results, run, task, split)
    if place is None:
        cells = [
            row
            for row in cell_log.cell_records(results, run)
            if task in {None, row["task"]} and split in {None, row["split"]}
        ]
        if not cells and (task is not None or split is not None):
            raise InputError(f"run {run.id} ({run.key.label}) has no finished cell of that task or split")
        if form is not None:
            export(f"Cells of {run.key.label}, run {run.id}", cells, form, "cells")
        elif as_json:
            print_json({"run": run.id, "entry": run.key.label, "track": run.key.track, "cells": cells})
        else:
            _list(results, run, cells, name, store)
        return
    found = cell_log.log_of(results, run, *place)
    if form is not None:
        export(f"Queries of {run.key.label} on {place[0]}/{place[1]}", cell_log.query_records(found), form, "queries")
        return
    if as_json:
        print_json(cell_log.record(found))
        return
    _show(found, show or [])


def _name(track: str | None) -> str | None:
    """The name of a track that is given by name or as a file."""
    from harness.tracks.track import load_track  # noqa: PLC0415

    return track if track is None else load_track(track).name


def _place(results: Store, run: Run, task: str | None, split: int | None) -> tuple[str, int] | None:
    """The cell that is meant; None if there are several."""
    if task is not None and split is not None:
        return task, split
    places = [(cell.task, cell.split) for cell in results.cells(run.id)]
    places = [each for each in places if task in {None, each[0]} and split in {None, each[1]}]
    return places[0] if len(places) == 1 else None


def _wide() -> Console:
    return Console(highlight=False, width=None if out.is_terminal else 150)


def _list(results: Store, run: Run, cells: list[dict[str, object]], name: str, store: str) -> None:
    """Print the cells of a run."""
    from rich.markup import escape  # noqa: PLC0415

    from harness.evaluation.progress import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, title=f"{run.key.label}, run {run.id}, track {run.key.track}")
    table.title_justify = "left"
    for column in ("cell", "status", "score", "calls", "s", "printed, bytes", "why"):
        table.add_column(column, justify="left" if column in {"cell", "status", "why"} else "right", overflow="fold")
    for row in cells:
        score, calls = row["score"], row["calls"]
        table.add_row(
            f"{row['task']}/{row['split']}",
            str(row["status"]),
            f"{100 * score:.1f}" if isinstance(score, float) else "-",
            f"{calls:,.0f}" if isinstance(calls, float | int) else "-",
            f"{row['seconds']:.1f}",
            f"{row['printed_bytes']:,}",
            escape(printable(str(row["why"] or ""))[:200]),
        )
    _wide().print(table)
    for each in results.open_cells(run.id):
        say(f"{each.task}/{each.split}: begun and not finished, {each.rows:,} rows answered")
    if cells:
        first = next((row for row in cells if row["why"]), cells[0])
        where = ("--task", first["task"], "--split", first["split"])
        say(f"one of them: {command_line('log', name, *where, store=store)}")


def _show(found: CellLog, only: list[Part]) -> None:
    """Print what is stored of a cell, or the chosen parts of it."""
    from harness.evaluation.progress import printable  # noqa: PLC0415
    from harness.leaderboard.cell_log import answers_table, heading, queries_table  # noqa: PLC0415
    from harness.results.status import MEANING  # noqa: PLC0415

    of, status = found.cell.record, found.cell.status
    meaning = f"{status}: {MEANING.get(status, 'nothing more is said of it')}"
    parts: dict[Part, tuple[str, str | Table, str]] = {
        Part.WHY: ("why it ended so", printable(of.detail).rstrip(), meaning if only else ""),
        Part.OUTPUT: ("what it printed, the end of it", printable(of.output).rstrip(), "it printed nothing"),
        Part.CALLS: (
            "queries", queries_table(found, every=Part.CALLS in only) if found.queries else "", "no query was answered",
        ),
        Part.ANSWERS: (
            "answers that stood at marks of the budget",
            answers_table(found) if found.kept else "",
            "no answer is kept",
        ),
    }  # fmt: skip
    for line in heading(found) if not only else ():
        say(printable(line))
    for part, (title, content, nothing) in parts.items():
        if only and part not in only:
            continue
        if not only and (content or nothing):
            say(f"\n{title}:" if content else f"\n{nothing}")
        elif not content and nothing:
            say(nothing)
        if isinstance(content, Table):
            _wide().print(content)
        elif content:
            say(content)
