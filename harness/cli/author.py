"""An author's everyday commands: `new`, `check`, `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli.again import command_line, given_choices, given_settings
from harness.cli.complete import complete_submissions, complete_tracks
from harness.cli.console import STORE, err, existing_store, out, print_json, say
from harness.cli.entrants import parsed
from harness.cli.options import NOTHING, TRIED, AsJson, Options, StoreUrl, TasksDir, TrackName, overriding
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.evaluation.overrides import Overrides

commands = typer.Typer()


@commands.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the submission.", metavar="NAME")],
    directory: Annotated[Path, typer.Option("--in", help="Where to make the folder.")] = Path("submissions"),
) -> None:
    """Make a submission to start from: a small working solver with comments."""
    from harness.cli.scaffold import create  # noqa: PLC0415

    folder = create(name, directory)
    say(f"made {folder}; edit {folder}/submission.py, then: harness check {folder}")


@commands.command(
    epilog="Examples:\n\n"
    "  harness check submissions/mysolver\n\n"
    "  harness check submissions/mysolver --track mini --task snli\n\n"
    "  harness check submissions/mysolver --here  (with a breakpoint() in it)"
)
@overriding(*TRIED)
def check(
    path: Annotated[
        Path, typer.Argument(help="Submission folder.", metavar="PATH", autocompletion=complete_submissions)
    ],
    track: Annotated[
        str | None,
        typer.Option(
            "--track",
            "-t",
            help="Ask this track's real model one query, too: a name or a .toml file. With another choice below and no "
            "track it is mini.",
            autocompletion=complete_tracks,
        ),
    ] = None,
    overrides: Overrides = NOTHING,
    config: Options = None,
    calls: Annotated[
        int, typer.Option("--calls", help="Budget on the fake model; the real query has the track's.")
    ] = 200,
    timeout: Annotated[
        float,
        typer.Option("--timeout", help="Seconds for each run, after which it says where it was; 0 is no limit."),
    ] = 60,
    here: Annotated[
        bool, typer.Option("--here", help="Run it in this process, as you and without isolation: for your debugger.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try a submission in seconds: import, contract, a small run on a fake language model.

    It runs as in an evaluation, in the best sandbox that this machine gives. With --track or --model it then asks the
    real model its first query, on one task and split, with the track's budget. With --here it runs in this process,
    where breakpoint() works, with your files and your network: only for code that you have read.
    """
    from harness.evaluation.check import check as checked  # noqa: PLC0415
    from harness.evaluation.progress import printable  # noqa: PLC0415
    from harness.sandbox.best_tier import BANNER  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen = load_track(track or "mini") if track or overrides != NOTHING else None
    options = parsed(config)
    report = checked(path, options, here=here, wall_s=timeout or None, calls=calls, track=chosen, choices=overrides)
    if report.get("sandbox") == "0":
        err.print(f"[bold red]{escape(BANNER)}[/bold red]", soft_wrap=True)
    if report.get("output"):
        err.print(escape(printable(report["output"].rstrip())), soft_wrap=True)
    if as_json:
        print_json(report)
        return
    for line in report["lines"]:
        say(line)
    more = ["--white-box"] * (report["access"] == "white-box") + given_settings(options) + given_choices(overrides)
    say(f"ok; now the real thing: {command_line('evaluate', path, *more, track=track)}")


@commands.command(
    epilog="Examples:\n\n"
    '  harness predict --entry ajo "A warm and funny film."\n\n'
    '  harness predict --answer my.safetensors --task qqp "How do I whistle?" "Who whistles?"'
)
@overriding("model", "staged")
def predict(
    texts: Annotated[list[str], typer.Argument(help="The text; for a pair task, both texts.", metavar="TEXT")],
    answer: Annotated[Path | None, typer.Option(help="An answer file, as written by --save.")] = None,
    entry: Annotated[str | None, typer.Option(help="Leaderboard entry whose answer to take from the database.")] = None,
    task: Annotated[str, typer.Option("--task", help="Task of the answer.")] = "sst2",
    split: Annotated[int, typer.Option("--split", help="Split of the stored answer.")] = 1,
    save: Annotated[Path | None, typer.Option(help="Write the stored answer to this file.")] = None,
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Classify a text with a tuned answer, by the very code that scores it."""
    from harness.evaluation.predict import classify, read, stored_answer, write  # noqa: PLC0415
    from harness.evaluation.preparation import replaced  # noqa: PLC0415
    from harness.tracks.staging import at_hand  # noqa: PLC0415
    from harness.tracks.tasks import find_task  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen, _ = at_hand(replaced(load_track(track, tasks_dir), overrides), overrides.staged, ())
    wording = find_task(task, chosen.tasks_folder).task(chosen.profile, chosen.model.kind)
    if len(texts) != wording.fields:
        raise InputError(f"{len(texts)} texts; {task} takes {wording.fields}. Quote each text")
    if answer is not None:
        blob = read(answer)
    elif entry is not None:
        blob = stored_answer(
            existing_store(store), entry, chosen.name, task, split, other_model=overrides.model is not None
        )
    else:
        raise InputError("say which answer: --answer FILE, or --entry NAME of the leaderboard")
    if save is not None:
        write(save, blob)
    p = classify(blob, wording, chosen, tuple(texts))
    if as_json:
        by_class = dict(zip(wording.classes, p.tolist(), strict=True))
        print_json({"class": wording.classes[int(p.argmax())], "probabilities": by_class})
        return
    for name, value in sorted(zip(wording.classes, p, strict=True), key=lambda pair: -pair[1]):
        out.print(f"{value:6.1%}  {name}")
