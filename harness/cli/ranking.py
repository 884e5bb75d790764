"""What the results say: `leaderboard`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harness.cli.again import command_line
from harness.cli.console import CORRECTED, STORE, existing_store, out, print_json, say, shown
from harness.cli.formats import export
from harness.cli.options import AsJson, Labels, Organiser, StoreUrl, TasksDir, TrackName
from harness.errors import InputError, StoreError
from harness.leaderboard.formats import Format, beside, format_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.uploads import Upload
    from harness.results.records import Run
    from harness.results.store import Store
    from harness.tracks.track import Track

commands = typer.Typer()


@commands.command()
def leaderboard(
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    store: StoreUrl = STORE,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write; its ending says the format: .csv (x.json and x-cells.csv go beside it), .json, .md, "
            ".tex, .html. Default: leaderboard/<track>.csv.",
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="Print the ranking in this format and nothing else; with --out, write it to that file."
        ),
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="What entries cost instead: time, memory, traffic; x-cost.csv beside x.csv.")
    ] = False,
    trials: Annotated[
        bool,
        typer.Option(
            "--trials", help="List the trials instead: runs in which choices of the track were replaced, never ranked."
        ),
    ] = False,
    levels: Annotated[
        bool, typer.Option("--levels", help="What each access level buys instead: its best entry, points per call.")
    ] = False,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Rank runs without isolation, too, among themselves.")
    ] = False,
    labels: Labels = CORRECTED,
    organiser: Organiser = False,
    usage: Annotated[
        bool,
        typer.Option("--usage", help="What each team has done instead: runs, today's, calls, time; for the organiser."),
    ] = False,
    freeze: Annotated[
        str | None,
        typer.Option(
            "--freeze",
            metavar="ENTRY",
            help="Freeze a reference in leaderboard/references.toml and do nothing else: `manual` becomes 0 and this "
            "entry 1 on the scale of areas and targets.",
        ),
    ] = None,
    freeze_power: Annotated[
        bool,
        typer.Option("--freeze-power", help="The same without a scale: freeze alone which leads the list can tell."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank what the database holds, by score and by efficiency, and write leaderboard/<track>.csv and .json.

    Scores are recomputed from stored predictions every time. Each entry, told by its team and name, counts with its
    newest run; "runs" says how often it was tried. The first line says who leads, by how much, and who ties for less.
    Below the table stands how large a lead must be to be seen, who queried test texts, and what was replaced or
    withdrawn. leaderboard/<track>-cells.csv has every cell at every mark of the budget.
    """
    from harness.leaderboard.rank import rank  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if form and as_json:
        raise InputError(f"--format {form} and --json: give one of them")
    views = {"cost": cost, "trials": trials, "levels": levels, "usage": usage}
    views |= {"freeze": freeze is not None, "freeze-power": freeze_power}
    _check_view([name for name, given in views.items() if given], out_file, form)
    chosen = load_track(track, tasks_dir)
    name = chosen.name
    path = out_file or Path("leaderboard") / f"{name}.csv"
    written_as = form or format_of(path)
    path = beside(path, "cost") if cost else path
    results = existing_store(store, labels)
    if trials:
        _trials(results, chosen, track, store, form, as_json)
        return
    ranking = rank(results, name, chosen.fingerprint, chosen.planned, chosen.ranks, allow_unsandboxed, chosen.prices)
    ranking = dataclasses.replace(ranking, labels=tuple(results.labels_shown(name)))
    hidden = not organiser and chosen.competition.public_at() != "scores"
    instead: dict[str, Callable[[], None]] = {
        "freeze": lambda: _freeze(ranking, freeze),
        "usage": lambda: _usage(results, name, as_json),
        "levels": lambda: _levels(ranking, as_json),
        "hidden": lambda: _public(ranking, chosen, as_json or form is not None),
    }
    frozen = freeze is not None or freeze_power
    wanted = {"freeze": frozen, "usage": usage, "levels": levels and not hidden, "hidden": hidden}
    asked = next((what for what, given in wanted.items() if given), None)
    if asked is not None:
        instead[asked]()
        return
    _show(results, ranking, chosen, _Asked(track, store, path, out_file is not None, form, written_as, cost, as_json))


