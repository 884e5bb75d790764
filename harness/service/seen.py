"""What an account was given, without repetitions, for defences that count it: it outlives the server's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from harness.blackbox.defence import Seen
from harness.service.tables import seen_table

if TYPE_CHECKING:
    from collections.abc import Mapping


def keep(connection: sa.Connection, account: int, new: Seen) -> None:
    """Store what a query was given for the first time, in the transaction of its charge."""
    rows = [
        {"account": account, "kind": kind, "digest": each} for kind, digests in _kinds(new).items() for each in digests
    ]
    if rows:
        connection.execute(seen_table.insert(), rows)


def read(connection: sa.Connection, account: int) -> Seen:
    """What an account was given so far."""
    found = Seen()
    kinds = _kinds(found)
    columns = seen_table.c
    query = sa.select(columns.kind, columns.digest).where(columns.account == account)
    for kind, digest in connection.execute(query):
        kinds[kind].add(digest)
    return found


def _kinds(seen: Seen) -> Mapping[str, set[str]]:
    return {"word": seen.words, "text": seen.texts, "row": seen.rows}
