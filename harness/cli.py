"""The command line: thin, and the only module that prints."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from harness.errors import HarnessError, InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI

    from harness.choices import Choices
    from harness.service.book import Book
    from harness.store import RunKey, Store
    from harness.submission import Submission
    from harness.track import Track
    from leaderboard.rank import Ranking

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


STORE = "results/harness.db"
_BOOK = "results/service.db"


class Engine(StrEnum):
    """Where cells run."""

    LOCAL = "local"
    RAY = "ray"


TrackName = Annotated[
    str, typer.Option("--track", "-t", help="A track that ships (see `harness tracks`), or a .toml file.")
]
StoreUrl = Annotated[str, typer.Option("--store", help="Results database: a SQLite file, or a SQLAlchemy URL.")]
DataDir = Annotated[Path | None, typer.Option("--data", help="Data directory, e.g. a competition kit.")]
ModelDir = Annotated[str | None, typer.Option("--model", help="Another model: a directory in hub format, or a hub id.")]
StagedDir = Annotated[
    Path | None, typer.Option("--from", help="Directory that `harness fetch` filled; default ~/.cache/harness.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda; default the track's, which alone is ranked.")
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="torch or onnxruntime (float32, encoder models; harness\\[onnx]); another than the track's never ranks.",
    ),
]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeatable.")]
Splits = Annotated[list[int] | None, typer.Option("--split", help="Only this split; repeatable.")]
PresentSplits = Annotated[bool, typer.Option("--present-splits", help="Skip splits the data directory lacks.")]
Calls = Annotated[int | None, typer.Option(help="Another budget, in calls, for a trial; never ranked.")]
Seed = Annotated[int, typer.Option(help="Seed of the run.", min=0)]
P0File = Annotated[
    Path | None,
    typer.Option("--p0", help="A pre-trained prompt for the pair tasks; listed as external, never ranked with pure."),
]
TestData = Annotated[
    Path | None,
    typer.Option(
        "--test-data",
        help="Directory of private test sets to score on instead: <Task>/test.tsv, or <task>/mini/test.jsonl. "
        "Stored apart; `harness leaderboard` sets them against the public ones.",
    ),
]
Options = Annotated[
    list[str] | None, typer.Option("--config", "-c", help="NAME=VALUE of the submission's Config; repeatable.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"harness {version('harness')}")
        raise typer.Exit


@app.callback()
def harness(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


@app.command(
    epilog="Examples:\n\n"
    "  harness evaluate submissions/ajo\n\n"
    "  harness evaluate submissions/bbt --track kit --data ../kit --task sst2\n\n"
    "  harness evaluate submissions/nevergrad --config optimizer=PSO\n\n"
    "  harness evaluate --cell LINE  (of harness plan)"
)
def evaluate(
    paths: Annotated[list[Path] | None, typer.Argument(help="Submission folders.", metavar="PATH")] = None,
    track: TrackName = "mini",
    data: DataDir = None,
    model: ModelDir = None,
    staged: StagedDir = None,
    device: Device = None,
    backend: Backend = None,
    task: Tasks = None,
    split: Splits = None,
    config: Options = None,
    calls: Calls = None,
    seed: Seed = 0,
    present_splits: PresentSplits = False,
    white_box: Annotated[
        bool,
        typer.Option(
            "--white-box",
            help="Allow references that need gradients. They run in this process, unsandboxed, with the model's "
            "weights: only for code you trust. Listed, never ranked.",
        ),
    ] = False,
    p0: P0File = None,
    test_data: TestData = None,
    sandbox: Annotated[
        str | None,
        typer.Option("--sandbox", help="Tier of isolation, A, B, B' or 0, instead of the best there is here."),
    ] = None,
    cell: Annotated[
        str | None, typer.Option("--cell", help="Only this cell: a line of harness plan.", metavar="LINE")
    ] = None,
    engine: Annotated[
        Engine, typer.Option("--engine", help="Where cells run: in this process, or on a Ray cluster (docs/scale.md).")
    ] = Engine.LOCAL,
    address: Annotated[
        str | None, typer.Option("--address", help="Of a Ray cluster that runs, or auto; default one of its own here.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Cells at once on the cluster; default one per device.", min=1)
    ] = None,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Run submissions on a track and store what comes out.

    Finished cells are never run again: the same command takes up where it was.
    One cell is one task on one few-shot split.
    """
    if engine is Engine.LOCAL and (address is not None or workers is not None):
        raise InputError("--address and --workers are for --engine ray")
    if cell is None and not paths:
        raise InputError("name a submission folder, e.g. submissions/ajo, or a cell with --cell")
    if cell is not None and (task or split or config):
        raise InputError("--cell says which task, split and options; leave out --task, --split and --config")
    options = _options(config)
    found = _submissions(paths or (), options)
    from harness.choices import Choices  # noqa: PLC0415 - these keep `--help` quick, and what was refused by now
    from harness.engines import local  # noqa: PLC0415
    from harness.engines import ray as on_ray  # noqa: PLC0415
    from harness.engines.job import Job  # noqa: PLC0415
    from harness.evaluate import check_access  # noqa: PLC0415
    from harness.plan import CellId, planned  # noqa: PLC0415
    from harness.progress import JsonProgress, LiveProgress, PlainProgress  # noqa: PLC0415
    from harness.sandbox.tiers import tier_named  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    one = None if cell is None else CellId.parse(cell)
    chosen = load_track(one.track if one is not None and track == "mini" else track)
    choices = Choices(
        model=model,
        data=data,
        tasks=tuple(task or ()),
        splits=tuple(split or ()),
        present_splits=present_splits,
        calls=calls,
        seed=seed,
        white_box=white_box,
        staged=staged,
        p0=p0,
        device=device,
        test_data=test_data,
        sandbox=tier_named(sandbox),
        backend=backend,
    )
    if one is not None:
        choices, submission = planned(one, chosen, choices, paths or ())
        found, options = [submission], dict(one.options)
    for each in found:
        check_access(each, white_box)
    results = _store(store)
    job = Job(chosen, choices, results, tuple(found), options)
    live = err.is_terminal and engine is Engine.LOCAL  # a bar is for one cell at a time

    def first_round(entry: str, left: int) -> None:
        _interim(results, chosen, entry, left)

    told = None if choices.tasks else first_round  # of some tasks alone there is no ranking
    progress = JsonProgress(out) if as_json else LiveProgress(err, told) if live else PlainProgress(err, told)
    try:
        with progress:
            if engine is Engine.RAY:
                done = on_ray.run(job, progress, on_ray.Cluster(address, workers))
            else:
                done = local.run(job, progress)
    except KeyboardInterrupt:
        err.print("interrupted; finished cells are kept, and the same command takes up where it was")
        raise typer.Exit(130) from None
    if not as_json:
        how = _apart(done.base, chosen, choices)
        _say(f"facts are in {results.url}{how}; rank them with: harness leaderboard --track {chosen.name}")