def _check_view(views: list[str], out_file: Path | None, form: Format | None) -> None:
    """Refuse what would be ignored: two views at once, and a file or a format of a view that has none.

    Raises:
        InputError: with what to leave out.
    """
    if len(views) > 1:
        raise InputError(f"{', '.join(f'--{name}' for name in views)}: each is shown instead of the ranking; give one")
    for name in views:
        if out_file is not None and name != "cost":
            raise InputError(f"--out {out_file}: --{name} writes no such file; leave it out")
        if form is not None and name not in {"cost", "trials"}:
            raise InputError(f"--format {form}: --{name} is shown as a table or with --json; leave it out")


@dataclass(frozen=True)
class _Asked:
    """How a ranking is shown and written."""

    track: str
    """As it was given."""
    store: str
    path: Path
    named: bool
    """Whether the path was given."""
    form: Format | None
    written_as: Format
    cost: bool
    as_json: bool


def _show(results: Store, ranking: Ranking, chosen: Track, asked: _Asked) -> None:
    """Write a ranking to its files and print it."""
    from harness.leaderboard.uploads import uploads  # noqa: PLC0415

    name, path = chosen.name, asked.path
    uploaded = uploads(results, name, chosen.fingerprint, chosen.planned)
    # Files that list nothing must not replace good ones.
    listed = bool(ranking.entries or ranking.elsewhere or ranking.withdrawn)
    first = _first_run(asked.track, chosen, asked.store)
    if not (listed or ranking.left_out or uploaded):
        raise StoreError(f"no finished cell of track {name} in {shown(asked.store)}, nothing is written; run: {first}")
    if asked.form:
        _export(ranking, asked.form, path if asked.named else None, asked.cost)
        return
    wide = Console(highlight=False, width=None if out.is_terminal else 120)
    if asked.cost:
        _costs(ranking, path, asked.written_as, wide, asked.as_json)
        return
    files = _write(ranking, path, asked.written_as) if listed else []
    if asked.as_json:
        print_json(_for_machines(results, ranking, uploaded, chosen.rounding))
        return
    for line in (*chosen.competition.lines(), *chosen.defences.lines()):
        say(line)
    if not ranking.entries:
        say(f"no ranked runs on track {name} in {shown(asked.store)}; run: {first}")
    _print(results, ranking, uploaded, chosen, wide)
    say("\n".join([*_not_ranked(ranking, [] if listed else results.runs()), _written(listed, *(files or [path]))]))
    _draw(ranking)


def _levels(ranking: Ranking, as_json: bool) -> None:
    """Print what each access level buys."""
    from harness.leaderboard.levels import bought, level_records, level_table  # noqa: PLC0415

    found = bought(ranking)
    if as_json:
        print_json(level_records(found))
    elif not found:
        say(
            f"no entry has all cells of track {ranking.track}, and only complete entries are compared here. Run the "
            "missing cells, or a track file of your own with fewer tasks and splits (docs/endpoints.md)"
        )
    else:
        Console(highlight=False, width=None if out.is_terminal else 140).print(level_table(found, ranking.track))


def _usage(results: Store, track: str, as_json: bool) -> None:
    """Print what each team has done on a track."""
    from harness.leaderboard.usage import usage, usage_records, usage_table  # noqa: PLC0415

    found = usage(results, track)
    if as_json:
        print_json(usage_records(found))
    else:
        out.print(usage_table(found, track))


def _public(ranking: Ranking, chosen: Track, machines: bool) -> None:
    """Print what may be shown of a ranking while its scores are kept back; no file is written."""
    from harness.leaderboard.kept_back import public_lines, public_record  # noqa: PLC0415

    if machines:
        print_json(public_record(ranking, chosen))
        return
    for line in (*chosen.competition.lines(), *public_lines(ranking, chosen)):
        say(line)


