"""Run submissions: `evaluate`, and `plan` for schedulers."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cli.again import command_line
from harness.cli.complete import complete_submissions
from harness.cli.console import STORE, err, note, open_store, out, print_json, say
from harness.cli.entrants import identities, parsed, submissions_in
from harness.cli.options import (
    CELLS,
    HOW,
    NOTHING,
    OPTIONS,
    AsJson,
    Names,
    Options,
    StoreUrl,
    TasksDir,
    Teams,
    TrackName,
    overriding,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.engines.job import Job
    from harness.evaluation.failures import Entrant, Failure
    from harness.evaluation.overrides import Overrides
    from harness.evaluation.progress import PlainProgress
    from harness.evaluation.run import Plan
    from harness.results.records import RunKey
    from harness.results.store import Store
    from harness.tracks.track import Track

commands = typer.Typer()
_NAMED, _SHOWN = 3, 300
"""Limits of a line in the table of failures: number of cells named, and characters of the reason."""


class Engine(StrEnum):
    """Where cells run."""

    LOCAL = "local"
    RAY = "ray"


@commands.command(
    epilog="Examples:\n\n"
    "  harness evaluate submissions/ajo\n\n"
    "  harness evaluate submissions/bbt --track kit --data ../kit --task sst2\n\n"
    "  harness evaluate submissions/nevergrad --config optimizer=PSO\n\n"
    "  harness evaluate a/mysolver b/mysolver --team alice --team bob\n\n"
    "  harness evaluate --cell LINE  (of harness plan)"
)
@overriding(*OPTIONS)
def evaluate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Submission folders.", metavar="PATH", autocompletion=complete_submissions),
    ] = None,
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    config: Options = None,
    team: Teams = None,
    name: Names = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            help="Run each cell so many times with other chance of the submission's own, repeats 0 to R-1. The "
            "leaderboard averages them within a split, and its intervals contain that chance.",
            min=1,
            rich_help_panel=CELLS,
        ),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option("--cell", help="Only this cell: a line of harness plan.", metavar="LINE", rich_help_panel=CELLS),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            "--engine",
            help="Where cells run: in this process, or on a Ray cluster (docs/scale.md).",
            rich_help_panel=HOW,
        ),
    ] = Engine.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Of a Ray cluster that runs, or auto; default one of its own here.",
            rich_help_panel=HOW,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", help="Cells at once on the cluster; default one per device.", min=1, rich_help_panel=HOW
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Run cells that failed once more; the new outcome replaces the failure.",
            rich_help_panel=CELLS,
        ),
    ] = False,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Run submissions on a track and store what comes out.

    Finished cells are never run again: the same command takes up where it was.
    One cell is one task on one few-shot split.

    An entry is told by its team, its name and the content of its folder. The newest run under a team and name counts.

    Each submission is on its own: one that fails, in whatever way, is a status of its cells, and the others go on.
    What failed is listed at the end, and the exit code is 1 then.
    """
    _check(paths, overrides, config, repeats, cell)
    if cell is not None and (team or name):
        raise InputError("--cell says which entry of which team it is; leave out --team and --as")
    if engine is Engine.LOCAL and (address is not None or workers is not None):
        raise InputError("--address and --workers are for --engine ray")
    from harness.evaluation.engines import local  # noqa: PLC0415
    from harness.evaluation.engines import ray as on_ray  # noqa: PLC0415
    from harness.evaluation.failures import Entrant, replacing  # noqa: PLC0415
    from harness.evaluation.progress import JsonProgress, LiveProgress, PlainProgress  # noqa: PLC0415

    given = identities(paths or (), team, name) if cell is None else [Entrant(path) for path in paths or ()]
    job, unusable = _job(given, track, tasks_dir, overrides, parsed(config), cell, store)
    for line in replacing(job):
        note(line)
    choices = [dataclasses.replace(job.choices, repeat=n) for n in range(repeats)] if repeats else [job.choices]
    jobs = [dataclasses.replace(job, choices=each, again=again) for each in choices]
    results, chosen = job.store, job.track
    live = err.is_terminal and engine is Engine.LOCAL  # a bar is for one cell at a time

    def first_round(entry: str, left: int) -> None:
        _interim(results, chosen, entry, left)

    told = None if job.choices.tasks else first_round  # of some tasks alone there is no ranking
    progress = JsonProgress(out) if as_json else LiveProgress(err, told) if live else PlainProgress(err, told)
    plans = []
    try:
        with progress:
            for each in jobs:
                if engine is Engine.RAY:
                    plans.append(on_ray.run(each, progress, on_ray.Cluster(address, workers)))
                else:
                    plans.append(local.run(each, progress))
    except KeyboardInterrupt:
        err.print("interrupted; finished cells are kept, and the same command takes up where it was")
        raise typer.Exit(130) from None
    if not as_json:
        how = _apart(plans[-1].base, chosen, job.choices)
        more = ["--trials"] if plans[-1].base.modified else []
        say(f"facts are in {results.url}{how}; {_look(more, track, chosen, store)}")
    if _failed(job, plans, unusable, progress, store):
        raise typer.Exit(1)


