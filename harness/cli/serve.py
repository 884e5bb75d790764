"""The black box over HTTP: `serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import STORE, err, is_there, open_store, out, say, shown
from harness.cli.options import (
    NOTHING,
    StoreUrl,
    TasksDir,
    TrackName,
    overriding,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from harness.evaluation.overrides import Overrides
    from harness.service.accounts import Accounts

_BOOK = "results/service.db"
commands = typer.Typer()


@commands.command(
    epilog="Examples:\n\n"
    "  harness serve --new-token alice\n\n"
    "  harness serve --track mini --task sst2 --split 1\n\n"
    "  harness serve --track official --host 0.0.0.0 --port 8000"
)
@overriding(
    "data", "model", "staged", "device", "tasks", "splits", "calls",
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
    ] = _BOOK,
    new_token: Annotated[
        str | None, typer.Option("--new-token", metavar="NAME", help="Make a token, print it once, and end.")
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
    usage: Annotated[
        bool, typer.Option("--usage", help="Show what each token has done: cells, calls, answers, last query; and end.")
    ] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="List the tokens, without their secrets, and end.")] = False,
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
    from harness.evaluation.run import Evaluation  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    if (tokens or usage or revoke_token is not None) and not is_there(book):
        raise InputError(f"{shown(book)}: no such book; make it with its first token: {_new_token(book)}")
    kept = Accounts(book)
    if new_token is not None or revoke_token is not None or tokens or usage:
        _change_tokens(kept, book, new_token, overrides.calls, revoke_token, team, usage=usage)
        return
    chosen = load_track(track, tasks_dir)
    prepared, results = Preparation(chosen, overrides), open_store(store)

    def offered() -> FastAPI:
        evaluation = Evaluation(chosen, overrides, results, prepared)
        made = service_of(evaluation, kept, rate, burst)
        err.print(f"{evaluation.lm.name} is loaded: queries are answered from now on", markup=False, soft_wrap=True)
        return made

    for line in chosen.competition.lines():
        err.print(line, markup=False, soft_wrap=True)
    for line in prepared.oddities:
        err.print(f"odd data: {line}", markup=False, soft_wrap=True)
    if not kept.tokens():
        err.print(f"there is no token yet; make one with: {_new_token(book)}", markup=False, soft_wrap=True)
    if host not in {"127.0.0.1", "::1", "localhost"}:
        err.print(
            f"listening on {host}, in plain HTTP: tokens can be read on the way. Put a proxy that speaks TLS before it "
            "and listen on 127.0.0.1; docs/service.md shows how",
            soft_wrap=True,
        )
    run(Starting(offered, chosen.name), host, port)


def _show_usage(kept: Accounts) -> None:
    """Print what each token has done."""
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from harness.tracks.competition import moment  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("token", "team", "track"):
        table.add_column(column, overflow="fold")
    for column in ("cells", "rows", "of", "queries", "answers", "last"):
        table.add_column(column, justify="right")
    accounts = kept.every()
    for token in kept.tokens():
        own = [(account, newest) for account, newest in accounts if account.token == token.name]
        for track in sorted({account.track for account, _ in own}) or [""]:
            here = [(account, newest) for account, newest in own if account.track == track]
            sums = [
                sum(getattr(account, name) for account, _ in here) for name in ("rows_spent", "rows_total", "queries")
            ]
            answers = sum(account.submitted is not None for account, _ in here)
            last = max((at for account, newest in here for at in (newest, account.submitted) if at), default=None)
            table.add_row(
                escape(token.name), escape(token.team), escape(track.partition(" ")[0]), str(len(here)),
                *(f"{value:,}" for value in sums), str(answers), "-" if last is None else moment(last),
            )  # fmt: skip
    out.print(table)


def _change_tokens(
    kept: Accounts, book: str, new: str | None, calls: int | None, revoked: str | None, team: str | None, *, usage: bool
) -> None:
    """Make a token, revoke one, list them all, or show what they have done."""
    if usage:
        _show_usage(kept)
        return
    if new is not None:
        from harness.sandbox.submission import check_team  # noqa: PLC0415

        typer.echo(kept.new_token(new, calls, None if team is None else check_team(team)))
        err.print(f"the token of {new}; it is shown this once, and only its digest is kept", soft_wrap=True)
        return
    if revoked is not None:
        kept.revoke(revoked)
        say(f"{revoked} opens nothing any more; what it spent stays in {kept.name}")
        return
    for each in kept.tokens():
        budget = "the track's budget" if each.calls is None else f"{each.calls:,} calls a cell"
        whose = "" if each.team == each.name else f", of team {each.team}"
        say(f"{each.name}  {budget}{whose}{'' if each.revoked is None else ', revoked'}")
    if not kept.tokens():
        say(f"no tokens in {kept.name}; make one with: {_new_token(book)}")


def _new_token(book: str) -> str:
    """What to type to make a token."""
    return f"harness serve --new-token NAME{'' if book == _BOOK else f' --book {shown(book)}'}"
