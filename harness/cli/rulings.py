"""What an organiser decides about entries: `withdraw`, `cap`, `freeze`, and `rulings`, which lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.again import command_line
from harness.cli.console import STORE, existing_store, open_store, print_json, say
from harness.cli.formats import Form, export
from harness.cli.options import AsJson, StoreUrl, TasksDir, TrackName
from harness.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from harness.results.rulings import Kind
    from harness.results.store import Store

commands = typer.Typer()
Reason = Annotated[str, typer.Option("--reason", help="Why; it is stored, and shown with the ranking.", metavar="TEXT")]
Undo = Annotated[bool, typer.Option("--undo", help="End it again; this is a ruling as well, with its own reason.")]
Which = Annotated[
    str | None,
    typer.Argument(
        help="As the leaderboard shows it, TEAM/NAME\\[OPTIONS]; without the options, with any. Default: every entry.",
        metavar="ENTRY",
    ),
]


@commands.command(
    epilog="Examples:\n\n"
    '  harness withdraw mysolver --reason "hard-codes test texts"\n\n'
    '  harness withdraw alice/mysolver --track kit --reason "asked for by the team"\n\n'
    '  harness withdraw mysolver --undo --reason "it was another team\'s"'
)
def withdraw(
    entry: Annotated[
        str,
        typer.Argument(
            help="As the leaderboard shows it, TEAM/NAME\\[OPTIONS]; without the options, with any.", metavar="ENTRY"
        ),
    ],
    reason: Reason,
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    undo: Undo = False,
    store: StoreUrl = STORE,
) -> None:
    """Take an entry out of the ranking. It is shown struck through, with the reason, and no new run of it is begun.

    Nothing is deleted: the ruling is one more fact in the results database, and audit and merge know it.
    """
    from harness.tracks.track import load_track  # noqa: PLC0415

    results, name = existing_store(store), load_track(track, tasks_dir).name
    known = {run.key.label for run in results.runs() if run.key.track == name}
    if entry not in known | {label.partition("[")[0] for label in known}:
        there = f"it has {', '.join(sorted(known))}" if known else "it has no runs of that track"
        alike = did_you_mean(entry, known)
        raise InputError(f"{results.url} has no entry {entry!r}{alike} on track {name}; {there}")
    _rule(results, "withdraw", name, entry, reason, undo)
    shown = "is ranked again" if undo else "is withdrawn"
    say(f"{entry} {shown} on track {name}; see {command_line('leaderboard', track=track, store=store)}")


@commands.command(
    epilog="Examples:\n\n"
    '  harness cap 5 --reason "five tries each"\n\n'
    '  harness cap 10 alice/mysolver --reason "the machine failed them"\n\n'
    '  harness cap --undo --reason "the test set is private now"'
)
def cap(
    runs: Annotated[
        int | None, typer.Argument(help="Runs of one team and name that may be begun.", min=0, metavar="RUNS")
    ] = None,
    entry: Which = None,
    reason: Reason = "",
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    undo: Undo = False,
    store: StoreUrl = STORE,
) -> None:
    """Limit how many runs an entry may have on a track, whatever their code and options.

    Runs that were begun before can be finished. Of several caps that fit an entry, the newest holds.
    """
    from harness.tracks.track import load_track  # noqa: PLC0415

    if (runs is None) != undo:
        raise InputError("name the number of runs, e.g. harness cap 5 --reason TEXT; or end a cap with --undo")
    results, name = open_store(store), load_track(track, tasks_dir).name
    _rule(results, "cap", name, entry or "", reason, undo, runs)
    who = entry or "every entry"
    say(f"{who} may have {'any number of' if undo else f'at most {runs:,}'} runs on track {name}")


@commands.command(
    epilog="Examples:\n\n"
    '  harness freeze --reason "the deadline has passed"\n\n'
    '  harness freeze alice/mysolver --reason "under review"'
)
def freeze(
    entry: Which = None,
    reason: Reason = "",
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    undo: Undo = False,
    store: StoreUrl = STORE,
) -> None:
    """Let no new run of an entry, or of any, be begun on a track. Runs that were begun before can be finished."""
    from harness.tracks.track import load_track  # noqa: PLC0415

    results, name = open_store(store), load_track(track, tasks_dir).name
    _rule(results, "freeze", name, entry or "", reason, undo)
    say(f"{entry or 'every entry'} is {'no longer frozen' if undo else 'frozen'} on track {name}")


@commands.command()
def rulings(store: StoreUrl = STORE, form: Form = None, as_json: AsJson = False) -> None:
    """List what was decided about entries, oldest first: withdrawn, capped and frozen ones, with the reasons."""
    import dataclasses  # noqa: PLC0415

    from harness.leaderboard.terminal import day  # noqa: PLC0415

    found = existing_store(store).rulings()
    if form is not None:
        export("Rulings", [dataclasses.asdict(each) for each in found], form, "rulings")
        return
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
        return
    for each in found:
        number = "" if each.number is None else f" {each.number:,}"
        say(f"{day(each.made)}  {each.track}  {each.kind}{number}  {each.entry or 'every entry'}: {each.reason}")
    if not found:
        say("no rulings")


def _rule(
    results: Store, kind: Kind, track: str, entry: str, reason: str, undo: bool, number: int | None = None
) -> None:
    """Append a ruling, or its opposite.

    Raises:
        InputError: the same holds already, or there is nothing to end, or there is no reason.
    """
    from harness.results.rulings import OPPOSITE, add, in_force  # noqa: PLC0415

    holds = in_force(results.rulings(), kind, track, entry)
    what = f"{kind} of {entry or 'every entry'} on track {track}"
    if undo and holds is None:
        raise InputError(f"{what}: there is none to end; harness rulings lists what holds")
    if not undo and holds is not None and (holds.entry, holds.number) == (entry, number):
        raise InputError(f"{what}: this holds already: {holds.reason}. End it with --undo")
    with results.changes() as connection:
        add(connection, OPPOSITE[kind] if undo else kind, track, entry, reason, number)
