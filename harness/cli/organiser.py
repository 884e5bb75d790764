"""What there is to solve, and what an organiser prepares, from `tracks` and `fetch` to `import-prompt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.again import command_line
from harness.cli.console import STORE, err, existing_store, is_there, open_store, out, print_json, say, shown
from harness.cli.formats import Form, export
from harness.cli.options import (
    AsJson,
    DataDir,
    Organiser,
    StagedDir,
    StoreUrl,
    TasksDir,
    TrackName,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.contract import Mode

commands = typer.Typer()


@commands.command()
def tracks(store: StoreUrl = STORE, form: Form = None, as_json: AsJson = False) -> None:
    """List the tracks: model, data, budgets, and how large a lead must be on them to be seen.

    The leads are computed from the runs in the results database, or else from those that were measured for this
    version of the track when it was published.
    """
    from harness.cli.tables import tracks_rows, tracks_table  # noqa: PLC0415
    from harness.leaderboard.tells import tells  # noqa: PLC0415
    from harness.tracks.track import load_track, track_names  # noqa: PLC0415

    found = [load_track(name) for name in track_names()]
    results = existing_store(store) if is_there(store) else None
    powers = [tells(track, results) for track in found]
    if form is not None:
        export("Tracks", tracks_rows(found, powers), form, "tracks")
        return
    if as_json:
        import msgspec  # noqa: PLC0415

        records = [None if each is None else each.record() for each in powers]
        print_json([msgspec.to_builtins(track) | {"tells": r} for track, r in zip(found, records, strict=True)])
        return
    out.print(tracks_table(found))
    for track, each in zip(found, powers, strict=True):
        say(f"{track.name}: {'no noise was measured on it yet' if each is None else each.sentence()}")


@commands.command()
def tasks(
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    staged: StagedDir = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            help="Say what is wrong with a competition's folder, a track, a folder of tasks or one task, with file and "
            "line; then show label words, bias and zero-shot score.",
            metavar="DIR",
        ),
    ] = None,
    form: Form = None,
    as_json: AsJson = False,
) -> None:
    """List a track's tasks: classes, metric, and the wording it uses.

    Where a wording reads the first token of a word, that token is shown if the model's tokenizer is on this machine.
    With --check, all that is wrong is listed, and the exit code is 2 then.
    """
    if check is not None:
        from harness.cli.competition import look  # noqa: PLC0415

        look(check, tasks_dir, as_json=as_json)
        return
    from harness.cli.tables import tasks_rows, tasks_table  # noqa: PLC0415
    from harness.tracks.staging import staged_model  # noqa: PLC0415
    from harness.tracks.track import load_track, track_tasks  # noqa: PLC0415

    chosen = staged_model(load_track(track, tasks_dir), staged)
    how = chosen.profile, chosen.model.kind
    files, tokens = track_tasks(chosen).values(), None
    cut = any(file.by_first_piece(*how) for file in files if file.classes)
    if cut:
        from harness.lm.load import load_tokens  # noqa: PLC0415 - imports torch, and most tracks do without

        tokens = load_tokens(chosen.model)
    found = [(file, file.wording(*how, tokens)) for file in files]
    as_written = cut and tokens is None
    if form is not None:
        export(f"Tasks of track {chosen.name}", tasks_rows(found), form, "tasks")
        return
    if as_json:
        import dataclasses  # noqa: PLC0415

        print_json([{"title": f.title, "words_as_written": as_written} | dataclasses.asdict(task) for f, task in found])
        return
    out.print(tasks_table(found))
    if as_written:
        say(
            f"the first token of each label word is read, and the tokenizer of {chosen.model.source} that cuts them is "
            f"not here; get it with harness fetch --track {track}, or name its directory with --from"
        )


@commands.command(
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
    from harness.tracks import staging  # noqa: PLC0415
    from harness.tracks.tasks import outside_set  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen, directory = load_track(track), to or staging.default_directory()
    outside = [outside_set(name) for name in dict.fromkeys(source or ())]
    if check_only:
        manifest = staging.checked(chosen, directory, outside)
    else:
        manifest = staging.fetch(chosen, directory, lambda line: None if as_json else say(line), outside)
    if as_json:
        import msgspec  # noqa: PLC0415

        print_json(msgspec.to_builtins(manifest))
        return
    how = "" if to is None else f" --from {to}"
    say(f"{directory} is whole; now: harness evaluate submissions/bbt --track {track}{how}")
    for file in outside:
        say(f"and: harness pretrain-prompt --source {file.name} --track {track}{how} --out p0.safetensors")


@commands.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="Prediction archive.", metavar="FILE.zip")],
    track: TrackName = "kit",
    tasks_dir: TasksDir = None,
    data: DataDir = None,
    staged: StagedDir = None,
    entry: Annotated[str | None, typer.Option(help="Name to list them under; default the file's name.")] = None,
    team: Annotated[str | None, typer.Option("--team", help="Whose they are.", metavar="TEAM")] = None,
    organiser: Organiser = False,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Score predictions in the competition's upload layout: <Task>/<split>.csv with the header `,pred`.

    They are stored as what they are, predictions without a budget: listed, and never ranked beside metered runs.
    """
    from harness.cli.tables import scores_table  # noqa: PLC0415
    from harness.errors import counted  # noqa: PLC0415
    from harness.evaluation.oddities import odd_test  # noqa: PLC0415
    from harness.results import uploads as uploaded  # noqa: PLC0415
    from harness.sandbox.submission import check_team  # noqa: PLC0415
    from harness.tracks.examples import Source, source_at  # noqa: PLC0415
    from harness.tracks.staging import at_hand  # noqa: PLC0415
    from harness.tracks.track import load_track, track_tasks  # noqa: PLC0415

    chosen = load_track(track, tasks_dir)
    _, there = (None, None) if data else at_hand(chosen, staged, chosen.tasks, model=False)
    source = source_at(chosen.data.source, data) if data else Source(chosen.data.source, there)
    found = uploaded.score_archive(predictions, chosen, source)
    planned = uploaded.planned_cells(chosen, source)
    missing = uploaded.missing_cells(planned, found)
    name = str(source) if data else chosen.data.source
    whose = check_team(team) if team is not None else ""
    kept = open_store(store)
    run = uploaded.keep(kept, entry or predictions.stem, predictions, chosen, name, found, planned, whose)
    public = organiser or chosen.competition.public_at() == "scores"
    if as_json:
        cells = [
            {"task": s.task, "split": s.split, "rows": s.rows, "metric": s.metric}
            | ({"score": s.score} if public else {})
            for s in found
        ]
        print_json({"run": run, "missing": missing, "cells": cells})
        return
    files = track_tasks(chosen)
    for line in dict.fromkeys(line for s in found for line in odd_test(files[s.task], s.test)):
        say(f"odd data: {line}")
    if public:
        out.print(scores_table(found))
    else:
        say(f"{counted(len(found), 'file')} scored; {'; '.join(chosen.competition.lines())}")
    if missing:
        cells_of = counted(len(missing), "cell")
        say(f"without predictions: {cells_of} of track {chosen.name}: {', '.join(missing)}")
    line = command_line("leaderboard", track=track, store=store)
    say(f"stored in {shown(store)} as predictions without a budget: listed by {line}, never ranked")