def _trials(results: Store, chosen: Track, track: str, store: str, form: Format | None, as_json: bool) -> None:
    """Print the runs of a track in which choices of it were replaced."""
    from harness.leaderboard import trials  # noqa: PLC0415

    found = trials.tried(results, track=chosen.name, trials=True)
    if form is not None:
        export(f"Trials, track {chosen.name}", trials.records(found), form, "trials")
    elif as_json:
        print_json({"track": chosen.name, "trials": trials.records(found)})
    elif found:
        wide = Console(highlight=False, width=None if out.is_terminal else 150)
        wide.print(trials.table(found, f"trials on track {chosen.name}, never ranked", tracks=False))
        say(f"what happened in one: {command_line('log', found[-1].run.id[:8], store=store)}")
    else:
        data = ["--data", "DIR"] * (chosen.data.source == "kit")
        first = command_line("evaluate", "submissions/ajo", "--calls", 40, "--track", track, *data, store=store)
        say(f"no trial on track {chosen.name} in {shown(store)}; run one: {first}")


def _first_run(track: str, chosen: Track, store: str) -> str:
    """The command to type if a track has no runs yet."""
    data = ["--data", "DIR"] * (chosen.data.source == "kit")
    return command_line("evaluate", "submissions/ajo", "--track", track, *data, store=store)


def _export(ranking: Ranking, form: Format, path: Path | None, cost: bool) -> None:
    """Print the ranking, or what entries cost, in a format; with a path, write it there if it lists anything."""
    from harness.leaderboard.exports import exported  # noqa: PLC0415
    from harness.leaderboard.table import write_text  # noqa: PLC0415

    text = _cost_text(ranking, form) if cost else exported(ranking, form)
    if path is None:
        typer.echo(text, nl=False)
        return
    listed = bool(ranking.entries or ranking.elsewhere)
    if listed:
        write_text(text, path)
    say(_written(listed, path))


def _freeze(ranking: Ranking, entry: str | None) -> None:
    """Freeze the scores of the bare template and of an entry with the list's power, or the power alone without one."""
    import datetime as dt  # noqa: PLC0415

    from harness.leaderboard.anytime import CHECKOUT  # noqa: PLC0415
    from harness.leaderboard.freeze import freeze, frozen, frozen_power  # noqa: PLC0415

    if not CHECKOUT.parent.is_dir():
        raise InputError(f"--freeze writes {CHECKOUT.parent.name}/{CHECKOUT.name} of a checkout, and this is none")
    today = dt.datetime.now(dt.UTC).date()
    tables = frozen_power(ranking, today) if entry is None else frozen(ranking, entry, today)
    freeze(ranking.track, tables, CHECKOUT)
    what = "which leads can be told" if entry is None else f"0 is manual, 1 is {entry}"
    say(f"frozen for track {ranking.track}: {what}; written: {CHECKOUT}")


def _draw(ranking: Ranking) -> None:
    """Draw a bar for each entry, in a terminal."""
    from harness.leaderboard.terminal import bars  # noqa: PLC0415

    if out.is_terminal:
        out.print(bars(ranking))


def _written(listed: bool, *paths: Path) -> str:
    """The files that were written, or the reason why none was."""
    if not listed:
        return f"{paths[0]} is not written: there is nothing to list in it"
    names = [str(path) for path in paths]
    return f"written: {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"


def _write(ranking: Ranking, path: Path, form: Format) -> list[Path]:
    """Write the ranking and return the files. A CSV gets its JSON and its cells beside it."""
    from harness.leaderboard.exports import exported, tidy_cells  # noqa: PLC0415
    from harness.leaderboard.table import document, write_document, write_records, write_text  # noqa: PLC0415

    if form != "csv":
        write_text(exported(ranking, form), path)
        return [path]
    files = [path, path.with_suffix(".json"), beside(path, "cells")]
    write_document(document(ranking), files[0], files[1])
    write_records(tidy_cells(ranking), files[2])
    return files


