"""What the results say: `leaderboard`, `compare`, `watch`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harness.cli.console import STORE, existing_store, out, print_json, say, shown
from harness.cli.options import (
    AsJson,
    DataDir,
    StoreUrl,
    TrackName,
)
from harness.errors import InputError, StoreError
from harness.leaderboard.formats import Format, beside, format_of

if TYPE_CHECKING:
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.uploads import Upload
    from harness.results.records import Run
    from harness.results.store import Store
    from harness.tracks.track import Track

commands = typer.Typer()


@commands.command()
def leaderboard(
    track: TrackName = "mini",
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
    levels: Annotated[
        bool, typer.Option("--levels", help="What each access level buys instead: its best entry, points per call.")
    ] = False,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Rank runs without isolation, too, among themselves.")
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
    from harness.leaderboard.uploads import uploads  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if form and as_json:
        raise InputError(f"--format {form} and --json: give one of them")
    chosen = load_track(track)
    name = chosen.name
    path = out_file or Path("leaderboard") / f"{name}.csv"
    written_as = form or format_of(path)
    path = beside(path, "cost") if cost else path
    results = existing_store(store)
    ranking = rank(results, name, chosen.fingerprint, chosen.planned, chosen.ranks, allow_unsandboxed, chosen.prices)
    if levels:
        from harness.leaderboard.levels import bought, level_records, level_table  # noqa: PLC0415

        found = bought(ranking)
        if as_json:
            print_json(level_records(found))
            return
        Console(highlight=False, width=None if out.is_terminal else 140).print(level_table(found, name))
        return
    uploaded = uploads(results, name, chosen.fingerprint, chosen.planned)
    # Files that list nothing must not replace good ones.
    listed = bool(ranking.entries or ranking.elsewhere or ranking.withdrawn)
    first = _first_run(track, chosen, store)
    if not (listed or ranking.left_out or uploaded):
        raise StoreError(f"no finished cell of track {name} in {shown(store)}, nothing is written; run: {first}")
    if form:
        _export(ranking, form, path if out_file else None, cost)
        return
    wide = Console(highlight=False, width=None if out.is_terminal else 120)
    if cost:
        _costs(ranking, path, written_as, wide, as_json)
        return
    files = _write(ranking, path, written_as) if listed else []
    if as_json:
        print_json(_for_machines(results, ranking, uploaded, chosen.rounding))
        return
    if not ranking.entries:
        say(f"no ranked runs on track {name} in {shown(store)}; run: {first}")
    _print(results, ranking, uploaded, chosen, wide)
    say("\n".join([*_not_ranked(ranking, [] if listed else results.runs()), _written(listed, *(files or [path]))]))
    _draw(ranking)


@commands.command()
def compare(
    first: Annotated[str, typer.Argument(help="Entry of the leaderboard.", metavar="FIRST")],
    second: Annotated[str, typer.Argument(help="The entry it is compared with.", metavar="SECOND")],
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    as_json: AsJson = False,
) -> None:
    """Show where two entries differ, by task, split and test text, with intervals and p-values.

    Both must be complete, and in one division. Intervals and p-values are adjusted for all pairs of entries, as the
    ranks are: two entries are told apart here exactly where the leaderboard tells them apart.
    """
    from harness.leaderboard.compare import compare as compared  # noqa: PLC0415
    from harness.leaderboard.compare import comparison_record, comparison_table  # noqa: PLC0415
    from harness.leaderboard.rank import rank  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if first == second:
        raise InputError(f"compare {first} {second}: name two different entries")
    chosen = load_track(track)
    ranking = rank(existing_store(store), chosen.name, chosen.fingerprint, chosen.planned, chosen.ranks)
    found = compared(ranking, first, second)
    if as_json:
        print_json(comparison_record(found))
        return
    Console(highlight=False, width=None if out.is_terminal else 120).print(comparison_table(found))


@commands.command()
def watch(
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", help="Seconds between looks.", min=0.1)] = 2.0,
) -> None:
    """Follow runs in progress from another terminal. Reads the results database only; Ctrl-C ends it."""
    import time  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from harness.leaderboard.watch import look, watch_view  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen, results = load_track(track), existing_store(store)
    seen = look(results, chosen)
    if once or not out.is_terminal:
        out.print(watch_view(seen.runs, chosen.name))
        return
    try:
        with Live(watch_view(seen.runs, chosen.name), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                seen = look(results, chosen, seen)
                live.update(watch_view(seen.runs, chosen.name), refresh=True)
    except KeyboardInterrupt:
        return


@commands.command(
    epilog="Examples:\n\n"
    "  harness report --out report\n\n"
    "  harness report --out report --track kit --data path/to/competition"
)
def report(
    out_dir: Annotated[Path, typer.Option("--out", help="Directory of the site; a report that is there is replaced.")],
    track: TrackName = "mini",
    store: StoreUrl = STORE,
    data: DataDir = None,
    submissions: Annotated[
        Path, typer.Option("--submissions", help="Where the entries' folders are, for their READMEs.")
    ] = Path("submissions"),
    as_json: AsJson = False,
) -> None:
    """Write the leaderboard as a site: open DIR/index.html in a browser, without a server or the network.

    Test texts are shown where they are at hand: embedded ones, or those in --data DIR.
    """
    from harness.tracks.examples import Source  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    try:
        from harness.leaderboard.report.build import build  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise InputError(
            f'the report needs a package that is not here: {problem.name}; run: pip install -e ".[report]"'
        ) from problem
    chosen = load_track(track)
    source = Source(chosen.data.source) if data is None else Source("kit", data)
    built = build(existing_store(store), chosen, out_dir, source, submissions)
    if as_json:
        print_json(
            {"path": str(built.path), "pages": built.pages, "bytes": built.bytes, "seconds": round(built.seconds, 1)}
        )
        return
    address = (built.path / "index.html").as_uri()
    say(f"{built.pages} pages, {built.bytes / 1e6:.1f} MB in {built.seconds:.1f} s; open {address}")


def _first_run(track: str, chosen: Track, store: str) -> str:
    """The command to type if a track has no runs yet."""
    data = " --data DIR" if chosen.data.source == "kit" else ""
    where = "" if store == STORE else f" --store {shown(store)}"
    return f"harness evaluate submissions/ajo --track {track}{data}{where}"


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
        lines.append(f"{left_out} left out: other data, model, seed or track version, or choices replaced")
    own = [run.key for run in runs if run.key.track == ranking.track]
    replaced = {f"{each.label}: replaced {', '.join(each.modified)}" for each in own if each.modified}
    return lines + [f"  {line}" for line in sorted(replaced)]
