"""Results databases: `merge`, `audit`, `replay`, `migrate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import CORRECTED, STORE, err, existing_store, open_store, out, print_json, say
from harness.cli.options import (
    NOTHING,
    REPLAYED,
    AsJson,
    DataDir,
    Labels,
    StoreUrl,
    TasksDir,
    TrackName,
    overriding,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.evaluation.overrides import Overrides

commands = typer.Typer()


@commands.command(
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
    from harness.errors import counted  # noqa: PLC0415
    from harness.results.merge import merge as merged  # noqa: PLC0415

    for source in sources:
        existing_store(source).close()  # all are there before anything is merged
    target, brought = open_store(into), []
    for source in sources:
        given = existing_store(source)
        try:
            brought.append(merged(given, target))
        finally:
            given.close()
        if not as_json:
            b = brought[-1]
            agreeing = f"; {b.agreeing:,} it had with the same result" if b.agreeing else ""
            added = counted(b.cells, "cell"), counted(b.attempts, "attempt"), counted(b.queries, "query", "queries")
            say(f"{b.source}: {', '.join(added)} added{agreeing}")
    target.close()
    if as_json:
        print_json([dataclasses.asdict(each) for each in brought])


@commands.command(
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
    tasks_dir: TasksDir = None,
    data: DataDir = None,
    labels: Labels = CORRECTED,
    expect: Annotated[
        str | None, typer.Option("--expect", help="The digest, or how it begins, that was published.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a results database: every row, sum and checksum; scores are recomputed from predictions.

    What was changed is named, and the exit code is 1. The digest of the whole may be published, and compared later.
    """
    from harness.errors import counted  # noqa: PLC0415
    from harness.leaderboard.published import differences  # noqa: PLC0415
    from harness.leaderboard.rank import rank  # noqa: PLC0415
    from harness.results.at_hand import data_here, labels_at_hand  # noqa: PLC0415
    from harness.results.audit import audit as audited  # noqa: PLC0415
    from harness.results.audit import summary  # noqa: PLC0415
    from harness.tracks.examples import source_at  # noqa: PLC0415
    from harness.tracks.track import load_track, track_tasks  # noqa: PLC0415

    chosen, results = load_track(track, tasks_dir), existing_store(store, labels)
    source = source_at("files" if chosen.data.source == "files" else "embedded", data)
    found = audited(results, labels_at_hand(track_tasks(chosen).values(), source), data_here(chosen, source))
    wrong, differ = [f"{f.table}: {f.row}: {f.fact}" for f in found.findings], []
    if csv_file is not None:
        ranking = rank(results, chosen.name, chosen.fingerprint, chosen.planned, chosen.ranks, prices=chosen.prices)
        differ += [f"{csv_file}: {line}" for line in differences(csv_file, ranking)]
    if expect is not None and (not expect or not found.digest.startswith(expect.lower())):
        differ.append(f"the digest of the database is {found.digest}; {expect} was expected")
    if as_json:
        print_json(dataclasses.asdict(found) | {"wrong": wrong + differ})
    else:
        for line in [*wrong, *differ, *summary(found, differs=bool(differ))]:
            say(line)
    if wrong or differ:
        counts = [counted(len(wrong), "finding")] * bool(wrong)
        counts += [f"{counted(len(differ), 'difference')} from what was published"] * bool(differ)
        err.print(f"[red]error:[/red] {', '.join(counts)}", soft_wrap=True)
        raise typer.Exit(1)


@commands.command(
    epilog="Examples:\n\n"
    "  harness replay ajo --sample 2\n\n"
    "  harness replay 6ea652cac88bef21 --track kit --data ../kit --submission submissions/bbt"
)
@overriding(*REPLAYED, helps=dict.fromkeys(("test_data", "model", "p0"), "As the run had it."))
def replay(
    run: Annotated[str, typer.Argument(help="Id of a run, its beginning, or an entry's name.", metavar="RUN")],
    submission: Annotated[
        Path | None, typer.Option("--submission", help="The folder that ran; default submissions/<name>.")
    ] = None,
    sample: Annotated[int | None, typer.Option("--sample", help="This many cells, drawn at random.", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.", min=0)] = 0,
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Run a stored run again and compare: queries with the ledger, answers, predictions.

    Nothing is written into the database. The exit code is 1 where a cell is not reproduced.
    """
    import numpy as np  # noqa: PLC0415

    from harness.cli.tables import replay_table  # noqa: PLC0415
    from harness.evaluation import replay as replays  # noqa: PLC0415
    from harness.evaluation.progress import PlainProgress  # noqa: PLC0415
    from harness.results.finding import find_run  # noqa: PLC0415
    from harness.sandbox import submission as submissions  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    results = existing_store(store)
    found_run = find_run(results, run)
    cells = replays.sampled(results, found_run.id, sample, np.random.default_rng(seed))
    chosen = load_track(track, tasks_dir)
    choices = replays.choices_of(found_run.key, cells, chosen, overrides)
    folder = submissions.find(submission or Path("submissions") / submissions.folder_of(found_run.key.entry))
    with PlainProgress(err) as progress:
        found = replays.replay(results, found_run, cells, chosen, choices, folder, progress)
    if as_json:
        print_json(dataclasses.asdict(found) | {"verdict": found.verdict})
    else:
        out.print(replay_table(found))
        for line in (*found.identity, f"run {found.run} of {found.entry}: {found.verdict}"):
            say(line)
    if found.verdict == "not reproduced":
        raise typer.Exit(1)


@commands.command()
def migrate(store: StoreUrl = STORE) -> None:
    """Bring a results database of an older version up to date; the older file is kept beside it."""
    from harness.results import migrate as migration  # noqa: PLC0415

    if "://" in store:
        raise InputError(
            "migrate takes the path of a SQLite file; PostgreSQL has had the present version from the start, and "
            "what a migrated file holds comes into it with harness merge"
        )
    if not migration.needed(Path(store)):
        say(f"{store} is of version {migration.TO} already; nothing to do")
        return
    kept = migration.migrate(Path(store))
    say(f"{store} is of version {migration.TO}; the older file is {kept}. Check it: harness audit --store {store}")