def _for_machines(results: Store, ranking: Ranking, uploaded: list[Upload], tolerance: float) -> dict[str, Any]:
    """The document of the ranking, with gaps, uploads and machine differences."""
    from harness.leaderboard.drift import drift  # noqa: PLC0415
    from harness.leaderboard.private import gap_records, gaps  # noqa: PLC0415
    from harness.leaderboard.table import document  # noqa: PLC0415
    from harness.leaderboard.uploads import upload_records  # noqa: PLC0415

    differ = [
        {"task": d.task, "difference": d.difference, "between": d.between}
        for d in drift(ranking.entries)
        if d.difference > tolerance
    ]
    private = gap_records(gaps(results, ranking))
    return document(ranking) | {"drift": differ, "uploads": upload_records(uploaded), "private": private}


def _print(results: Store, ranking: Ranking, uploaded: list[Upload], chosen: Track, wide: Console) -> None:
    """Print the tables, and a note on machines that compute differently."""
    from harness.leaderboard.drift import drift  # noqa: PLC0415
    from harness.leaderboard.private import gap_table, gaps  # noqa: PLC0415
    from harness.leaderboard.terminal import terminal_table  # noqa: PLC0415
    from harness.leaderboard.uploads import upload_table  # noqa: PLC0415

    if ranking.entries or ranking.elsewhere or ranking.withdrawn:
        wide.print(terminal_table(ranking))
    tolerance = chosen.rounding
    for d in drift(ranking.entries):
        if d.difference > tolerance:
            say(
                f"backends differ on {d.task}: logits of fixed texts by up to {d.difference:.3g} between "
                f"{' and '.join(d.between)} ({tolerance:g} is rounding in {', '.join(chosen.model.allowed)}); "
                "run both again on one machine with one set of versions"
            )
    apart = gaps(results, ranking)
    for table in [upload_table(uploaded)] * bool(uploaded) + [gap_table(apart)] * bool(apart):
        wide.print(table)


def _cost_text(ranking: Ranking, form: Format) -> str:
    """What entries cost, in a format."""
    from harness.leaderboard.cost import cost_records, costs  # noqa: PLC0415
    from harness.leaderboard.exports import exported_rows  # noqa: PLC0415

    return exported_rows(f"Cost, track {ranking.track}", cost_records(costs(ranking)), form)


def _costs(ranking: Ranking, path: Path, form: Format, wide: Console, as_json: bool) -> None:
    """Print the entries' costs, and write them to a file if there are any."""
    from harness.leaderboard.cost import cost_records, cost_table, costs  # noqa: PLC0415
    from harness.leaderboard.table import write_text  # noqa: PLC0415

    found = costs(ranking)
    if found:
        write_text(_cost_text(ranking, form), path)
    if as_json:
        print_json({"track": ranking.track, "costs": cost_records(found)})
        return
    wide.print(cost_table(found, ranking.track))
    say(_written(bool(found), path))


def _not_ranked(ranking: Ranking, runs: list[Run]) -> list[str]:
    """What is without a rank or left out, and of `runs` those of the track whose choices were replaced."""
    from harness.errors import counted  # noqa: PLC0415

    lines = []
    if ranking.unsandboxed:
        lines.append(
            f"{counted(ranking.unsandboxed, 'entry', 'entries')} ran without isolation (sandbox 0), listed without a "
            "rank; --allow-unsandboxed ranks such entries among themselves"
        )
    if ranking.left_out:
        left_out = counted(ranking.left_out, "run")
        lines.append(
            f"{left_out} left out: other data, model, seed or track version, or choices replaced; --trials lists the "
            "latter, and harness runs lists all"
        )
    own = [run.key for run in runs if run.key.track == ranking.track]
    replaced = {f"{each.label}: replaced {', '.join(each.modified)}" for each in own if each.modified}
    return lines + [f"  {line}" for line in sorted(replaced)]