def _interim(results: Store, track: Track, entry: str, left: int) -> None:
    """Print the leaderboard where an entry stands with its first scores, and say that it is not the last word."""
    from harness.listing import counted  # noqa: PLC0415
    from leaderboard.rank import rank  # noqa: PLC0415
    from leaderboard.table import terminal_table  # noqa: PLC0415

    ranking = rank(results, track.name, track.fingerprint, track.planned, track.ranks)
    if entry not in {each.name for each in (*ranking.entries, *ranking.elsewhere)}:
        return  # choices were replaced: it is in no ranking
    wide = err if err.is_terminal else Console(stderr=True, highlight=False, width=120)
    wide.print(
        f"interim leaderboard: every task of {entry} has a score, {counted(left, 'cell')} of it still to run",
        markup=False,
        soft_wrap=True,
    )
    wide.print(terminal_table(ranking))


def _apart(run: RunKey, track: Track, choices: Choices) -> str:
    """Why a run is not ranked with the others, in brackets."""
    how = " (choices were replaced on the command line: stored, not ranked)" if run.modified else ""
    if not track.ranks(run.device):
        wanted = track.device_name or f"a {track.device} device"
        how += f" (on {run.device}, and the track ranks {wanted}: listed apart)"
    if choices.test_data is not None:
        how += " (on private test sets: compared with the public run of the same submission)"
    if choices.p0 is not None:
        how += " (with outside data, the pre-trained prompt: listed apart)"
    return how


@app.command(
    epilog="Examples:\n\n"
    "  harness plan submissions/ajo submissions/bbt > cells.txt\n\n"
    '  harness evaluate --cell "$(sed -n 3p cells.txt)" --store 3.db'
)
def plan(
    paths: Annotated[list[Path], typer.Argument(help="Submission folders.", metavar="PATH")],
    track: TrackName = "mini",
    data: DataDir = None,
    model: ModelDir = None,
    device: Device = None,
    backend: Backend = None,
    task: Tasks = None,
    split: Splits = None,
    config: Options = None,
    calls: Calls = None,
    seed: Seed = 0,
    present_splits: PresentSplits = False,
    white_box: Annotated[
        bool, typer.Option("--white-box", help="Allow references that need gradients; give it to evaluate, too.")
    ] = False,
    p0: P0File = None,
    test_data: TestData = None,
    form: Annotated[str, typer.Option("--format", help="lines, one cell each, or json.")] = "lines",
) -> None:
    """Print the cells of an evaluation, one a line, for a cluster's scheduler: `harness evaluate --cell LINE`.

    A line holds digests of the submission and the track, so that it runs what was planned or nothing. What replaces
    the track's choices here must be given to evaluate, too. Databases that were filled apart: `harness merge`.
    """
    import dataclasses  # noqa: PLC0415

    from harness.choices import Choices  # noqa: PLC0415
    from harness.plan import plan as planned  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    if form not in {"lines", "json"}:
        raise InputError(f"--format {form}: lines or json is needed")
    choices = Choices(
        model=model,
        data=data,
        tasks=tuple(task or ()),
        splits=tuple(split or ()),
        present_splits=present_splits,
        calls=calls,
        seed=seed,
        white_box=white_box,
        p0=p0,
        device=device,
        test_data=test_data,
        backend=backend,
    )
    options = _options(config)
    cells = planned(load_track(track), choices, _submissions(paths, options), options)
    if form == "json":
        _json([{"cell": str(cell)} | dataclasses.asdict(cell) | {"options": dict(cell.options)} for cell in cells])
        return
    for cell in cells:
        typer.echo(str(cell))


