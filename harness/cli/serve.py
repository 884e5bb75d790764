"""The black box over HTTP: `serve`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import STORE, err, is_there, note, open_store, shown
from harness.cli.options import (
    NOTHING,
    StoreUrl,
    TasksDir,
    TrackName,
    overriding,
)
from harness.cli.tokens import BOOK, TokenWork, how_to_make
from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI

    from harness.evaluation.overrides import Overrides

commands = typer.Typer()
PATIENCE_S = 60.0
"""Seconds after which a query is refused for now if the server of a served model gives no answer. All queries wait for
it, and their clients ask again."""


def tell(lines: Sequence[str]) -> None:
    """Print lines on standard error."""
    for line in lines:
        note(line)


@commands.command(
    epilog="Examples:\n\n"
    "  harness serve --new-token alice\n\n"
    "  harness serve --new-tokens class.csv --expires 2026-12-31\n\n"
    "  harness serve --usage\n\n"
    "  harness serve --track mini --task sst2 --split 1\n\n"
    "  harness serve --track official --host 0.0.0.0 --port 8000\n\n"
    "  harness serve --track api --backend openai --endpoint http://127.0.0.1:8080"
)
@overriding(
    "data", "model", "staged", "device", "backend", "endpoint", "served_model", "concurrency", "tasks", "splits",
    "calls",
    helps={"calls": "Another budget, in calls a cell: the new token's, or everybody's; never ranked."},
)  # fmt: skip
def serve(
    track: TrackName = "mini",
    tasks_dir: TasksDir = None,
    overrides: Overrides = NOTHING,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback put a TLS proxy.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    rate: Annotated[float, typer.Option(help="Requests a second that one token may make.", min=0.01)] = 50.0,
    burst: Annotated[int, typer.Option(help="Requests that one token may make at once.", min=1)] = 100,
    book: Annotated[
        str, typer.Option("--book", help="Tokens, budgets and replies: a SQLite file, or a SQLAlchemy URL.")
    ] = BOOK,
    log: Annotated[
        Path | None, typer.Option(help="File that gets a line of JSON for each request; standard error without it.")
    ] = None,
    show_scores: Annotated[
        bool, typer.Option("--show-scores", help="Show each participant the scores of their own answers, at /me.")
    ] = False,
    new_token: Annotated[
        str | None, typer.Option("--new-token", metavar="NAME", help="Make a token, print it once, and end.")
    ] = None,
    new_tokens: Annotated[
        Path | None,
        typer.Option(
            "--new-tokens",
            metavar="FILE.csv",
            help="Make a token for each line of a CSV with the column name (and calls, and expires), write them "
            "to FILE-tokens.csv, and end.",
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="DATE", help="Last day of the new tokens, such as 2026-12-31 (UTC).")
    ] = None,
    rotate_token: Annotated[
        str | None,
        typer.Option("--rotate-token", metavar="NAME", help="Give a token a new secret, print it once, and end."),
    ] = None,
    revoke_token: Annotated[
        str | None, typer.Option("--revoke-token", metavar="NAME", help="Let a token open nothing any more, and end.")
    ] = None,
    team: Annotated[
        str | None,
        typer.Option(
            "--team", metavar="TEAM", help="Whose the new token is; each token of a team is an attempt of it."
        ),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="List the tokens and what each has spent, and end.")] = False,
    usage: Annotated[bool, typer.Option("--usage", help="List what was spent on each cell, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --usage: a line of JSON for each cell.")] = False,
    store: StoreUrl = STORE,
) -> None:
    """Offer a track's metered black box over HTTP, to solvers that live elsewhere: harness.connect(url, token).

    Answers that are handed in are scored here and stored; their scores are not told to the solver. Ctrl-C ends it, and
    the same command goes on with the same budgets.
    """
    try:
        from harness.service.accounts import Accounts  # noqa: PLC0415 - keeps `--help` quick
        from harness.service.serve import run, service_of  # noqa: PLC0415
        from harness.service.starting import Starting  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise InputError(
            f'the service needs a package that is not here: {problem.name}; run: pip install -e ".[service]"'
        ) from problem
    from harness.evaluation.preparation import Preparation  # noqa: PLC0415
    from harness.evaluation.progress import printable  # noqa: PLC0415
    from harness.evaluation.run import Evaluation  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    wanted = TokenWork(
        new_token, new_tokens, rotate_token, revoke_token, tokens, usage, overrides.calls, expires, team, as_json
    )
    if wanted.of_existing and not is_there(book):
        raise InputError(f"{shown(book)}: no such book; make it with its first token: {how_to_make(book)}")
    kept = Accounts(book)
    if wanted.done(kept, book):
        return
    chosen = load_track(track, tasks_dir)
    prepared, results = Preparation(chosen, overrides), open_store(store)

    ending = ExitStack()

    def offered() -> FastAPI:
        evaluation = Evaluation(chosen, overrides, results, prepared)
        ending.callback(evaluation.close)
        evaluation.tell(lambda lines: tell([f"endpoint: {printable(line)}" for line in lines]), PATIENCE_S)
        made = service_of(evaluation, kept, rate, burst, show_scores=show_scores)
        tell([f"{evaluation.lm.name} is loaded: queries are answered from now on"])
        return made

    tell([*chosen.competition.lines(), *(f"odd data: {line}" for line in prepared.oddities)])
    if not kept.tokens():
        tell([f"there is no token yet; make one with: {how_to_make(book)}"])
    if host not in {"127.0.0.1", "::1", "localhost"}:
        err.print(
            f"listening on {host}, in plain HTTP: tokens can be read on the way. Put a proxy that speaks TLS before it "
            "and listen on 127.0.0.1; docs/service.md shows how",
            soft_wrap=True,
        )
    with ending:
        run(Starting(offered, chosen.name), host, port, log)
