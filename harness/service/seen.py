"""What an account was given, without repetitions: for defences that count it, and for the facts about its cell.

It is written with each charge, so it outlives the server's process. An account has one row of at most some 400 kB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from harness.blackbox.defence import Seen
from harness.service.tables import seen_table

if TYPE_CHECKING:
    from collections.abc import Iterable


def keep(connection: sa.Connection, account: int, seen: Seen) -> None:
    """Store all that an account was given, in the transaction of the charge that added to it."""
    values = {"words": _packed(seen.words), "texts": _packed(seen.texts), "rows": _packed(seen.rows)}
    change = seen_table.update().where(seen_table.c.account == account).values(values)
    if not connection.execute(change).rowcount:
        connection.execute(seen_table.insert().values(account=account, **values))


def read(connection: sa.Connection, account: int, queries: int) -> Seen | None:
    """What an account was given by its `queries` so far; None if they were answered before this was kept."""
    columns = seen_table.c
    query = sa.select(columns.words, columns.texts, columns.rows).where(columns.account == account)
    found = connection.execute(query).one_or_none()
    if found is None:
        return None if queries else Seen()
    return Seen(*map(_unpacked, found))


def _packed(members: Iterable[str]) -> str:
    return " ".join(sorted(members))


def _unpacked(members: str) -> set[str]:
    return set(members.split())