@app.command(
    epilog="Examples:\n\n"
    "  harness merge cells/*.db --into results/harness.db\n\n"
    "  harness merge results/harness.db --into postgresql+psycopg://harness@db.example.org/results"
)
def merge(
    sources: Annotated[list[str], typer.Argument(help="Results databases, left as they are.", metavar="STORE")],
    into: Annotated[str, typer.Option("--into", help="Results database to add them to, made where there is none.")],
    as_json: AsJson = False,
) -> None:
    """Bring results databases together: each is audited, then comes over in one transaction.

    Merging again adds only what is new. A cell that two databases hold with different results is an error.
    """
    import dataclasses  # noqa: PLC0415

    from harness.listing import counted  # noqa: PLC0415
    from harness.merge import merge as merged  # noqa: PLC0415

    for source in sources:
        _existing(source).close()  # all are there before anything is merged
    target, brought = _store(into), []
    for source in sources:
        given = _existing(source)
        try:
            brought.append(merged(given, target))
        finally:
            given.close()
        if not as_json:
            b = brought[-1]
            agreeing = f"; {b.agreeing:,} it had with the same result" if b.agreeing else ""
            added = counted(b.cells, "cell"), counted(b.attempts, "attempt"), counted(b.queries, "query", "queries")
            _say(f"{b.source}: {', '.join(added)} added{agreeing}")
    target.close()
    if as_json:
        _json([dataclasses.asdict(each) for each in brought])


@app.command()
def leaderboard(
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="CSV file, the JSON goes beside it; default leaderboard/<track>.csv.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="What entries cost instead: time, memory, traffic; <track>-cost.csv.")
    ] = False,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Rank runs without isolation, too, among themselves.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank what the database holds: print the table and write leaderboard/<track>.csv and .json.

    Scores are recomputed from stored predictions every time. Each entry counts with its newest run.
    """
    from harness.track import ROUNDING, load_track  # noqa: PLC0415
    from leaderboard.drift import drift  # noqa: PLC0415
    from leaderboard.private import gap_records, gap_table, gaps  # noqa: PLC0415
    from leaderboard.rank import rank  # noqa: PLC0415
    from leaderboard.table import document, json_beside, terminal_table, write_document  # noqa: PLC0415
    from leaderboard.uploads import upload_records, upload_table, uploads  # noqa: PLC0415

    chosen = load_track(track)
    name = chosen.name
    path = out_file or Path("leaderboard") / f"{name}{'-cost' if cost else ''}.csv"
    json_path = json_beside(path)
    results = _existing(store)
    ranking = rank(results, name, chosen.fingerprint, chosen.planned, chosen.ranks, allow_unsandboxed)
    uploaded = uploads(results, name, chosen.fingerprint, chosen.planned)
    listed = bool(ranking.entries or ranking.elsewhere)  # files that list nothing must not replace good ones
    first = _first_run(track, chosen, store)
    if not (listed or ranking.left_out or uploaded):
        raise StoreError(f"no finished cell of track {name} in {_shown(store)}, nothing is written; run: {first}")
    wide = Console(highlight=False, width=None if out.is_terminal else 120)
    if cost:
        _costs(ranking, path, wide, as_json)
        return
    apart = gaps(results, ranking)
    written = document(ranking)
    if listed:
        write_document(written, path, json_path)
    tolerance = ROUNDING[chosen.model.dtype]
    drifts = [each for each in drift(ranking.entries) if each.difference > tolerance]
    if as_json:
        differ = [{"task": d.task, "difference": d.difference, "between": d.between} for d in drifts]
        found_apart = {"drift": differ, "uploads": upload_records(uploaded), "private": gap_records(apart)}
        _json(written | found_apart)
        return
    if not ranking.entries:
        _say(f"no ranked runs on track {name} in {_shown(store)}; run: {first}")
    if ranking.entries or ranking.elsewhere:
        wide.print(terminal_table(ranking))
    for d in drifts:
        _say(
            f"backends differ on {d.task}: logits of fixed texts by up to {d.difference:.3g} between "
            f"{' and '.join(d.between)} ({tolerance:g} is rounding in {chosen.model.dtype}); "
            "run both again on one machine with one set of versions"
        )
    for table in [upload_table(uploaded)] * bool(uploaded) + [gap_table(apart)] * bool(apart):
        wide.print(table)
    for line in _not_ranked(ranking, [] if listed else results.runs()):
        _say(line)
    _say(f"written: {path} and {json_path}" if listed else f"{path} is not written: there is nothing to list in it")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Entry of the leaderboard.", metavar="FIRST")],
    second: Annotated[str, typer.Argument(help="The entry it is compared with.", metavar="SECOND")],
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Show where two entries differ, by task, split and test text, with intervals.

    Both must be complete, and in one division.
    """
    from harness.track import load_track  # noqa: PLC0415
    from leaderboard.compare import compare as compared  # noqa: PLC0415
    from leaderboard.compare import comparison_record, comparison_table  # noqa: PLC0415
    from leaderboard.rank import rank  # noqa: PLC0415

    if first == second:
        raise InputError(f"compare {first} {second}: name two different entries")
    chosen = load_track(track)
    ranking = rank(_existing(store), chosen.name, chosen.fingerprint, chosen.planned, chosen.ranks)
    found = compared(ranking, first, second)
    if as_json:
        _json(comparison_record(found))
        return
    Console(highlight=False, width=None if out.is_terminal else 120).print(comparison_table(found))


