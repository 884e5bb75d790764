"""An organiser's own competition: `new-competition`, what `harness tasks --check` prints, and `rescore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli.console import STORE, err, existing_store, out, print_json, say
from harness.cli.options import AsJson, StoreUrl, TasksDir, TrackName
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.evaluation.zero_shot import Beforehand
    from harness.results.store import Store
    from harness.tracks.inspection import Inspection
    from harness.tracks.track import Track

commands = typer.Typer()


@commands.command(
    "new-competition",
    epilog="Examples:\n\n"
    "  harness new-competition films  (with data that ship)\n\n"
    "  harness new-competition reviews --data my.csv --text sentence --label label --words bad,great\n\n"
    "  harness new-competition pairs --data pairs.tsv --text first --text second --label same --shots 8",
)
def new_competition(
    directory: Annotated[Path, typer.Argument(help="Folder to make; its name is the track's.", metavar="DIR")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Your labelled file: .csv or .tsv with a header, or .jsonl.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Column with the text; twice for pairs.", metavar="COLUMN")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Column with the label.", metavar="COLUMN")] = "",
    test: Annotated[
        Path | None,
        typer.Option("--test", help="File with the same columns for the test set; default: drawn from --data."),
    ] = None,
    classes: Annotated[
        str, typer.Option("--classes", help="Names of the classes, with commas, in the order of the sorted labels.")
    ] = "",
    words: Annotated[
        str, typer.Option("--words", help="Label words, with commas, in the same order; default the classes' names.")
    ] = "",
    template: Annotated[
        str, typer.Option("--template", help='E.g. "{a} . It was {mask} ."; {b} is the second text.')
    ] = "",
    metric: Annotated[
        str, typer.Option("--metric", help="accuracy, macro_f1, or f1 of the second of two classes.")
    ] = "accuracy",
    task: Annotated[str, typer.Option("--task", help="Name of the task; default that of the file.")] = "",
    shots: Annotated[
        int, typer.Option("--shots", help="Training examples of each class, and dev examples.", min=1)
    ] = 16,
    splits: Annotated[int, typer.Option("--splits", help="Few-shot splits to draw; ranks need 7.", min=1)] = 8,
    test_texts: Annotated[int, typer.Option("--test-texts", help="Most test texts to draw from --data.", min=1)] = 1000,
    calls: Annotated[int, typer.Option("--calls", help="Budget of one cell, in calls.", min=1)] = 300,
    model: Annotated[
        str, typer.Option("--model", help="embedded, a directory in hub format, or a hub id.")
    ] = "embedded",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Load the model and show label words, bias and zero-shot score.")
    ] = True,
) -> None:
    """Make a competition: a track, a task with few-shot splits and a test set drawn from your file, and a README.

    Splits are drawn by the SHA-256 of the texts: the same file gives the same splits. No test text is in a split.
    """
    from harness.leaderboard.stats import FEWEST_DF  # noqa: PLC0415
    from harness.lm.kinds import kind_of  # noqa: PLC0415
    from harness.tracks.dividing import Sizes  # noqa: PLC0415
    from harness.tracks.new_competition import Wanted, create  # noqa: PLC0415

    wanted = Wanted(
        data, tuple(text or ()), label, test, task, _listed(classes), _listed(words), template, metric, calls,
        Sizes(shots, shots, splits, test_texts), model, kind_of(model),
    )  # fmt: skip
    made = create(directory, wanted)
    for note in made.notes:
        say(note)
    if splits - 1 < FEWEST_DF:
        say(f"{splits} splits carry intervals and no ranks; ranks of one task need --splits {FEWEST_DF + 1}")
    say(f"made {directory}: {directory}/track.toml, {directory}/tasks/{made.task}, {directory}/README.md")
    if check:
        look(str(directory), None, as_json=False)
    ready = Path("submissions/ajo").is_dir()
    first = (
        "harness evaluate submissions/ajo" if ready else "harness new mysolver; harness evaluate submissions/mysolver"
    )
    say(f"now: {first} --track {directory}")


@commands.command(
    epilog="Examples:\n\n"
    "  harness rescore --track films --data corrected --dry-run\n\n"
    '  harness rescore --track films --data corrected --reason "text 12 is praise"\n\n'
    "  harness leaderboard --track films --labels original",
)
def rescore(
    data: Annotated[
        Path,
        typer.Option("--data", help="Directory with the corrected test sets, as for --test-data, or a competition."),
    ],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is stored, and shown with the ranking.", metavar="TEXT")
    ] = "",
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and store nothing.")] = False,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Correct test labels: scores change, and no run is run again.

    The texts and their order must be those on which runs were scored; this is checked by their digest. The correction
    is appended to the database as a fact with its reason. From then on scores are computed with the corrected labels,
    also those of runs to come on the old labels; --labels original shows the others. Nothing is changed or deleted.
    """
    from harness.results import rescoring  # noqa: PLC0415
    from harness.tracks.track import load_track, track_tasks  # noqa: PLC0415

    if not data.is_dir():
        raise InputError(f"--data {data}: no such directory")
    chosen, results = load_track(track, tasks_dir), existing_store(store)
    folder = data / "tasks" if (data / "tasks").is_dir() else data
    before = _scores(results, chosen)
    found = rescoring.changes(results, track_tasks(chosen).values(), folder)
    if found and not dry_run:
        rescoring.apply(results, found, reason)
    after = _scores(results, chosen)
    if as_json:
        changed = [{"task": each.file.name, "test": each.test, "rows": each.rows} for each in found]
        print_json({"changed": changed, "stored": bool(found) and not dry_run, "before": before, "after": after})
        return
    for line in (line for each in found for line in each.lines()):
        say(line)
    if not found:
        say("no label differs from those in force; nothing is stored")
    elif dry_run:
        say("nothing is stored, by --dry-run; give it a --reason and leave that out")
    else:
        for name, value in after.items():
            say(f"{name}: {100 * before[name]:.1f} -> {100 * value:.1f}")
        say(f"stored in {results.url}; see harness leaderboard --track {track}, and --labels original for the old ones")


