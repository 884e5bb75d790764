"""Vary one option of a submission: `ablate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.complete import complete_submissions
from harness.cli.console import STORE, check_folder, err, note, open_store, out, print_json, say
from harness.cli.entrants import parsed, submissions_in
from harness.cli.options import NOTHING, OPTIONS, AsJson, Options, StoreUrl, TasksDir, TrackName, overriding
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.evaluation.overrides import Overrides

commands = typer.Typer()

TRACK_CHOICES = ("shots", "calls")
"""Fields of `Overrides` that can be varied, beside the submission's own options."""


@commands.command(
    epilog="Examples (the ablations of BBT's paper):\n\n"
    "  harness ablate submissions/bbt --vary dim=50,100,200,500\n\n"
    "  harness ablate submissions/bbt --vary loss=ce,hinge,accuracy --vary population=5,10,15,20,25\n\n"
    "  harness ablate submissions/bbt --vary tokens=2,4,8 --vary queries=population,serial --task sst2\n\n"
    "  harness ablate submissions/bbt --vary projection=normal,uniform --config width_from=unit\n\n"
    "  harness ablate submissions/bbt --vary shots=16,64 --track paper --config preset=icml2022\n\n"
    "  harness ablate submissions/prompt_tuning --vary dim=none,50,500 --config eta=0.001 --white-box  (Adam)"
)
@overriding(*(name for name in OPTIONS if name != "repeat"))
def ablate(
    path: Annotated[
        Path, typer.Argument(help="A submission's folder.", metavar="PATH", autocompletion=complete_submissions)
    ],
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            help="NAME=V1,V2,...: an option of the submission's Config, a preset, or shots or calls of the track. "
            "Repeatable: one option after the other is varied, with all others as given.",
        ),
    ],
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    config: Options = None,
    repeats: Annotated[
        int, typer.Option("--repeats", help="Runs of each cell, with other chance of the submission's own.", min=1)
    ] = 1,
    folder: Annotated[Path, typer.Option("--out", help="Where the table and the figures are written.")] = Path(
        "results/ablations"
    ),
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Run a submission once for each value of an option, and show scores with intervals, and figures.

    Every value is an entry of its own in the database; finished cells are never run again. Figures need matplotlib,
    which the extra `report` installs.
    """
    from harness.evaluation.access import check_access  # noqa: PLC0415
    from harness.evaluation.engines import local  # noqa: PLC0415
    from harness.evaluation.engines.job import Job  # noqa: PLC0415
    from harness.evaluation.progress import LiveProgress, PlainProgress  # noqa: PLC0415
    from harness.leaderboard.ablation import Varied, records, table, variants  # noqa: PLC0415
    from harness.leaderboard.table import write_records  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    check_folder(folder)
    base, plans = parsed(config), _plans(vary, overrides, parsed(config))
    for _, _, _, options in plans:
        submissions_in([path], options)
    (submission,) = submissions_in([path], base)
    check_access(submission, overrides.white_box)
    chosen, results = load_track(track, tasks_dir), open_store(store)
    varied = []
    progress = LiveProgress(err, None) if err.is_terminal else PlainProgress(err, None)
    try:
        with progress:
            for name, value, choices, options in plans:
                runs = []
                for repeat in range(repeats):
                    own = dataclasses.replace(choices, repeat=repeat)
                    plan = local.run(Job(chosen, own, results, (submission,), options), progress)
                    runs.append(plan.peek(results, submission, options).id)
                varied.append(Varied(name, value, tuple(runs)))
    except KeyboardInterrupt:
        err.print("interrupted; finished cells are kept, and the same command takes up where it was")
        raise typer.Exit(130) from None
    found = variants(results, varied)
    where = folder / f"{submission.name}-{chosen.name}"
    rows = records(found)
    write_records(rows, where / "ablation.csv")
    if as_json:
        print_json(rows)
    else:
        out.print(table(found, f"track {chosen.name}: {submission.name}, points [95 % interval]"))
    tell = note if as_json else say
    broken = [f"{each.option}={each.value} ({each.entry.failed})" for each in found if each.entry.failed]
    if broken:
        tell(f"cells failed, and count as such: {', '.join(broken)}; see: harness log {submission.name}")
    try:
        from harness.leaderboard.report.ablation import draw  # noqa: PLC0415 - matplotlib

        files = draw(found, where)
    except ModuleNotFoundError as lacking:
        tell(f"{where / 'ablation.csv'} is written; no figures, {lacking.name} is not installed")
        return
    tell(f"written to {where}: ablation.csv, {', '.join(file.name for file in files)}")


def _plans(
    vary: list[str], overrides: Overrides, base: dict[str, str]
) -> list[tuple[str, str, Overrides, dict[str, str]]]:
    """Each value with the choices and options that its runs have.

    Raises:
        InputError: no such list of values, or one that cannot be varied.
    """
    found = []
    for item in vary:
        name, equals, values = item.partition("=")
        each = [value.strip() for value in values.split(",")]
        if not equals or not name or not all(each):
            raise InputError(f"--vary {item!r}: NAME=V1,V2,... expected")
        if name in base:
            raise InputError(f"--vary {item!r}: {name} is given with --config, too; leave one of them out")
        for value in dict.fromkeys(each):
            if name in TRACK_CHOICES:
                if not value.isdecimal() or int(value) < 1:
                    raise InputError(f"--vary {item!r}: positive numbers are expected, {value!r} is none")
                number: dict[str, Any] = {name: int(value)}
                found.append((name, value, dataclasses.replace(overrides, **number), base))
            else:
                found.append((name, value, overrides, base | {name: value}))
    return found
