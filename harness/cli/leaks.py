"""What leaks through the black box, measured: `leaks`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from harness.cli.console import STORE, check_folder, err, existing_store, note, open_store, out, print_json, say, status
from harness.cli.options import NOTHING, AsJson, TasksDir, TrackName, overriding
from harness.errors import InputError
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.evaluation.overrides import Overrides
    from harness.evaluation.progress import LiveProgress, PlainProgress
    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Evaluation
    from harness.leaderboard.entries import Entry
    from harness.results.store import Store
    from harness.tracks.track import Track

commands = typer.Typer()
What = Literal["layer", "behaviour", "membership", "stored"]
OWN = "results/leaks.db"
LAYER = "layer: what the attack may spend"
ANSWERS = "behaviour and membership: which answers"
DEFENCES = "What an organiser's defences cost"
WRITTEN = "What is kept and written"


@dataclass(frozen=True)
class _Asked:
    """What a command is about, and where its tables go."""

    track: Track
    overrides: Overrides
    store: Store
    solvers: tuple[str, ...]
    folder: Path | None
    as_json: bool

    def cells(self, evaluation: Evaluation) -> list[Cell]:
        """The chosen cells; the first split of each task where no split is chosen."""
        if self.overrides.splits:
            return list(evaluation.cells)
        return list({cell.task.name: cell for cell in reversed(evaluation.cells)}.values())[::-1]

    def write(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Print rows as JSON, if that is wanted, and write them as CSV into the folder, if there is one."""
        from harness.leaderboard.table import write_records  # noqa: PLC0415

        if self.as_json:
            print_json({"track": self.track.name, name: rows})
        if self.folder is not None:
            if not rows:
                raise InputError(f"--out {self.folder}: nothing was given to the attack; there is no table to write")
            write_records(list(rows), self.folder / f"{name}.csv")
            note(f"written: {self.folder / f'{name}.csv'}")


