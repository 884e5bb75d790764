"""The command line: thin, and the only module that prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from harness.errors import HarnessError, InputError
from harness.progress import JsonProgress, LiveProgress, PlainProgress, printable
from harness.store import DEFAULT, Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A competition in a box for gradient-free tuning of language models.\n\n"
    "Start with [bold]harness evaluate submissions/bbt[/bold], then [bold]harness leaderboard[/bold]. "
    "Write your own: [bold]harness new mysolver[/bold] and [bold]harness check submissions/mysolver[/bold].",
    epilog="Exit codes: 0 done, 1 it failed, 2 something given was wrong, 130 interrupted.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

TrackName = Annotated[
    str, typer.Option("--track", "-t", help="A track that ships (see `harness tracks`), or a .toml file.")
]
StoreUrl = Annotated[str, typer.Option("--store", help="Results database: a SQLite file, or a SQLAlchemy URL.")]
DataDir = Annotated[Path | None, typer.Option("--data", help="Data directory, e.g. a competition kit.")]
ModelDir = Annotated[str | None, typer.Option("--model", help="Another model: a directory in hub format, or a hub id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Options = Annotated[
    list[str] | None, typer.Option("--config", "-c", help="NAME=VALUE of the submission's Config; repeatable.")
]


@app.command(
    epilog="Examples:\n\n"
    "  harness evaluate submissions/ajo\n\n"
    "  harness evaluate submissions/bbt --track kit --data ../kit --task sst2\n\n"
    "  harness evaluate submissions/nevergrad --config optimizer=PSO"
)
def evaluate(
    paths: Annotated[list[Path], typer.Argument(help="Submission folders.", metavar="PATH")],
    track: TrackName = "mini",
    data: DataDir = None,
    model: ModelDir = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeatable.")] = None,
    split: Annotated[list[int] | None, typer.Option("--split", help="Only this split; repeatable.")] = None,
    config: Options = None,
    calls: Annotated[int | None, typer.Option(help="Another budget, in calls, for a trial; never ranked.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run.", min=0)] = 0,
    present_splits: Annotated[
        bool, typer.Option("--present-splits", help="Skip splits the data directory lacks.")
    ] = False,
    white_box: Annotated[
        bool,
        typer.Option(
            "--white-box",
            help="Allow references that need gradients. They run in this process, unsandboxed, with the model's "
            "weights: only for code you trust. Listed, never ranked.",
        ),
    ] = False,
    store: StoreUrl = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Run submissions on a track and store what comes out.

    Finished cells are never run again: the same command takes up where it was.
    One cell is one task on one few-shot split.
    """
    from harness import submission as submissions  # noqa: PLC0415 - keeps `--help` quick
    from harness.evaluate import Choices, Evaluation, check_access  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    options = _options(config)
    found = [submissions.find(path) for path in paths]
    for each in found:
        check_access(each, white_box)
    chosen = load_track(track)
    choices = Choices(model, data, tuple(task or ()), tuple(split or ()), present_splits, calls, seed, white_box)
    results = Store(store)
    progress = JsonProgress(out) if as_json else LiveProgress(err) if err.is_terminal else PlainProgress(err)
    try:
        with progress:
            evaluation = Evaluation(chosen, choices, results)
            for each in found:
                evaluation.run(each, options, progress)
    except KeyboardInterrupt:
        err.print("interrupted; finished cells are kept, and the same command takes up where it was")
        raise typer.Exit(130) from None
    if not as_json:
        how = " (choices were replaced on the command line: stored, not ranked)" if evaluation.modified else ""
        _say(f"facts are in {store}{how}; rank them with: harness leaderboard --track {chosen.name}")


