"""Compare optimizers on language-model objectives: `bench`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli.console import err, note, open_store, out, print_json, say
from harness.cli.options import NOTHING, AsJson, StoreUrl, TrackName, overriding
from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.overrides import Overrides
    from harness.problems.bench import Job
    from harness.problems.trials import Trial

commands = typer.Typer()
STORE = "results/bench.db"
_LOGS = ("coco", "ioh")


@commands.command(
    epilog="Examples:\n\n"
    "  harness bench --optimizers random,cma --tasks sst2 --dims 10 --seeds 1 --budget 40\n\n"
    "  harness bench --optimizers cma,nevergrad:NGOpt,scipy:Powell,random --tasks sst2,qqp --splits 1,2 "
    "--dims 10,50 --seeds 1,2 --budget 100\n\n"
    "  harness bench --optimizers pymoo:DE,optuna:TPESampler --dims 10,20 --logs coco,ioh\n\n"
    "  python -m cocopp results/bench/coco/cma results/bench/coco/random"
)
@overriding("data", "model", "backend", "endpoint", "served_model", "concurrency")
def bench(
    optimizers: Annotated[
        str,
        typer.Option(
            "--optimizers",
            help="LIBRARY or LIBRARY:METHOD, commas between: random, cma, nevergrad:NGOpt, scipy:Powell, pymoo:DE, "
            "optuna:TPESampler and their like (docs/optimizers.md).",
        ),
    ] = "random,cma",
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks of the track, commas between.")] = "sst2",
    splits: Annotated[str, typer.Option("--splits", help="Numbers of few-shot splits, commas between.")] = "1",
    dims: Annotated[str, typer.Option("--dims", help="Numbers of coordinates of the prompt, commas between.")] = "10",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of problem and optimizer, commas between.")] = "1",
    budget: Annotated[
        int | None, typer.Option("--budget", help="Calls of each trial; default the track's.", min=1)
    ] = None,
    space: Annotated[str, typer.Option("--space", help="input, deep, words or mixed.")] = "input",
    loss: Annotated[str, typer.Option("--loss", help="cross_entropy, hinge or negative_accuracy.")] = "cross_entropy",
    minibatch: Annotated[
        int | None, typer.Option("--minibatch", help="Training texts of one evaluation: a noisy loss.", min=1)
    ] = None,
    track: TrackName = "mini",
    overrides: Overrides = NOTHING,
    logs: Annotated[str, typer.Option("--logs", help="coco, ioh, both with a comma between, or none.")] = "coco",
    folder: Annotated[Path, typer.Option("--out", help="Where tables and logs are written.")] = Path("results/bench"),
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Run optimizers on tasks x splits x dims x seeds, and rank them by training loss and by hidden test score.

    A trial spends its budget on one problem (`harness.problem`), metered like a submission. Finished trials are never
    run again: the same command takes up where it was. It writes trials.csv, ranking.csv and the logs.
    """
    wanted = [name for name in _listed("--logs", logs) if name != "none"]
    if set(wanted) - set(_LOGS):
        raise InputError(f"--logs {logs}: coco, ioh, both with a comma between, or none is needed")
    from harness.leaderboard.table import write_records  # noqa: PLC0415
    from harness.problems.bench import Suite, run  # noqa: PLC0415
    from harness.problems.logs import write_coco, write_ioh  # noqa: PLC0415
    from harness.problems.objective import LOWER_BOUND  # noqa: PLC0415
    from harness.problems.spec import Spec  # noqa: PLC0415
    from harness.problems.trials import ranking  # noqa: PLC0415

    suite = Suite(
        _listed("--optimizers", optimizers), _listed("--tasks", tasks), _numbers("--splits", splits),
        _numbers("--dims", dims), _numbers("--seeds", seeds), budget, Spec(space, loss=loss, minibatch=minibatch),
        track, overrides,
    )  # fmt: skip
    suite.check()
    results, lines = open_store(store), _Lines()
    try:
        trials = run(suite, results, lines)
    except KeyboardInterrupt:
        err.print("interrupted; finished trials are kept, and the same command takes up where it was", soft_wrap=True)
        raise typer.Exit(130) from None
    finally:
        results.close()
    rows = ranking(trials)
    write_records([trial.row() for trial in trials], folder / "trials.csv")
    write_records(rows, folder / "ranking.csv")
    written = ["trials.csv", "ranking.csv"]
    if trials and "coco" in wanted:
        write_coco(folder / "coco", trials, LOWER_BOUND[loss])
        written.append("coco/")
    if trials and "ioh" in wanted:
        write_ioh(folder / "ioh", trials)
        written.append("ioh/")
    if as_json:
        print_json({"ranking": rows, "trials": [trial.row() for trial in trials], "failed": lines.lost})
    else:
        out.print(_table(rows))
        for line in _differences(rows):
            say(line)
        say(f"written to {folder}: {', '.join(written)}; ledgers are in {store}")
    if lines.lost:
        raise typer.Exit(1)


