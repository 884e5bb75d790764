"""What leaks through the black box, measured: `leaks`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cli.console import err, open_store, out, print_json, say
from harness.cli.options import NOTHING, AsJson, TasksDir, TrackName, overriding
from harness.errors import InputError
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Evaluation
    from harness.leaks.extraction import Extraction
    from harness.results.store import Store
    from harness.tracks.track import Track

commands = typer.Typer()
What = Literal["layer"]
ATTACK = "What the attack may spend"
DEFENCES = "What an organiser's defences cost"
WRITTEN = "What is written"


@commands.command(
    epilog="Examples:\n\n"
    "  harness leaks --task sst2 --split 1\n\n"
    "  harness leaks --policy defences.toml --policy stricter.toml --task sst2 --out leaks\n\n"
    "  harness leaks layer --track mini-causal --task sst2 --split 1 --rows 200 --json\n\n"
    "docs/leaks.md says in plain words what is stolen, what it costs, and which defences close it."
)
@overriding(
    *("data", "model", "staged", "device", "backend", "endpoint", "served_model", "concurrency"),
    *("tasks", "splits", "calls", "seed"),
    helps={"seed": "Draws the words and texts of an attack."},
)
def leaks(
    what: Annotated[
        What,
        typer.Argument(help="layer: how much of the model's last layer its logits give away.", metavar="WHAT"),
    ] = "layer",
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", help="Rows to spend; default a quarter more than the model's width.", rich_help_panel=ATTACK
        ),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            "--words", help="Words to ask about; default four times the width.", min=2, rich_help_panel=ATTACK
        ),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            "--policy",
            help="A file with the fields of a track's \\[defences] table: what it costs and prevents; repeatable.",
            rich_help_panel=DEFENCES,
        ),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            "--solver",
            help="With --policy: whose points are compared, FOLDER or FOLDER:NAME=VALUE; repeatable. Default manual, "
            "dect and house:search=false.",
            rich_help_panel=DEFENCES,
        ),
    ] = None,
    url: Annotated[
        str, typer.Option("--store", help="Results database of the runs behind policies.", rich_help_panel=DEFENCES)
    ] = "results/leaks.db",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write tables (CSV) and charts to.", rich_help_panel=WRITTEN)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what leaks through the black box, by attacks that any submission could make.

    [bold]layer[/bold] steals the last layer (Carlini et al., ICML 2024): it asks for the logits of many words on random
    texts, and finds the hidden width and the head's subspace in them. Every row is metered and written to a ledger like
    a submission's. The table says, for each number of rows, the width that was found, how much of unseen logits lies
    outside of the stolen subspace, and how often the likeliest word is foretold.

    [bold]--policy FILE[/bold] evaluates an organiser's defences like a submission: it runs solvers and the attack on
    the last layer with and without them, and sets points lost against leakage prevented.
    """
    if policy:
        _policies(load_track(track, tasks_dir), overrides, policy, solver, url, folder, as_json)
        return
    if solver:
        raise InputError("--solver goes with --policy: it says whose points a policy costs")
    from harness.evaluation.run import Evaluation  # noqa: PLC0415 - torch
    from harness.results.store import Store  # noqa: PLC0415

    with contextlib.closing(Store("sqlite://")) as store:
        evaluation = Evaluation(load_track(track, tasks_dir), overrides, store)
        if what == "layer":
            _layer(evaluation, _once(evaluation, overrides), store, overrides.seed, rows, words, folder, as_json)


def _once(evaluation: Evaluation, overrides: Overrides) -> list[Cell]:
    """The chosen cells; the first split of each task where no split is chosen, for an attack needs no examples."""
    if overrides.splits:
        return list(evaluation.cells)
    return list({cell.task.name: cell for cell in reversed(evaluation.cells)}.values())[::-1]


def _layer(
    evaluation: Evaluation,
    cells: list[Cell],
    store: Store,
    seed: int,
    rows: int | None,
    words: int | None,
    folder: Path | None,
    js: bool,
) -> None:
    """Steal the last layer on each chosen cell."""
    from harness.leaderboard.table import write_records  # noqa: PLC0415
    from harness.leaks.extraction import extract  # noqa: PLC0415 - torch

    found = []
    for cell in cells:
        with err.status(f"{cell.task.name}/{cell.split}") as status:
            made = extract(
                evaluation, cell, store, rows=rows, words=words, seed=seed,
                progress=lambda n, of: status.update(f"{cell.task.name}/{cell.split}: {n:,} of {of:,} rows"),  # noqa: B023
            )  # fmt: skip
        found.append(made)
        if not js:
            _show(made)
    records = [row for each in found for row in each.records()]
    if js:
        print_json({"track": evaluation.track.name, "model": evaluation.lm.name, "layer": records})
    if folder is not None:
        if not records:
            raise InputError(f"--out {folder}: nothing was given to the attack, so there is no table to write")
        write_records(records, folder / "layer.csv")
        err.print(f"written: {folder / 'layer.csv'}", markup=False, soft_wrap=True)