@app.command()
def leaderboard(
    track: TrackName = "mini",
    store: StoreUrl = DEFAULT,
    out_file: Annotated[Path | None, typer.Option("--out", help="CSV file; default leaderboard/<track>.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank what the database holds: print the table and write leaderboard/<track>.csv.

    Scores are recomputed from stored predictions every time. Each entry counts with its newest run.
    """
    from harness.track import load_track  # noqa: PLC0415
    from leaderboard.rank import rank  # noqa: PLC0415
    from leaderboard.table import records, terminal_table, write_csv  # noqa: PLC0415

    chosen = load_track(track)
    name = chosen.name
    cells = [(task, split) for task, spec in chosen.tasks.items() if spec.splits != "present" for split in spec.splits]
    ranking = rank(_existing(store), name, chosen.fingerprint, cells)
    path = out_file or Path("leaderboard") / f"{name}.csv"
    write_csv(ranking, path)
    if as_json:
        _json({"track": name, "left_out": ranking.left_out, "entries": records(ranking)})
        return
    if not ranking.entries:
        _say(f"no ranked runs on track {name} in {store}; run: harness evaluate submissions/ajo --track {name}")
    else:
        Console(highlight=False, width=None if out.is_terminal else 120).print(terminal_table(ranking))
    if ranking.left_out:
        _say(f"{ranking.left_out} runs left out: other data, model, seed or track version, or choices replaced")
    _say(f"written: {path}")


@app.command(
    epilog="Examples:\n\n"
    '  harness predict --entry ajo "A warm and funny film."\n\n'
    '  harness predict --answer my.safetensors --task qqp "How do I whistle?" "Who whistles?"'
)
def predict(
    texts: Annotated[list[str], typer.Argument(help="The text; for a pair task, both texts.", metavar="TEXT")],
    answer: Annotated[Path | None, typer.Option(help="An answer file, as written by --save.")] = None,
    entry: Annotated[str | None, typer.Option(help="Leaderboard entry whose answer to take from the database.")] = None,
    task: Annotated[str, typer.Option("--task", help="Task of the answer.")] = "sst2",
    split: Annotated[int, typer.Option("--split", help="Split of the stored answer.")] = 1,
    save: Annotated[Path | None, typer.Option(help="Write the stored answer to this file.")] = None,
    track: TrackName = "mini",
    model: ModelDir = None,
    store: StoreUrl = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Classify a text with a tuned answer, by the very code that scores it."""
    from harness.evaluate import Choices, replaced  # noqa: PLC0415
    from harness.predict import classify, read, stored_answer, write  # noqa: PLC0415
    from harness.tasks import load_task  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    chosen = replaced(load_track(track), Choices(model=model))
    wording = load_task(task).task(chosen.profile, chosen.model.kind)
    if len(texts) != wording.fields:
        raise InputError(f"{len(texts)} texts; {task} takes {wording.fields}. Quote each text")
    if answer is not None:
        blob = read(answer)
    elif entry is not None:
        blob = stored_answer(_existing(store), entry, chosen.name, task, split, other_model=model is not None)
    else:
        raise InputError("say which answer: --answer FILE, or --entry NAME of the leaderboard")
    if save is not None:
        write(save, blob)
    p = classify(blob, wording, chosen, tuple(texts))
    if as_json:
        by_class = dict(zip(wording.classes, p.tolist(), strict=True))
        _json({"class": wording.classes[int(p.argmax())], "probabilities": by_class})
        return
    for name, value in sorted(zip(wording.classes, p, strict=True), key=lambda pair: -pair[1]):
        out.print(f"{value:6.1%}  {name}")


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Submission folder.", metavar="PATH")],
    config: Options = None,
    as_json: AsJson = False,
) -> None:
    """Try a submission in seconds: import, contract, a small run on a fake language model.

    Runs your code in this process, without limits but one minute of time.
    """
    from harness.check import check as checked  # noqa: PLC0415

    report = checked(path, _options(config))
    if as_json:
        _json(report)
        return
    for line in report["lines"]:
        _say(line)
    allow = " --white-box" if report["access"] == "white-box" else ""
    _say(f"ok; now the real thing: harness evaluate {path}{allow}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the submission.", metavar="NAME")],
    directory: Annotated[Path, typer.Option("--in", help="Where to make the folder.")] = Path("submissions"),
) -> None:
    """Make a submission to start from: a small working solver with comments."""
    from harness.scaffold import create  # noqa: PLC0415

    folder = create(name, directory)
    _say(f"made {folder}; edit {folder}/submission.py, then: harness check {folder}")