def _scores(results: Store, track: Track) -> dict[str, float]:
    """The average of each listed entry."""
    from harness.leaderboard.rank import rank  # noqa: PLC0415

    ranking = rank(results, track.name, track.fingerprint, track.planned, track.ranks)
    return {entry.name: round(entry.average, 4) for entry in (*ranking.entries, *ranking.elsewhere)}


def look(where: str, tasks: Path | None, *, as_json: bool) -> None:
    """Print what is wrong with a competition, a track or tasks, and what is known of them before anybody competes.

    Raises:
        typer.Exit: something is wrong; the exit code is 2.
    """
    from harness.tracks.inspection import inspect  # noqa: PLC0415

    found = inspect(where, tasks)
    facts, wrong = ([], list(found.problems)) if found.problems else _facts(found, where)
    if as_json:
        record = {"problems": wrong, "warnings": found.warnings, "data": found.counts}
        print_json(record | {"tasks": [each.record() for each in facts]})
    else:
        _print(found, facts, wrong)
    if wrong:
        if not as_json:
            from harness.errors import counted  # noqa: PLC0415

            err.print(f"[red]error:[/red] {counted(len(wrong), 'problem')} in {escape(where)}", soft_wrap=True)
        raise typer.Exit(2)


def _facts(found: Inspection, where: str) -> tuple[list[Beforehand], list[str]]:
    """The facts of all tasks whose data are here, and the problems of their label words."""
    if found.track is None:
        return [], []
    from harness.evaluation.zero_shot import beforehand  # noqa: PLC0415 - torch
    from harness.lm.load import load_model  # noqa: PLC0415
    from harness.tracks.examples import Source  # noqa: PLC0415
    from harness.tracks.track import track_tasks  # noqa: PLC0415

    track: Track = found.track
    if track.data.source not in {"embedded", "files"}:
        return [], []
    lm = load_model(track.model, track.prompt, device=track.device_kind("cpu"), numerics=track.numerics)
    facts = []
    for name, file in track_tasks(track).items():
        task = file.task(track.profile, track.model.kind, lm)
        facts.append(beforehand(file, task, Source(track.data.source), track.tasks[name], lm))
    task_file = f"{where}/tasks/NAME/task.toml" if track.tasks_folder else "task.toml"
    return facts, [line.replace("task.toml", task_file) for each in facts for line in each.problems()]


def _print(found: Inspection, facts: list[Beforehand], wrong: list[str]) -> None:
    for line in wrong:
        say(line)
    for line in found.warnings:
        say(f"warning: {line}")
    for line in [] if wrong else found.counts:
        say(line)
    if found.track is not None and facts:
        source = found.track.model
        say(f"model: {source.source}, {source.kind}, {source.dtype}")
    elif found.track is not None and not wrong:
        say(
            "label words, bias and zero-shot score are shown where the data are embedded, or files in the folders of "
            f"the tasks; those of this track are of the kind {found.track.data.source}"
        )
    for line in found.track.competition.lines() if found.track else ():
        say(line)
    for each in facts:
        _task(each)
    if not wrong:
        said = f"the track {found.track.name}" if found.track else ", ".join(sorted(found.tasks))
        say(f"ok: {said}")


def _task(facts: Beforehand) -> None:
    """The label words and the bare template of one task."""
    score = "unknown" if facts.zero_shot is None else f"{100 * facts.zero_shot:.1f}"
    say(
        f"{facts.task.name}: {facts.task.template!r}; zero-shot {facts.task.metric} {score} on {facts.test_texts:,} "
        f"test texts; the most frequent class scores {100 * facts.majority:.1f}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("class", "label word", "tokens"):
        table.add_column(column, overflow="fold")
    for column in ("share", "mean probability", "without content"):
        table.add_column(column, justify="right")
    for n, (name, word) in enumerate(zip(facts.task.classes, facts.words, strict=True)):
        numbers: list[Any] = [values[n] if values else None for values in (facts.share, facts.mean, facts.content_free)]
        shown = ["-" if value is None else f"{100 * value:.1f}%" for value in numbers]
        table.add_row(escape(name), escape(repr(word.text)), escape(" ".join(word.tokens)), *shown)
    out.print(table)
    biased = facts.biased()
    if biased:
        say(
            f"the bare template is biased: the mean probability of {', '.join(biased[:5])} is less than half or more "
            "than twice its share of the training texts; other label words correct that, or calibration does"
        )


def _listed(given: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in given.split(",")) if given else ()
