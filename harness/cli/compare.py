"""Two entries beside each other: `compare`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from harness.cli.complete import complete_entries
from harness.cli.console import CORRECTED, STORE, existing_store, out, print_json, say
from harness.cli.formats import Form, export
from harness.cli.options import AsJson, Labels, Organiser, StoreUrl, TasksDir, TrackName
from harness.errors import InputError

commands = typer.Typer()


@commands.command()
def compare(
    first: Annotated[
        str, typer.Argument(help="Entry of the leaderboard.", metavar="FIRST", autocompletion=complete_entries)
    ],
    second: Annotated[
        str,
        typer.Argument(help="The entry it is compared with.", metavar="SECOND", autocompletion=complete_entries),
    ],
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    store: StoreUrl = STORE,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Compare runs without isolation, too, among themselves.")
    ] = False,
    labels: Labels = CORRECTED,
    organiser: Organiser = False,
    form: Form = None,
    as_json: AsJson = False,
) -> None:
    """Show where two entries differ, by task, split and test text, with intervals and p-values.

    Both must be complete, and in one division. Intervals and p-values are adjusted for all pairs of entries, as the
    ranks are: two entries are told apart here exactly where the leaderboard tells them apart.
    """
    from harness.leaderboard.compare import compare as compared  # noqa: PLC0415
    from harness.leaderboard.compare import comparison_record, comparison_rows, comparison_table  # noqa: PLC0415
    from harness.leaderboard.kept_back import check_public  # noqa: PLC0415
    from harness.leaderboard.rank import rank  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if first == second:
        raise InputError(f"compare {first} {second}: name two different entries")
    chosen = load_track(track, tasks_dir)
    check_public(chosen, organiser=organiser)
    results = existing_store(store, labels)
    ranking = rank(results, chosen.name, chosen.fingerprint, chosen.planned, chosen.ranks, allow_unsandboxed)
    found = compared(ranking, first, second)
    if form is not None:
        export(f"{first} minus {second}, track {chosen.name}", comparison_rows(found), form, "comparison")
        return
    if as_json:
        print_json(comparison_record(found))
        return
    for line in results.labels_shown(chosen.name):
        say(line)
    Console(highlight=False, width=None if out.is_terminal else 120).print(comparison_table(found))