@app.command()
def tracks(as_json: AsJson = False) -> None:
    """List the tracks: model, data, budgets."""
    from harness.listing import tracks_table  # noqa: PLC0415
    from harness.track import load_track, track_names  # noqa: PLC0415

    found = [load_track(name) for name in track_names()]
    if as_json:
        import msgspec  # noqa: PLC0415

        _json([msgspec.to_builtins(track) for track in found])
        return
    out.print(tracks_table(found))


@app.command()
def tasks(
    track: TrackName = "mini",
    as_json: AsJson = False,
) -> None:
    """List the tasks: classes, metric, and the wording a track uses."""
    from harness.listing import tasks_table  # noqa: PLC0415
    from harness.tasks import load_task, task_names  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    chosen = load_track(track)
    found = [(load_task(name), load_task(name).task(chosen.profile, chosen.model.kind)) for name in task_names()]
    if as_json:
        import dataclasses  # noqa: PLC0415

        _json([{"title": file.title} | dataclasses.asdict(task) for file, task in found])
        return
    out.print(tasks_table(found))


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="Prediction archive.", metavar="FILE.zip")],
    track: TrackName = "kit",
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Score predictions in the competition's upload layout: <Task>/<split>.csv with the header `,pred`.

    Predictions have no budget: they are scored and shown, and never ranked beside metered runs.
    """
    from harness.data import Source  # noqa: PLC0415
    from harness.listing import scores_table  # noqa: PLC0415
    from harness.predictions import score_archive  # noqa: PLC0415
    from harness.track import load_track, track_tasks  # noqa: PLC0415

    chosen = load_track(track)
    files = track_tasks(chosen)
    source = Source("kit", data) if data is not None else Source(chosen.data.source)
    found = score_archive(predictions, files, source)
    if as_json:
        _json([{"task": s.task, "split": s.split, "rows": s.rows, "metric": s.metric, "score": s.score} for s in found])
        return
    out.print(scores_table(found))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at this machine: versions, processor, embedded model, tracks, isolation."""
    from harness.doctor import examine  # noqa: PLC0415

    findings = examine()
    if as_json:
        _json([{"name": f.name, "good": f.good, "fact": f.fact, "advice": f.advice} for f in findings])
    else:
        for finding in findings:
            mark = "[green]ok  [/green]" if finding.good else "[yellow]note[/yellow]"
            out.print(
                f"{mark} {finding.name}: {escape(finding.fact)}"
                + (f"\n     {escape(finding.advice)}" if finding.advice else "")
            )
    if any(not finding.good and finding.fatal for finding in findings):
        raise typer.Exit(1)


def _options(config: list[str] | None) -> dict[str, str]:
    options = {}
    for item in config or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InputError(f"--config {item!r}: NAME=VALUE expected")
        options[name] = value
    return options


def _existing(store: str) -> Store:
    if "://" not in store and not Path(store).is_file():
        raise InputError(
            f"{store}: no such results database; run: harness evaluate submissions/ajo, or name it with --store"
        )
    return Store(store)


def _say(text: str) -> None:
    """Print a line as it is: no markup, and paths are not broken."""
    out.print(escape(text), soft_wrap=True)


def _json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def main() -> None:
    """Run the command line; errors made on purpose are one message and exit code 1 (2 for wrong input)."""
    try:
        app(prog_name="harness")
    except HarnessError as problem:
        err.print(f"[red]error:[/red] {escape(printable(str(problem)))}", soft_wrap=True)
        sys.exit(2 if isinstance(problem, InputError) else 1)


if __name__ == "__main__":
    main()
