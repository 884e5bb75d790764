"""What answers that change weights forget: `forget`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli.complete import complete_runs, complete_tasks
from harness.cli.console import STORE, existing_store, note, print_json, say, status, whole
from harness.cli.options import NOTHING, REPLAYED, AsJson, StoreUrl, TasksDir, TrackName, overriding
from harness.errors import AnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.forgetting import Measure
    from harness.evaluation.overrides import Overrides
    from harness.results.forgetting import Forgotten
    from harness.results.records import Run, StoredCell
    from harness.results.store import Store

commands = typer.Typer()


@commands.command(
    epilog="Examples:\n\n"
    "  harness forget bitfit_es\n\n"
    "  harness forget lora_es adapter_es --texts 100 --passages 100\n\n"
    "  harness forget 6ea652ca --task sst2 --split 1 --text wikipedia.txt"
)
@overriding(*REPLAYED, helps=dict.fromkeys(("test_data", "model", "p0"), "As the run had it."))
def forget(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Ids of runs, their beginnings, or entries, whose newest run is taken.",
            metavar="RUN...",
            autocompletion=complete_runs,
        ),
    ],
    task: Annotated[
        str | None, typer.Option("--task", help="Only cells of this task.", autocompletion=complete_tasks)
    ] = None,
    split: Annotated[int | None, typer.Option("--split", help="Only cells of this split.")] = None,
    texts: Annotated[
        int, typer.Option("--texts", help="Test texts of each other task, at most; drawn by --draw.", min=1)
    ] = 200,
    passages: Annotated[
        int, typer.Option("--passages", help="Passages, at most, of which one word each is masked.", min=1)
    ] = 200,
    text: Annotated[
        Path | None,
        typer.Option("--text", help="Plain text, one passage a line; default the test texts of the other tasks."),
    ] = None,
    draw: Annotated[int, typer.Option("--draw", help="Seed of the drawn texts and words.", min=0)] = 0,
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Measure what answers that change weights do to the other tasks and to the model's own masked words.

    For each finished cell the change of weights is taken out of the stored answer. The other tasks' bare templates are
    scored under it, and so is the cross-entropy of masked words. Both are compared with the published weights, on the
    same texts and words. The facts are stored in the database, and the report has a column for them. What is stored
    already is not measured again. A reference has no stored weights, so it cannot be measured.
    """
    from harness.evaluation import forgetting  # noqa: PLC0415 - torch, as the next
    from harness.results.finding import find_run  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen, given = load_track(track, tasks_dir), [] if text is None else forgetting.read_passages(text)
    with contextlib.closing(existing_store(store)) as results:
        found_runs = [find_run(results, name, chosen.name) for name in dict.fromkeys(runs)]
        every = {run.id: _cells(results, run, task, split) for run in found_runs}
        flat = [cell for cells in every.values() for cell in cells]
        for run in found_runs:
            forgetting.check_stored(run, every[run.id])
        sizes = forgetting.Sizes(texts, passages, draw)
        choices = overrides.repeating(found_runs[0].key, flat, chosen)
        measure = forgetting.Measure(forgetting.in_format(chosen, flat), choices, results, sizes, given)
        for run in found_runs:
            forgetting.check_model(run, measure)
        facts, without = _measured(measure, [(run, cell) for run in found_runs for cell in every[run.id]])
    rows = forgetting.records(facts, {run.id: run.key.label for run in found_runs})
    if as_json:
        print_json({"track": chosen.name, "forgetting": rows, "without": without})
        return
    if facts:
        whole(_table(facts, {run.id: run.key.label for run in found_runs}))
    for line in without:
        say(line)


def _cells(results: Store, run: Run, task: str | None, split: int | None) -> list[StoredCell]:
    return [cell for cell in results.cells(run.id) if task in {None, cell.task} and split in {None, cell.split}]


def _measured(measure: Measure, cells: Sequence[tuple[Run, StoredCell]]) -> tuple[list[Forgotten], list[str]]:
    """Facts of cells, and lines about cells without any."""
    facts, without = [], []
    for n, (run, cell) in enumerate(cells, start=1):
        place = f"{run.key.label} {cell.task}/{cell.split}"
        with status(f"[{n}/{len(cells)}] {place}", keep=True) as say_now:
            try:
                fact = measure.of_cell(run, cell, say_now)
            except AnswerError as problem:
                without.append(f"{place}: {problem}")
                continue
        if fact is None:
            without.append(f"{place}: its answer changes no weights; there is nothing to forget")
            continue
        facts.append(fact)
        line = f"other tasks {100 * fact.lost:+.1f}, masked loss {fact.masked:+.3f}"
        note(f"  [{n}/{len(cells)}] {place}: {line}")
    return facts, without


def _table(facts: Sequence[Forgotten], names: dict[str, str]) -> Table:
    """A row for each cell, and the mean of each entry."""
    from harness.results.forgetting import means  # noqa: PLC0415

    tasks = sorted({task for fact in facts for task in fact.before})
    title = "bare templates of the other tasks and masked words, under changed weights"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("tuned on")
    for column in (*tasks, "other tasks", "masked loss"):
        table.add_column(column, justify="right")
    for run in dict.fromkeys(fact.run for fact in facts):
        own = [fact for fact in facts if fact.run == run]
        for fact in own:
            scores = [
                f"{100 * fact.before[task]:.1f} > {100 * fact.after[task]:.1f}" if task in fact.before else ""
                for task in tasks
            ]
            masked = f"{fact.masked_before:.3f} > {fact.masked_after:.3f}"
            table.add_row(escape(f"{names[run]} {fact.task}/{fact.split}"), *scores, f"{100 * fact.lost:+.1f}", masked)
        lost, masked_more = means(own)
        table.add_row(escape(f"{names[run]}, mean"), *[""] * len(tasks), f"{100 * lost:+.1f}", f"{masked_more:+.3f}")
    return table