class _Lines:
    """A line on standard error for each trial."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def began(self, number: int, of: int, job: Job) -> None:
        """See `harness.problems.bench.Progress`."""
        if err.is_terminal:
            err.print(f"  [{number}/{of}] {job} …", markup=False, soft_wrap=True, end="\r")

    def ended(self, number: int, of: int, job: Job, trial: Trial, *, again: bool) -> None:
        """See `harness.problems.bench.Progress`."""
        what = "finished before" if again else f"{trial.seconds:.1f} s"
        numbers = f"train loss {trial.loss:.4f}  test {100 * trial.test_score:.1f}"
        note(f"  [{number}/{of}] {job}  {numbers}  {trial.evaluations} evaluations  {what}")

    def failed(self, number: int, of: int, job: Job, problem: str) -> None:
        """See `harness.problems.bench.Progress`."""
        self.lost.append(f"{job}: {problem}")
        err.print(f"  [{number}/{of}] {job}  [red]failed[/red]: {escape(problem)}", soft_wrap=True)


def _table(rows: Sequence[dict[str, object]]) -> Table:
    """The ranking, for a terminal."""
    table = Table(box=None, pad_edge=False)
    names = {
        "optimizer": "optimizer", "rank_by_train_loss": "loss rank", "rank_by_test_score": "test rank",
        "train_loss": "train loss", "train_score": "train", "test_score": "test", "gap": "gap", "problems": "problems",
    }  # fmt: skip
    for name in names.values():
        table.add_column(name, justify="left" if name == "optimizer" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(name, row[name]) for name in names))
    return table


def _differences(rows: Sequence[dict[str, object]]) -> list[str]:
    """A line for each optimizer but the first: how far it is behind the first one, with intervals."""
    lines = [
        f"behind {rows[0]['optimizer']}: {row['optimizer']} by {_behind('loss_behind', row)} of train loss, "
        f"{_behind('test_behind', row)} points of test score"
        for row in rows[1:]
    ]
    if lines and math.isnan(cast("float", rows[0]["loss_behind_low"])):
        return [*lines, "no intervals: they need two pairs of task and split, for instance --splits 1,2"]
    return (
        [*lines, "[95 % intervals for all pairs of optimizers together, over pairs of task and split]"] if lines else []
    )


def _behind(name: str, row: dict[str, object]) -> str:
    """A difference to the first row, with its interval if there is one; test scores in points."""
    scale, digits = (100, 1) if name == "test_behind" else (1, 4)
    mean, low, high = (scale * cast("float", row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    bounds = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{bounds}"


def _shown(name: str, value: object) -> str:
    """A cell of the table: scores in points."""
    if not isinstance(value, float):
        return escape(str(value))
    if math.isnan(value):
        return "-"
    if name in {"train_score", "test_score", "gap"}:
        return f"{100 * value:.1f}"
    return f"{value:.4f}" if name == "train_loss" else f"{value:.2f}"


def _listed(option: str, text: str) -> tuple[str, ...]:
    """Values with commas between.

    Raises:
        InputError: one of them is empty.
    """
    found = tuple(each.strip() for each in text.split(","))
    if not all(found):
        raise InputError(f"{option} {text!r}: values with commas between are needed")
    return found


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers with commas between.

    Raises:
        InputError: one of them is no number.
    """
    found = _listed(option, text)
    if not all(each.isdecimal() for each in found):
        raise InputError(f"{option} {text!r}: whole numbers with commas between are needed")
    return tuple(map(int, found))
