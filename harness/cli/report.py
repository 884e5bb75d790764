"""The leaderboard in a browser, and runs in progress: `report`, `watch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import CORRECTED, STORE, existing_store, out, print_json, say
from harness.cli.options import AsJson, DataDir, Labels, Organiser, StoreUrl, TasksDir, TrackName
from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.report.build import Part
    from harness.leaderboard.report.kept import Kept

commands = typer.Typer()
PORT = 8730
"""Of `harness watch --web`."""
Submissions = Annotated[Path, typer.Option("--submissions", help="Where the entries' folders are, for their READMEs.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Directory of what earlier reports computed; default ~/.cache/harness/report.", metavar="DIR"
    ),
]


@commands.command(
    epilog="Examples:\n\n"
    "  harness report --out report\n\n"
    "  harness report --out report --track kit --data path/to/competition\n\n"
    "  harness report --out site --track mini --track kit"
)
def report(
    out_dir: Annotated[Path, typer.Option("--out", help="Directory of the site; a report that is there is replaced.")],
    tracks: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            "-t",
            help="A track that ships, or a .toml file; repeatable: then each has a folder of its own. Default: mini.",
        ),
    ] = None,
    tasks_dir: TasksDir = None,
    store: StoreUrl = STORE,
    data: DataDir = None,
    submissions: Submissions = Path("submissions"),
    labels: Labels = CORRECTED,
    organiser: Organiser = False,
    hide_texts: Annotated[
        bool, typer.Option("--hide-texts", help="Leave test texts out, for a test set that is kept private.")
    ] = False,
    cache: Cache = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything anew, and keep nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the leaderboard as a site: open DIR/index.html in a browser, without a server or the network.

    Test texts are shown where they are at hand: embedded ones, or those in --data DIR. What an entry alone decides is
    kept between reports, so that a new entry takes seconds.
    """
    if fresh and cache is not None:
        raise InputError("--fresh and --cache: give one of them")
    parts = _parts(list(dict.fromkeys(tracks or ["mini"])), tasks_dir, data)
    from harness.leaderboard.kept_back import check_public  # noqa: PLC0415
    from harness.leaderboard.report.build import build_site  # noqa: PLC0415

    for part in parts:
        check_public(part.track, organiser=organiser)
    kept = None if fresh else _kept(cache)
    built = build_site(existing_store(store, labels), parts, out_dir, submissions, kept, hidden=hide_texts)
    if as_json:
        print_json(
            {"path": str(built.path), "pages": built.pages, "bytes": built.bytes, "seconds": round(built.seconds, 1)}
        )
        return
    address = (built.path / "index.html").as_uri()
    say(f"{built.pages} pages, {built.bytes / 1e6:.1f} MB in {built.seconds:.1f} s; open {address}")


@commands.command(
    epilog="Examples:\n\n  harness watch\n\n  harness watch --web    # then open the address that it prints"
)
def watch(
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    store: StoreUrl = STORE,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", help="Seconds between looks.", min=0.1)] = 2.0,
    web: Annotated[
        bool,
        typer.Option(
            "--web", help="Serve the report on this machine alone; its pages show what runs and refresh themselves."
        ),
    ] = False,
    port: Annotated[int, typer.Option("--port", help="Port of --web; 0 is any free one.", min=0, max=65535)] = PORT,
    data: DataDir = None,
    submissions: Submissions = Path("submissions"),
) -> None:
    """Follow runs in progress, from another terminal or in a browser. Reads the results database only; Ctrl-C ends it.

    With --web, the report is made anew when cells have ended, in at most a quarter of the time.
    """
    import time  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from harness.leaderboard.watch import look, watch_view  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if web:
        if once:
            raise InputError("--once and --web: give one of them")
        _serve(track, tasks_dir, store, data, submissions, port, every_s)
        return
    chosen, results = load_track(track, tasks_dir), existing_store(store)
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


def _serve(
    track: str, tasks_dir: Path | None, store: str, data: Path | None, submissions: Path, port: int, every_s: float
) -> None:
    """Serve the report of a running evaluation until Ctrl-C."""
    import tempfile  # noqa: PLC0415
    import time  # noqa: PLC0415

    (part,) = _parts([track], tasks_dir, data)
    from harness.leaderboard.report.live import Live, serving  # noqa: PLC0415

    results = existing_store(store)
    with tempfile.TemporaryDirectory(prefix="harness-watch-") as folder:
        live = Live(results, part, Path(folder), submissions, _kept(None))
        try:
            with serving(live, port) as address:
                say(f"making the report of track {part.track.name}")
                live.turn()
                say(f"open {address} on this machine; Ctrl-C ends it")
                while True:
                    time.sleep(every_s)
                    live.turn()
        except KeyboardInterrupt:
            return


def _parts(tracks: Sequence[str], tasks_dir: Path | None, data: Path | None) -> list[Part]:
    """The tracks of a site, with where their texts are: `data` is for a single track, or for those that need it."""
    from harness.tracks.examples import Source  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    try:
        from harness.leaderboard.report.build import Part  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise InputError(
            f'the report needs a package that is not here: {problem.name}; run: pip install -e ".[report]"'
        ) from problem
    chosen = [load_track(track, tasks_dir) for track in tracks]
    if len({track.name for track in chosen}) < len(chosen):
        raise InputError(f"--track {', --track '.join(tracks)}: two of them have one name")
    found = []
    for track in chosen:
        from_data = data is not None and (len(chosen) == 1 or track.data.source == "kit")
        found.append(Part(track, Source("kit", data) if from_data else Source(track.data.source)))
    return found


def _kept(folder: Path | None) -> Kept:
    """What earlier reports computed, in a directory or in the user's cache."""
    from harness.leaderboard.report.kept import Kept  # noqa: PLC0415
    from harness.tracks.staging import default_directory  # noqa: PLC0415

    return Kept(folder or default_directory() / "report")