@commands.command(
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
    rows: Annotated[
        int | None, typer.Option(help="Training examples per class; default the whole set, as in the paper.")
    ] = None,
    dev: Annotated[int, typer.Option(help="Examples per class by which the prompt is chosen.")] = 100,
    epochs: Annotated[int, typer.Option(help="Passes over the training examples.")] = 1,
    eta: Annotated[float, typer.Option(help="Adam's learning rate.")] = 5e-4,
    batch: Annotated[int, typer.Option(help="Texts per step.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the order.", min=0)] = 0,
    mode: Annotated[str, typer.Option(help="Where prompts stand: add to p0, or prepend to the text (paper).")] = "add",
) -> None:
    """Train a prompt with gradients on a public set, to start pair tasks from: `evaluate --p0 FILE`.

    Runs with it used data from outside: they are stored and listed, and never ranked with those that did not.
    """
    from harness.evaluation import pretrain  # noqa: PLC0415
    from harness.lm import device as devices  # noqa: PLC0415
    from harness.lm.load import load_model  # noqa: PLC0415
    from harness.tracks.examples import Source  # noqa: PLC0415
    from harness.tracks.staging import at_hand  # noqa: PLC0415
    from harness.tracks.tasks import outside_set  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    how = pretrain.Pretraining(source, rows, dev, epochs, eta, batch, seed, _mode(mode))
    chosen = load_track(track)
    kind = devices.chosen(chosen, device)
    outside = [] if data else [outside_set(source)]
    chosen, there = at_hand(chosen, staged, (), outside=outside)
    file, shots = pretrain.load_source(how, Source("hub", data or there))
    lm = load_model(chosen.model, chosen.prompt, device=kind, numerics=chosen.numerics)
    values, about = pretrain.pretrain(lm, chosen.profile, file, shots, how, err.print)
    pretrain.write_p0(out_file, values, about)
    say(f"{out_file}: dev {about['dev']}, {about['dev_of_zero']} with p0 as it is")
    where = "" if staged is None else f" --from {staged}"
    say(f"now: harness evaluate submissions/bbt --track {track}{where} --p0 {out_file}")


@commands.command(
    "import-prompt",
    epilog="Example:\n\n"
    "  harness import-prompt nli_base_prompt.pt --track paper --out p0.safetensors\n\n"
    "  harness evaluate submissions/bbt --track paper --config preset=icml2022-p0 --p0 p0.safetensors",
)
def import_prompt(
    path: Annotated[Path, typer.Argument(help="A tensor (prompt tokens, width) that torch saved.", metavar="FILE")],
    out_file: Annotated[Path, typer.Option("--out", help="File to write, safetensors.")],
    track: TrackName = "paper",
    staged: StagedDir = None,
    mode: Annotated[str, typer.Option(help="Where prompts stand: prepend to the text, or add to p0.")] = "prepend",
) -> None:
    """Turn a prompt that another program trained, such as BBT's nli_base_prompt.pt, into a file for `--p0`.

    Only tensors are read, never code. Nothing in the file says which model it is for: that is the track's.
    """
    from harness.evaluation import pretrain  # noqa: PLC0415
    from harness.lm.load import load_model  # noqa: PLC0415
    from harness.tracks.staging import at_hand  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen, _ = at_hand(load_track(track), staged, ())
    lm = load_model(chosen.model, chosen.prompt, numerics=chosen.numerics)
    pretrain.write_p0(out_file, *pretrain.import_p0(path, lm, _mode(mode)))
    say(f"{out_file}: for {lm.name}, prompts in mode {mode}")


def _mode(name: str) -> Mode:
    """A mode by its name.

    Raises:
        InputError: there is none.
    """
    if name not in {"add", "prepend"}:
        raise InputError(f"--mode {name}: add or prepend is needed")
    return "add" if name == "add" else "prepend"