@commands.command(
    epilog="Examples:\n\n"
    "  harness leaks --task sst2 --split 1\n\n"
    "  harness leaks behaviour --solver dect --task sst2 --split 1\n\n"
    "  harness leaks membership --solver dect --task sst2\n\n"
    "  harness leaks --policy defences.toml --policy stricter.toml --task sst2 --out leaks\n\n"
    "docs/leaks.md says in plain words what is stolen, what it costs, and which defences close it."
)
@overriding(
    *("data", "model", "staged", "device", "backend", "endpoint", "served_model", "concurrency"),
    *("tasks", "splits", "calls", "seed", "sandbox"),
    helps={"seed": "Seed of runs, and of the words, texts and draws of an attack."},
)
def leaks(
    what: Annotated[
        What,
        typer.Argument(
            help="layer: how much of the model's last layer its logits give away. behaviour: how well a student copies "
            "an answer. membership: whether an answer tells which examples it was tuned on. stored: what the entries "
            "of a results database were given, sent and give away.",
            metavar="WHAT",
        ),
    ] = "layer",
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", help="Rows to spend; default a quarter more than the model's width.", rich_help_panel=LAYER
        ),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option("--words", help="Words to ask about; default four times the width.", min=2, rich_help_panel=LAYER),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            "--solver",
            help="Whose answers are attacked, or whose points a policy costs: FOLDER, or FOLDER:NAME=VALUE,NAME=VALUE; "
            "repeatable. Default dect, and with --policy manual, dect and house:search=false.",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    shadows: Annotated[
        int,
        typer.Option(
            "--shadows", help="membership: splits that are drawn from the pool and tuned on.", min=8,
            rich_help_panel=ANSWERS,
        ),
    ] = 64,
    entries: Annotated[
        bool,
        typer.Option(
            "--entries",
            help="membership: attack the answers that --store holds of every entry, by the entry's own other splits, "
            "and tune nothing.",
            rich_help_panel=ANSWERS,
        ),
    ] = False,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            "--policy",
            help="A file with the fields of a track's \\[defences] table: what it costs and prevents; repeatable.",
            rich_help_panel=DEFENCES,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="Results database of the runs that are attacked; a run that is in it is not run again. Default "
            f"{OWN}, and for stored and --entries {STORE}. layer keeps the ledger of its attack there, and by default "
            "nowhere.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write tables (CSV) and charts to.", rich_help_panel=WRITTEN)
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure what leaks through the black box, by attacks that any submission or participant could make.

    [bold]layer[/bold] steals the last layer (Carlini et al., ICML 2024): it asks for the logits of many words on random
    texts, and finds the hidden width and the head's subspace in them. Every row is metered and written to a ledger like
    a submission's. The table says, for each number of rows, the width that was found, how much of unseen logits lies
    outside of the stolen subspace, and how often the likeliest word is foretold.

    [bold]behaviour[/bold] trains students on what a tuned answer says of random texts and of texts of the task (Krishna
    et al., ICLR 2020): agreement and accuracy on unseen texts, by number of queries.

    [bold]membership[/bold] tells from an answer which texts it was tuned on, by answers on other splits of the pool
    (LiRA, Carlini et al. 2022; RMIA, Zarifzadeh et al. 2024): members found at few false positives, with intervals.

    [bold]stored[/bold] asks no model: it reads ledgers and answers. For each entry it says how many dimensions of the
    last layer its replies can have shown, how many labelled examples stand in clear in its answers, and what it sent.

    [bold]--policy FILE[/bold] evaluates an organiser's defences like a submission: it runs solvers and the attack on
    the last layer with and without them, and sets points lost against leakage prevented.
    """
    if solver and what in {"layer", "stored"} and not policy:
        raise InputError("--solver goes with behaviour, membership and --policy; the others attack no answer")
    if entries and (what != "membership" or solver or policy):
        raise InputError("--entries goes with membership alone, and attacks every entry of --store; leave --solver out")
    if policy and what != "layer":
        raise InputError(f"--policy weighs defences by the attack on the last layer; leave {what} out")
    if (rows, words) != (None, None) and (what != "layer" or policy):
        raise InputError("--rows and --words go with layer alone, without --policy; leave them out")
    check_folder(folder)
    chosen = load_track(track, tasks_dir)
    if what == "stored" or entries:
        with contextlib.closing(existing_store(url or STORE)) as store:
            (_entries if entries else _stored)(_Asked(chosen, overrides, store, (), folder, as_json))
        return
    _refuse_texts(chosen, overrides.tasks)
    with contextlib.closing(open_store(url or ("sqlite://" if what == "layer" and not policy else OWN))) as store:
        asked = _Asked(chosen, overrides, store, tuple(solver or ()), folder, as_json)
        if policy:
            _policies(asked, policy)
        elif what == "layer":
            _layer(asked, rows, words)
        elif what == "behaviour":
            _behaviour(asked)
        else:
            _membership(asked, shadows)


def _refuse_texts(track: Track, chosen: Sequence[str]) -> None:
    """Refuse tasks that are answered by text before a model is loaded or a shadow is tuned."""
    from harness.tracks.tasks import find_task  # noqa: PLC0415

    for name in track.tasks:
        if name in (chosen or track.tasks) and not find_task(name, track.tasks_folder).classes:
            raise InputError(f"task {name} is answered by text, and harness leaks needs classes; choose another")


def _layer(asked: _Asked, rows: int | None, words: int | None) -> None:
    """Steal the last layer on each chosen cell."""
    from harness.evaluation.run import Evaluation  # noqa: PLC0415 - torch, as the next
    from harness.leaks.extraction import extract  # noqa: PLC0415
    from harness.leaks.tables import layer, layer_line  # noqa: PLC0415

    evaluation, found = Evaluation(asked.track, asked.overrides, asked.store), []
    for cell in asked.cells(evaluation):
        name = f"{cell.task.name}/{cell.split}"
        with status(name) as said:
            progress = partial(_rows_of, name, said)
            made = extract(
                evaluation, cell, asked.store, rows=rows, words=words, seed=asked.overrides.seed, progress=progress
            )
        found.append(made)
        if made.curve and not asked.as_json:
            _wide().print(layer(made))
        tell = note if asked.as_json else say
        tell(layer_line(made))
        if made.refused:
            tell(f"refused: {made.refused}")
        elif made.rows_spent < made.rows_wanted:
            tell(f"the budget ended the attack: {made.rows_spent:,} of {made.rows_wanted:,} rows")
    asked.write("layer", [row for each in found for row in each.records()])


def _rows_of(name: str, said: Callable[[str], None], rows: int, of: int) -> None:
    said(f"{name}: {rows:,} of {of:,} rows")


def _behaviour(asked: _Asked) -> None:
    """Copy the answers of solvers on each chosen cell."""
    from harness.evaluation.run import Evaluation  # noqa: PLC0415 - torch, as the next
    from harness.leaks.solvers import solver  # noqa: PLC0415
    from harness.leaks.tables import behaviour  # noqa: PLC0415
    from harness.leaks.victims import copied, tuned  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for each in map(solver, asked.solvers or ("dect",)):
        with _progress() as progress:
            run = tuned(asked.track, asked.overrides, asked.store, each, progress)
        evaluation = Evaluation(asked.track, asked.overrides, asked.store)
        for cell in asked.cells(evaluation):
            with status(f"{each.name} on {cell.task.name}/{cell.split}") as said:
                found = copied(evaluation, cell, asked.store, run, each.name, asked.overrides.seed, said)
            place = {"entry": found.entry, "task": found.task, "split": found.split}
            victim = {"victim_accuracy": found.victim_accuracy, "majority": found.majority}
            rows += [place | dataclasses.asdict(copy) | victim for copy in found.found]
            if not asked.as_json:
                _wide().print(behaviour(found))
                say(f"always the victim's commonest class: agreement {100 * found.majority:.1f} %")
    asked.write("behaviour", rows)


def _membership(asked: _Asked, shadows: int) -> None:
    """Attack the labelled examples of solvers on each chosen task."""
    from harness.leaks.membership import attacked  # noqa: PLC0415
    from harness.leaks.shadows import cast  # noqa: PLC0415 - torch
    from harness.leaks.solvers import solver  # noqa: PLC0415
    from harness.leaks.tables import membership  # noqa: PLC0415

    if asked.overrides.splits:
        raise InputError("--split: membership draws splits of its own; choose how many with --shadows")
    rows: list[dict[str, Any]] = []
    for each in map(solver, asked.solvers or ("dect",)):
        for task in asked.overrides.tasks or tuple(asked.track.tasks):
            with _progress() as progress, status(f"{each.name} on {task}") as said:
                cast_now = cast(asked.track, asked.overrides, asked.store, each, task, shadows, progress, said)
                said("the attacks")
                found = attacked(cast_now, asked.overrides.seed)
            rows += [{"entry": each.name, "task": task} | dataclasses.asdict(one) for one in found]
            if not asked.as_json:
                _wide().print(membership(each.name, task, found))
    asked.write("membership", rows)


def _entries(asked: _Asked) -> None:
    """Attack the labelled examples of every entry whose answers are stored, and store what was found."""
    from harness.evaluation.run import Evaluation  # noqa: PLC0415 - torch
    from harness.leaks.membership import kept, told_by_few  # noqa: PLC0415
    from harness.leaks.shadows import of_entry  # noqa: PLC0415
    from harness.leaks.tables import told  # noqa: PLC0415
    from harness.results import observations  # noqa: PLC0415

    _refuse_texts(asked.track, asked.overrides.tasks)
    evaluation, rows = Evaluation(asked.track, asked.overrides, asked.store), list[dict[str, Any]]()
    for entry in _black_box_entries(asked):
        with status(entry.name) as said:
            try:
                given = of_entry(evaluation, asked.store, entry.run, entry.name, said)
                found = told_by_few(given.tasks, asked.overrides.seed)
            except InputError as lacking:
                note(f"left out: {lacking}")
                continue
        rows += [{"entry": entry.name, "run": entry.run} | dataclasses.asdict(each) for each in found]
        with asked.store.changes() as connection:
            observations.insert(connection, kept(found, entry.run, given.answers, asked.overrides.seed, time.time()))
    if not rows:
        raise InputError(f"no entry of {asked.store.url} has answers that can be attacked")
    if not asked.as_json:
        _wide().print(told(rows))
    asked.write("membership", rows)


def _black_box_entries(asked: _Asked) -> list[Entry]:
    """The entries of the database, references left out.

    Raises:
        InputError: there are none.
    """
    from harness.leaderboard.rank import rank  # noqa: PLC0415

    track = asked.track
    ranking = rank(asked.store, track.name, track.fingerprint, track.planned, track.ranks)
    entries = [each for each in (*ranking.entries, *ranking.elsewhere) if not each.white_box]
    if not entries:
        raise InputError(
            f"no entry on track {track.name} in this database, where trials do not count; run: harness evaluate "
            f"submissions/manual --track {track.name}"
        )
    return entries


def _stored(asked: _Asked) -> None:
    """What the entries of a database were given, sent and give away."""
    from harness.evaluation.preparation import source_of  # noqa: PLC0415
    from harness.leaderboard.disclosure import disclosure, records, table  # noqa: PLC0415
    from harness.results.observations import told  # noqa: PLC0415

    track, source = asked.track, source_of(asked.track, asked.overrides)
    found = [disclosure(asked.store, each, track, source) for each in _black_box_entries(asked)]
    known = told(asked.store)
    if not asked.as_json:
        _wide().print(
            table(found, f"track {track.name}: what entries were given, sent and give away; nothing is ranked", known)
        )
    asked.write("stored", records(found, known))


def _policies(asked: _Asked, policies: list[Path]) -> None:
    """Weigh policies, and print and write what they cost and prevent."""
    from harness.leaks import tables  # noqa: PLC0415
    from harness.leaks.policy import SOLVERS, records, weigh  # noqa: PLC0415 - torch
    from harness.leaks.solvers import solver  # noqa: PLC0415

    def stealing(policy: str, rows: int, of: int) -> None:
        if rows >= of:
            err.print(f"the attack behind policy {policy} has spent {rows:,} rows", markup=False)

    chosen = [solver(text) for text in asked.solvers or SOLVERS]
    with _progress() as progress:
        found = weigh(asked.track, asked.overrides, asked.store, policies, chosen, progress, stealing)
    rows = records(found)
    if not asked.as_json:
        _wide().print(tables.policies(rows))
    asked.write("policies", rows)
    if asked.folder is None:
        return
    try:
        from harness.leaks.chart import draw  # noqa: PLC0415 - matplotlib
    except ModuleNotFoundError as lacking:
        err.print(f"no chart, {lacking.name} is not installed", markup=False)
        return
    draw(rows, asked.folder / "policies.svg")
    note(f"written: {asked.folder / 'policies.svg'}")


def _progress() -> LiveProgress | PlainProgress:
    """The progress of cells, as `harness evaluate` shows it."""
    from harness.evaluation.progress import LiveProgress, PlainProgress  # noqa: PLC0415 - torch

    return LiveProgress(err, None) if err.is_terminal else PlainProgress(err, None)


def _wide() -> Console:
    """Tables are not broken where no terminal says how wide it is."""
    return Console(highlight=False, width=None if out.is_terminal else 130)