def _policies(
    track: Track,
    overrides: Overrides,
    policies: list[Path],
    solvers: list[str] | None,
    url: str,
    folder: Path | None,
    js: bool,
) -> None:
    """Weigh policies, and print and write what they cost and prevent."""
    from harness.evaluation.progress import LiveProgress, PlainProgress  # noqa: PLC0415 - torch, as the next
    from harness.leaderboard.table import write_records  # noqa: PLC0415
    from harness.leaks.policy import SOLVERS, records, solver, weigh  # noqa: PLC0415

    chosen = [solver(text) for text in solvers or SOLVERS]
    progress = LiveProgress(err, None) if err.is_terminal else PlainProgress(err, None)

    def stealing(policy: str, rows: int, of: int) -> None:
        if rows >= of:
            err.print(f"the attack behind policy {policy} has spent {rows:,} rows", markup=False)

    with contextlib.closing(open_store(url)) as store, progress:
        found = weigh(track, overrides, store, policies, chosen, progress, stealing)
    rows = records(found)
    if js:
        print_json({"track": track.name, "policies": rows})
    else:
        _wide().print(_weighed(rows))
    if folder is None:
        return
    write_records(rows, folder / "policies.csv")
    try:
        from harness.leaks.chart import draw  # noqa: PLC0415 - matplotlib

        draw(rows, folder / "policies.svg")
    except ModuleNotFoundError as lacking:
        err.print(f"written: {folder / 'policies.csv'}; no chart, {lacking.name} is not installed", markup=False)
        return
    err.print(f"written: {folder / 'policies.csv'} and policies.svg", markup=False, soft_wrap=True)


def _weighed(rows: list[dict[str, Any]]) -> Table:
    """The table of policies and solvers."""
    table = Table(title="what policies cost and prevent", title_justify="left")
    for name in ("policy", "solver", "points", "lost [95 %]", "failed cells", "last layer known", "prevented"):
        table.add_column(name, justify="left" if name in {"policy", "solver"} else "right")
    for row in rows:
        lost = "" if row["lost"] is None else _points(row["lost"], row["lost_low"], row["lost_high"])
        prevented = "—" if row["prevented"] is None else f"{100 * row['prevented']:.1f} %"
        table.add_row(
            row["policy"], escape(row["solver"]), f"{100 * row['average']:.1f}", escape(lost),
            f"{row['failed_cells']} of {row['cells']}", f"{100 * row['share_of_last_layer']:.1f} %", prevented,
        )  # fmt: skip
    return table


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _show(found: Extraction) -> None:
    """Print the curve of one cell and a line that sums it up."""
    last = found.last
    table = Table(title=f"{found.task}/{found.split}: the last layer, stolen by rows", title_justify="left")
    for name in ("rows", "calls", "width found", "gap", "subspace error", "R² of other words"):
        table.add_column(name, justify="right")
    table.add_column("top-1 agreement")
    for each in found.curve:
        table.add_row(
            f"{each.rows:,}", f"{each.calls:.2f}", str(each.width or "—"), f"{each.gap:,.1f}",
            f"{each.subspace_error:.2g}", f"{each.explained:.4f}", str(each.agreement),
        )  # fmt: skip
    if last is not None:
        _wide().print(table)
        said = f"the hidden width, {last.width}," if last.width == found.width else "no exact width"
        say(
            f"{found.rows_spent:,} rows, {found.calls_spent:.1f} of {found.calls_total:,} calls, gave {said} and the "
            f"logits of {last.words - last.known:,} other words on unseen texts with R² {last.explained:.6f}"
        )
    if found.refused:
        say(f"refused: {found.refused}")
    elif found.rows_spent < found.rows_wanted:
        say(f"the budget ended the attack: {found.rows_spent:,} of {found.rows_wanted:,} rows")


def _wide() -> Console:
    """Tables are not broken where no terminal says how wide it is."""
    return Console(highlight=False, width=None if out.is_terminal else 130)
