"""What tokens have spent, from the database of accounts: for the organiser, and for the owner of one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from harness.service.tables import accounts_table, exchanged_table, queries_table, teams_table

if TYPE_CHECKING:
    from harness.service.accounts import Accounts


@dataclass(frozen=True)
class Spending:
    """What one token has spent on one cell."""

    token: str
    team: str
    """Whose the token is."""
    track: str
    """Name and fingerprint."""
    task: str
    split: int
    rows_total: int
    rows_spent: int
    queries: int
    tokens: int
    """Tokens of text that were forwarded."""
    seconds: float
    """Of forward passes."""
    bytes_up: int
    bytes_down: int
    last: float | None
    """When the last query was answered, in Unix seconds; None if none was."""
    submitted: float | None
    """When the answer was submitted, in Unix seconds."""
    run: str | None
    """The answer's run in the results database; None until it is scored."""
    sent: int | None = None
    """Tokens of the prompts that its queries sent to the server of a served model; None where there is no server."""
    received: int | None = None
    """Tokens that the server generated for them."""


def spending(book: Accounts, token: str | None = None) -> list[Spending]:
    """What was spent on every cell that was ever opened.

    Args:
        book: the accounts.
        token: name of the one token to report; None means all.

    Returns:
        Ordered by token, track, task and split.
    """
    account, query = accounts_table.c, queries_table.c
    sums = [sa.func.coalesce(sa.func.sum(query[name]), 0) for name in ("tokens", "seconds", "bytes_up", "bytes_down")]
    place = (account.token, account.track, account.task, account.split)
    team = sa.func.coalesce(sa.func.max(teams_table.c.team), account.token)
    last = sa.func.max(query.answered)
    name, *cell = place
    columns: tuple[Any, ...] = (name, team, *cell, account.rows_total, account.rows_spent, account.queries)
    joined = accounts_table.outerjoin(queries_table, account.account == query.account)
    joined = joined.outerjoin(teams_table, teams_table.c.token == account.token)
    joined = joined.outerjoin(exchanged_table, exchanged_table.c.account == account.account)
    traffic = [sa.func.max(exchanged_table.c[name]) for name in ("sent", "received")]  # one row for each account
    wanted = (
        sa.select(*columns, *sums, last, account.submitted, account.run, *traffic)
        .select_from(joined)
        .group_by(account.account)
        .order_by(*place)
    )
    if token is not None:
        wanted = wanted.where(account.token == token)
    with book.reading() as connection:
        return [Spending(*tuple(row)) for row in connection.execute(wanted)]


def begun(book: Accounts, track: str) -> dict[str, float]:
    """When each token first asked a query or handed in an answer on a track of this name, in Unix seconds."""
    account, query = accounts_table.c, queries_table.c
    first = sa.func.min(sa.func.coalesce(query.answered, account.submitted))
    joined = accounts_table.outerjoin(queries_table, account.account == query.account)
    wanted = sa.select(account.token, first).select_from(joined).group_by(account.token)
    with book.reading() as connection:
        rows = connection.execute(wanted.where(account.track.startswith(f"{track} ", autoescape=True)))
        return {token: moment for token, moment in rows if moment is not None}