def _look(more: Sequence[str], track: str, chosen: Track, store: str) -> str:
    """The next command."""
    what = "see them with" if more else "rank them with"
    given = track if track.endswith(".toml") or Path(track).is_dir() else chosen.name
    return f"{what}: {command_line('leaderboard', *more, track=given, store=store)}"


def _job(
    given: Sequence[Entrant],
    track: str,
    tasks_dir: Path | None,
    overrides: Overrides,
    options: dict[str, str],
    cell: str | None,
    store: str,
) -> tuple[Job, list[Failure]]:
    """The job to run, and the submissions that cannot be run.

    Raises:
        InputError: nothing can be run, or the options do not fit.
    """
    from harness.evaluation.access import check_access  # noqa: PLC0415
    from harness.evaluation.engines.job import Job  # noqa: PLC0415
    from harness.evaluation.failures import entrants  # noqa: PLC0415
    from harness.evaluation.plan import CellId, planned  # noqa: PLC0415
    from harness.evaluation.progress import printable  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if cell is not None:
        one = CellId.parse(cell)
        chosen = load_track(one.track if track == "mini" else track, tasks_dir)
        overrides, submission = planned(one, chosen, overrides, [each.path for each in given])
        check_access(submission, overrides.white_box)
        return Job(chosen, overrides, open_store(store), (submission,), dict(one.options)), []
    found, unusable = entrants(given, options, overrides.white_box)
    chosen = load_track(track, tasks_dir)
    for each in unusable:
        err.print(f"{escape(each.entry)} is not run: {escape(printable(each.why))}", soft_wrap=True)
    return Job(chosen, overrides, open_store(store), tuple(dict.fromkeys(found)), options), unusable


def _failed(job: Job, plans: Sequence[Plan], unusable: list[Failure], progress: PlainProgress, store: str) -> bool:
    """Report the failures, if there are any."""
    from harness.evaluation.failures import failures  # noqa: PLC0415
    from harness.evaluation.progress import JsonProgress  # noqa: PLC0415

    found = [failures(done, job.store, job.submissions, job.options, progress.given_up) for done in plans]
    failed = unusable + [line for lines in found for line in lines]
    if isinstance(progress, JsonProgress):
        for each in failed:
            progress.failed(each)
    elif failed:
        _tell(failed, store)
    return bool(failed)


def _tell(failed: Sequence[Failure], store: str) -> None:
    """Print the table of failures, and what can be done about them."""
    from harness.evaluation.progress import printable  # noqa: PLC0415
    from harness.results.status import FAILED  # noqa: PLC0415

    table = Table(title="failed", title_justify="left", box=None, pad_edge=False)
    for name in ("submission", "status", "cells", "why"):
        table.add_column(name, overflow="fold")
    for each in failed:
        cells = ", ".join(each.cells) if len(each.cells) <= _NAMED else f"{len(each.cells)}, {each.cells[0]} first"
        table.add_row(escape(each.entry), each.status, cells or "-", escape(printable(each.why)[:_SHOWN]))
    err.print(table)
    err.print(
        f"a failed cell {FAILED}. Give the command --again to run failed cells once more, for example after the "
        "machine ran out of memory",
        soft_wrap=True,
    )
    first = next((each for each in failed if each.cells), None)
    if first is not None:
        task, _, split = first.cells[0].partition("/")
        line = command_line("log", first.entry, "--task", task, "--split", split, store=store)
        note(f"what it printed, and its traceback: {line}")