@app.command()
def watch(
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", help="Seconds between looks.", min=0.1)] = 2.0,
) -> None:
    """Follow runs in progress from another terminal. Reads the results database only; Ctrl-C ends it."""
    import time  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from harness.track import load_track  # noqa: PLC0415
    from leaderboard.watch import look, watch_view  # noqa: PLC0415

    chosen, results = load_track(track), _existing(store)
    seen = look(results, chosen)
    if once or not out.is_terminal:
        out.print(watch_view(seen.runs, chosen.name))
        return
    try:
        with Live(watch_view(seen.runs, chosen.name), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                seen = look(results, chosen, seen)
                live.update(watch_view(seen.runs, chosen.name), refresh=True)
    except KeyboardInterrupt:
        return


@app.command(
    epilog="Examples:\n\n"
    "  harness report --out report\n\n"
    "  harness report --out report --track kit --data path/to/competition"
)
def report(
    out_dir: Annotated[Path, typer.Option("--out", help="Directory of the site; a report that is there is replaced.")],
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    data: DataDir = None,
    submissions: Annotated[
        Path, typer.Option("--submissions", help="Where the entries' folders are, for their READMEs.")
    ] = Path("submissions"),
    as_json: AsJson = False,
) -> None:
    """Write the leaderboard as a site: open DIR/index.html in a browser, without a server or the network.

    Test texts are shown where they are at hand: embedded ones, or those in --data DIR.
    """
    from harness.data import Source  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    try:
        from leaderboard.report.build import build  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise InputError(
            f'the report needs a package that is not here: {problem.name}; run: pip install -e ".[report]"'
        ) from problem
    chosen = load_track(track)
    source = Source(chosen.data.source) if data is None else Source("kit", data)
    built = build(_existing(store), chosen, out_dir, source, submissions)
    if as_json:
        _json({"path": str(built.path), "pages": built.pages, "bytes": built.bytes, "seconds": round(built.seconds, 1)})
        return
    _say(f"{built.pages} pages, {built.bytes / 1e6:.1f} MB in {built.seconds:.1f} s; open {built.path}/index.html")


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
    staged: StagedDir = None,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Classify a text with a tuned answer, by the very code that scores it."""
    from harness.choices import Choices  # noqa: PLC0415
    from harness.evaluate import replaced  # noqa: PLC0415
    from harness.fetch import at_hand  # noqa: PLC0415
    from harness.predict import classify, read, stored_answer, write  # noqa: PLC0415
    from harness.tasks import load_task  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    chosen, _ = at_hand(replaced(load_track(track), Choices(model=model)), staged, ())
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
    staged: StagedDir = None,
    as_json: AsJson = False,
) -> None:
    """List a track's tasks: classes, metric, and the wording it uses.

    Where a wording reads the first token of a word, that token is shown if the model's tokenizer is on this machine.
    """
    from harness.fetch import staged_model  # noqa: PLC0415
    from harness.listing import tasks_table  # noqa: PLC0415
    from harness.track import load_track, track_tasks  # noqa: PLC0415

    chosen = staged_model(load_track(track), staged)
    how = chosen.profile, chosen.model.kind
    files, tokens = track_tasks(chosen).values(), None
    cut = any(file.by_first_piece(*how) for file in files)
    if cut:
        from harness.lm.load import load_tokens  # noqa: PLC0415 - imports torch, and most tracks do without

        tokens = load_tokens(chosen.model)
    found = [(file, file.task(*how, tokens)) for file in files]
    as_written = cut and tokens is None
    if as_json:
        import dataclasses  # noqa: PLC0415

        _json([{"title": f.title, "words_as_written": as_written} | dataclasses.asdict(task) for f, task in found])
        return
    out.print(tasks_table(found))
    if as_written:
        _say(
            f"the first token of each label word is read, and the tokenizer of {chosen.model.source} that cuts them is "
            f"not here; get it with harness fetch --track {track}, or name its directory with --from"
        )


@app.command(
    epilog="Examples:\n\n"
    "  harness fetch --track official\n\n"
    "  harness fetch --track official --source mnli --to /media/disk/staged\n\n"
    "  harness evaluate submissions/bbt --track official --from /media/disk/staged"
)
def fetch(
    track: TrackName = "official",
    to: Annotated[Path | None, typer.Option("--to", help="Directory; default ~/.cache/harness.")] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Fetch nothing: read what is there and compare every checksum.")
    ] = False,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Also a set for `pretrain-prompt`: mnli; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stage a track's model and data sets, so that evaluation needs no network.

    What is there and whole is left as it is. After a break, the same command goes on with what is lacking.
    """
    from harness import fetch as staging  # noqa: PLC0415
    from harness.tasks import outside_set  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    chosen, directory = load_track(track), to or staging.default_directory()
    outside = [outside_set(name) for name in dict.fromkeys(source or ())]
    if check_only:
        manifest = staging.checked(chosen, directory, outside)
    else:
        manifest = staging.fetch(chosen, directory, lambda line: None if as_json else _say(line), outside)
    if as_json:
        import msgspec  # noqa: PLC0415

        _json(msgspec.to_builtins(manifest))
        return
    how = "" if to is None else f" --from {to}"
    _say(f"{directory} is whole; now: harness evaluate submissions/bbt --track {track}{how}")
    for file in outside:
        _say(f"and: harness pretrain-prompt --source {file.name} --track {track}{how} --out p0.safetensors")


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="Prediction archive.", metavar="FILE.zip")],
    track: TrackName = "kit",
    data: DataDir = None,
    staged: StagedDir = None,
    entry: Annotated[str | None, typer.Option(help="Name to list them under; default the file's name.")] = None,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Score predictions in the competition's upload layout: <Task>/<split>.csv with the header `,pred`.

    They are stored as what they are, predictions without a budget: listed, and never ranked beside metered runs.
    """
    from harness import predictions as uploaded  # noqa: PLC0415
    from harness.data import Source  # noqa: PLC0415
    from harness.fetch import at_hand  # noqa: PLC0415
    from harness.listing import counted, scores_table  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    chosen = load_track(track)
    _, there = (None, None) if data else at_hand(chosen, staged, chosen.tasks, model=False)
    source = Source("kit", data) if data else Source(chosen.data.source, there)
    found = uploaded.score_archive(predictions, chosen, source)
    missing = uploaded.missing_cells(chosen, found)
    name = str(source) if data else chosen.data.source
    run = uploaded.keep(_store(store), entry or predictions.stem, predictions, chosen, name, found)
    if as_json:
        cells = [
            {"task": s.task, "split": s.split, "rows": s.rows, "metric": s.metric, "score": s.score} for s in found
        ]
        _json({"run": run, "missing": missing, "cells": cells})
        return
    out.print(scores_table(found))
    if missing:
        cells_of = counted(len(missing), "cell")
        _say(f"without predictions: {cells_of} of track {chosen.name}: {', '.join(missing)}")
    _say(f"stored in {_shown(store)} as predictions without a budget: listed by harness leaderboard, never ranked")


@app.command(
    "pretrain-prompt",
    epilog="Examples:\n\n"
    "  harness pretrain-prompt --source mnli --track official --out p0.safetensors\n\n"
    "  harness evaluate submissions/bbt --track official --p0 p0.safetensors",
)
def pretrain_prompt(
    out_file: Annotated[Path, typer.Option("--out", help="File to write, safetensors.")],
    source: Annotated[str, typer.Option(help="Public set for natural-language inference: mnli.")] = "mnli",
    track: TrackName = "official",
    data: Annotated[Path | None, typer.Option(help="Directory with the set as `datasets` saves it, DIR/mnli.")] = None,
    staged: StagedDir = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default the track's.")] = None,
    rows: Annotated[int, typer.Option(help="Training examples per class.")] = 1000,
    dev: Annotated[int, typer.Option(help="Examples per class by which the prompt is chosen.")] = 100,
    epochs: Annotated[int, typer.Option(help="Passes over the training examples.")] = 10,
    eta: Annotated[float, typer.Option(help="Adam's learning rate.")] = 5e-4,
    batch: Annotated[int, typer.Option(help="Texts per step.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the order.", min=0)] = 0,
) -> None:
    """Train a prompt with gradients on a public set, to start pair tasks from: `evaluate --p0 FILE`.

    Runs with it used data from outside: they are stored and listed, and never ranked with those that did not.
    """
    from harness import pretrain  # noqa: PLC0415
    from harness.data import Source  # noqa: PLC0415
    from harness.fetch import at_hand  # noqa: PLC0415
    from harness.lm import device as devices  # noqa: PLC0415
    from harness.lm.load import load_model  # noqa: PLC0415
    from harness.tasks import outside_set  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    how = pretrain.Pretraining(source, rows, dev, epochs, eta, batch, seed)
    chosen = load_track(track)
    kind = devices.chosen(chosen, device)
    outside = [] if data else [outside_set(source)]
    chosen, there = at_hand(chosen, staged, (), outside=outside)
    file, shots = pretrain.load_source(how, Source("hub", data or there))
    lm = load_model(chosen.model, chosen.prompt, device=kind, numerics=chosen.numerics)
    values, about = pretrain.pretrain(lm, chosen.profile, file, shots, how, err.print)
    pretrain.write_p0(out_file, values, about)
    _say(f"{out_file}: dev {about['dev']}, {about['dev_of_zero']} with p0 as it is")
    where = "" if staged is None else f" --from {staged}"
    _say(f"now: harness evaluate submissions/bbt --track {track}{where} --p0 {out_file}")


@app.command(
    epilog="Examples:\n\n"
    "  harness audit\n\n"
    "  harness audit --csv leaderboard/mini.csv --track mini\n\n"
    "  harness audit --expect 840772fcaa5de146"
)
def audit(
    store: StoreUrl = STORE,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="A published leaderboard of --track to compare with the database.")
    ] = None,
    track: TrackName = "mini",
    data: DataDir = None,
    expect: Annotated[
        str | None, typer.Option("--expect", help="The digest, or how it begins, that was published.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a results database: every row, sum and checksum; scores are recomputed from predictions.

    What was changed is named, and the exit code is 1. The digest of the whole may be published, and compared later.
    """
    import dataclasses  # noqa: PLC0415

    from harness.audit import audit as audited  # noqa: PLC0415
    from harness.audit import labels_at_hand, summary  # noqa: PLC0415
    from harness.data import Source  # noqa: PLC0415
    from harness.listing import counted  # noqa: PLC0415
    from harness.track import load_track, track_tasks  # noqa: PLC0415
    from leaderboard.published import differences  # noqa: PLC0415
    from leaderboard.rank import rank  # noqa: PLC0415

    chosen, results = load_track(track), _existing(store)
    source = Source("kit", data) if data else Source("embedded")
    found = audited(results, labels_at_hand(track_tasks(chosen).values(), source))
    wrong, differ = [f"{f.table}: {f.row}: {f.fact}" for f in found.findings], []
    if csv_file is not None:
        ranking = rank(results, chosen.name, chosen.fingerprint, chosen.planned, chosen.ranks)
        differ += [f"{csv_file}: {line}" for line in differences(csv_file, ranking)]
    if expect is not None and (not expect or not found.digest.startswith(expect.lower())):
        differ.append(f"the digest of the database is {found.digest}; {expect} was expected")
    if as_json:
        _json(dataclasses.asdict(found) | {"wrong": wrong + differ})
    else:
        for line in [*wrong, *differ, *summary(found, differs=bool(differ))]:
            _say(line)
    if wrong or differ:
        counts = [counted(len(wrong), "finding")] * bool(wrong)
        counts += [f"{counted(len(differ), 'difference')} from what was published"] * bool(differ)
        err.print(f"[red]error:[/red] {', '.join(counts)}", soft_wrap=True)
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\n"
    "  harness replay ajo --sample 2\n\n"
    "  harness replay 6ea652cac88bef21 --track kit --data ../kit --submission submissions/bbt"
)
def replay(
    run: Annotated[str, typer.Argument(help="Id of a run, its beginning, or an entry's name.", metavar="RUN")],
    submission: Annotated[
        Path | None, typer.Option("--submission", help="The folder that ran; default submissions/<name>.")
    ] = None,
    sample: Annotated[int | None, typer.Option("--sample", help="This many cells, drawn at random.", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.", min=0)] = 0,
    track: TrackName = "mini",
    data: DataDir = None,
    test_data: Annotated[Path | None, typer.Option("--test-data", help="As the run had it.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="As the run had it.")] = None,
    staged: StagedDir = None,
    p0: Annotated[Path | None, typer.Option("--p0", help="As the run had it.")] = None,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Run a stored run again and compare: queries with the ledger, answers, predictions.

    Nothing is written into the database. The exit code is 1 where a cell is not reproduced.
    """
    import dataclasses  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    from harness import replay as replays  # noqa: PLC0415
    from harness import submission as submissions  # noqa: PLC0415
    from harness.choices import Choices  # noqa: PLC0415
    from harness.listing import replay_table  # noqa: PLC0415
    from harness.progress import PlainProgress  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    results = _existing(store)
    number, identity = replays.find_run(results, run)
    cells = replays.sampled(results, number, sample, np.random.default_rng(seed))
    given = Choices(model=model, data=data, staged=staged, p0=p0, test_data=test_data)
    choices = replays.choices_of(identity, cells, given)
    folder = submissions.find(submission or Path("submissions") / submissions.folder_of(identity["entry"]))
    with PlainProgress(err) as progress:
        found = replays.replay(results, number, cells, load_track(track), choices, folder, progress)
    if as_json:
        _json(dataclasses.asdict(found) | {"verdict": found.verdict})
    else:
        out.print(replay_table(found))
        for line in (*found.identity, f"run {number} of {found.entry}: {found.verdict}"):
            _say(line)
    if found.verdict == "not reproduced":
        raise typer.Exit(1)


@app.command()
def migrate(store: StoreUrl = STORE) -> None:
    """Bring a results database of an older version up to date; the older file is kept beside it."""
    from harness import migrate as migration  # noqa: PLC0415

    if "://" in store:
        raise InputError(
            "migrate takes the path of a SQLite file; PostgreSQL has had the present version from the start, and "
            "what a migrated file holds comes into it with harness merge"
        )
    if not migration.needed(Path(store)):
        _say(f"{store} is of version {migration.TO} already; nothing to do")
        return
    kept = migration.migrate(Path(store))
    _say(f"{store} is of version {migration.TO}; the older file is {kept}. Check it: harness audit --store {store}")


@app.command(
    epilog="Examples:\n\n"
    "  harness serve --new-token alice\n\n"
    "  harness serve --track mini --task sst2 --split 1\n\n"
    "  harness serve --track official --host 0.0.0.0 --port 8000"
)
def serve(
    track: TrackName = "mini",
    data: DataDir = None,
    model: ModelDir = None,
    staged: StagedDir = None,
    device: Device = None,
    task: Tasks = None,
    split: Splits = None,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback put a TLS proxy.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    rate: Annotated[float, typer.Option(help="Requests a second that one token may make.", min=0.01)] = 50.0,
    burst: Annotated[int, typer.Option(help="Requests that one token may make at once.", min=1)] = 100,
    book: Annotated[
        str, typer.Option("--book", help="Tokens, budgets and replies: a SQLite file, or a SQLAlchemy URL.")
    ] = _BOOK,
    new_token: Annotated[
        str | None, typer.Option("--new-token", metavar="NAME", help="Make a token, print it once, and end.")
    ] = None,
    calls: Annotated[
        int | None, typer.Option(help="Another budget, in calls a cell: the new token's, or everybody's; never ranked.")
    ] = None,
    revoke_token: Annotated[
        str | None, typer.Option("--revoke-token", metavar="NAME", help="Let a token open nothing any more, and end.")
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="List the tokens, without their secrets, and end.")] = False,
    store: StoreUrl = STORE,
) -> None:
    """Offer a track's metered black box over HTTP, to solvers that live elsewhere: harness.connect(url, token).

    Answers that are handed in are scored here and stored; their scores are not told to the solver. Ctrl-C ends it, and
    the same command goes on with the same budgets.
    """
    try:
        from harness.service.book import Book  # noqa: PLC0415 - keeps `--help` quick
        from harness.service.serve import run, service_of  # noqa: PLC0415
        from harness.service.starting import Starting  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise InputError(
            f'the service needs a package that is not here: {problem.name}; run: pip install -e ".[service]"'
        ) from problem
    from harness.choices import Choices  # noqa: PLC0415
    from harness.evaluate import Evaluation, Preparation  # noqa: PLC0415
    from harness.track import load_track  # noqa: PLC0415

    if (tokens or revoke_token is not None) and not _is_there(book):
        raise InputError(f"{_shown(book)}: no such book; make it with its first token: {_new_token(book)}")
    kept = Book(book)
    if new_token is not None or revoke_token is not None or tokens:
        _change_tokens(kept, book, new_token, calls, revoke_token)
        return
    chosen = load_track(track)
    choices = Choices(
        model=model,
        data=data,
        tasks=tuple(task or ()),
        splits=tuple(split or ()),
        calls=calls,
        staged=staged,
        device=device,
    )
    prepared, results = Preparation(chosen, choices), _store(store)

    def offered() -> FastAPI:
        evaluation = Evaluation(chosen, choices, results, prepared)
        made = service_of(evaluation, kept, rate, burst)
        err.print(f"{evaluation.lm.name} is loaded: queries are answered from now on", markup=False, soft_wrap=True)
        return made

    if not kept.tokens():
        err.print(f"there is no token yet; make one with: {_new_token(book)}", markup=False, soft_wrap=True)
    if host not in {"127.0.0.1", "::1", "localhost"}:
        err.print(
            f"listening on {host}, in plain HTTP: tokens can be read on the way. Put a proxy that speaks TLS before it "
            "and listen on 127.0.0.1; docs/service.md shows how",
            soft_wrap=True,
        )
    run(Starting(offered, chosen.name), host, port)


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


def _submissions(paths: Sequence[Path], options: dict[str, str]) -> list[Submission]:
    """The submissions in these folders; an option that one of them does not have is refused at once."""
    from harness.config_source import check_options  # noqa: PLC0415
    from harness.submission import find  # noqa: PLC0415

    found = [find(path) for path in paths]
    for each in found:
        check_options(each, options)
    return found


def _first_run(track: str, chosen: Track, store: str) -> str:
    """What to type where a track has no runs yet."""
    data = " --data DIR" if chosen.data.source == "kit" else ""
    where = "" if store == STORE else f" --store {_shown(store)}"
    return f"harness evaluate submissions/ajo --track {track}{data}{where}"


def _costs(ranking: Ranking, path: Path, wide: Console, as_json: bool) -> None:
    """Print what entries cost, and write it where there are any."""
    from leaderboard.cost import cost_records, cost_table, costs  # noqa: PLC0415
    from leaderboard.table import write_records  # noqa: PLC0415

    found = costs(ranking)
    if found:
        write_records(cost_records(found), path)
    if as_json:
        _json({"track": ranking.track, "costs": cost_records(found)})
        return
    wide.print(cost_table(found, ranking.track))
    _say(f"written: {path}" if found else f"{path} is not written: there is nothing to list in it")


def _not_ranked(ranking: Ranking, runs: list[tuple[str, dict[str, Any], dict[str, Any], float]]) -> list[str]:
    """What is without a rank or left out, and of `runs` those of the track whose choices were replaced."""
    from harness.listing import counted  # noqa: PLC0415

    lines = []
    if ranking.unsandboxed:
        lines.append(
            f"{counted(ranking.unsandboxed, 'entry', 'entries')} ran without isolation (sandbox 0), listed without a "
            "rank; --allow-unsandboxed ranks such entries among themselves"
        )
    if ranking.left_out:
        left_out = counted(ranking.left_out, "run")
        lines.append(f"{left_out} left out: other data, model, seed or track version, or choices replaced")
    own = [identity for _, identity, _, _ in runs if identity["track"] == ranking.track]
    replaced = {f"{each['entry']}: replaced {', '.join(each['modified'])}" for each in own if each["modified"]}
    return lines + [f"  {line}" for line in sorted(replaced)]


def _change_tokens(kept: Book, book: str, new: str | None, calls: int | None, revoked: str | None) -> None:
    """Make a token, revoke one, or list them all."""
    if new is not None:
        typer.echo(kept.new_token(new, calls))
        err.print(f"the token of {new}; it is shown this once, and only its digest is kept", soft_wrap=True)
        return
    if revoked is not None:
        kept.revoke(revoked)
        _say(f"{revoked} opens nothing any more; what it spent stays in {kept.name}")
        return
    for each in kept.tokens():
        budget = "the track's budget" if each.calls is None else f"{each.calls:,} calls a cell"
        _say(f"{each.name}  {budget}{'' if each.revoked is None else ', revoked'}")
    if not kept.tokens():
        _say(f"no tokens in {kept.name}; make one with: {_new_token(book)}")


def _new_token(book: str) -> str:
    """What to type to make a token."""
    return f"harness serve --new-token NAME{'' if book == _BOOK else f' --book {_shown(book)}'}"


def _is_there(database: str) -> bool:
    """Whether a SQLite file is, named by its path or a URL; a server is asked later."""
    file = re.sub(r"^sqlite[^:]*:///", "", database)
    return "://" in file or Path(file).is_file()


def _existing(store: str) -> Store:
    if not _is_there(store):
        raise InputError(
            f"{store}: no such results database; run: harness evaluate submissions/ajo, or name it with --store"
        )
    return _store(store, create=False)


def _store(url: str, *, create: bool = True) -> Store:
    """A results database; SQLAlchemy, half of the time that `--help` would take, is imported only now."""
    from harness.store import Store  # noqa: PLC0415

    return Store(url, create=create)


def _shown(url: str) -> str:
    """The address of a database without its password."""
    from harness.database import shown  # noqa: PLC0415 - as `_store`

    return shown(url)


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
        from harness.progress import printable  # noqa: PLC0415

        err.print(f"[red]error:[/red] {escape(printable(str(problem)))}", soft_wrap=True)
        sys.exit(2 if isinstance(problem, InputError) else 1)


if __name__ == "__main__":
    main()