def _check(
    paths: list[Path] | None, overrides: Overrides, config: list[str] | None, repeats: int | None, cell: str | None
) -> None:
    """Refuse options that do not go together.

    Raises:
        InputError: two options conflict. The message says which, and what to leave out.
    """
    if cell is None and not paths:
        raise InputError("name a submission folder, e.g. submissions/ajo, or a cell with --cell")
    if cell is not None and (overrides.tasks or overrides.splits or config):
        raise InputError("--cell says which task, split and options; leave out --task, --split and --config")
    if repeats is not None and (cell is not None or overrides.repeat):
        raise InputError("--repeats runs repeats 0 to R-1 of all cells; leave out --cell and --repeat")


def _interim(results: Store, track: Track, entry: str, left: int) -> None:
    """Print the leaderboard with the first scores of an entry, and say that it is preliminary."""
    from harness.errors import counted  # noqa: PLC0415
    from harness.leaderboard.rank import rank  # noqa: PLC0415
    from harness.leaderboard.terminal import terminal_table  # noqa: PLC0415

    ranking = rank(results, track.name, track.fingerprint, track.planned, track.ranks, prices=track.prices)
    if entry not in {each.name for each in (*ranking.entries, *ranking.elsewhere)}:
        return  # with overridden choices it is in no ranking
    wide = err if err.is_terminal else Console(stderr=True, highlight=False, width=120)
    wide.print(
        f"interim leaderboard: every task of {entry} has a score, {counted(left, 'cell')} of it still to run",
        markup=False,
        soft_wrap=True,
    )
    wide.print(terminal_table(ranking))


def _apart(run: RunKey, track: Track, overrides: Overrides) -> str:
    """The reason why a run is not ranked with the others, in brackets."""
    how = " (choices were replaced on the command line: stored, not ranked)" if run.modified else ""
    if not track.ranks(run.device):
        wanted = track.device_name or f"a {track.device} device"
        how += f" (on {run.device}, and the track ranks {wanted}: listed apart)"
    if overrides.test_data is not None:
        how += " (on private test sets: compared with the public run of the same submission)"
    if overrides.p0 is not None:
        how += " (with outside data, the pre-trained prompt: listed apart)"
    return how


@commands.command(
    epilog="Examples:\n\n"
    "  harness plan submissions/ajo submissions/bbt > cells.txt\n\n"
    '  harness evaluate --cell "$(sed -n 3p cells.txt)" --store 3.db'
)
@overriding(
    *(name for name in OPTIONS if name not in {"staged", "sandbox"}),
    helps={"white_box": "Allow references that need gradients; give it to evaluate, too."},
)
def plan(
    paths: Annotated[list[Path], typer.Argument(help="Submission folders.", metavar="PATH")],
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    config: Options = None,
    team: Teams = None,
    name: Names = None,
    form: Annotated[str, typer.Option("--format", help="lines, one cell each, or json.")] = "lines",
) -> None:
    """Print the cells of an evaluation, one a line, for a cluster's scheduler: `harness evaluate --cell LINE`.

    A line holds digests of the submission and the track, so that it runs what was planned or nothing. What replaces
    the track's choices here must be given to evaluate, too. Databases that were filled apart: `harness merge`.
    """
    from harness.evaluation.plan import plan as planned  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if form not in {"lines", "json"}:
        raise InputError(f"--format {form}: lines or json is needed")
    options = parsed(config)
    cells = planned(load_track(track, tasks_dir), overrides, submissions_in(paths, options, team, name), options)
    if form == "json":
        print_json([{"cell": str(cell)} | dataclasses.asdict(cell) | {"options": dict(cell.options)} for cell in cells])
        return
    for cell in cells:
        typer.echo(str(cell))
