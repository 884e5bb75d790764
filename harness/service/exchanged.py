"""What the queries of an account exchanged with the server of a served model, in the database of accounts."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa

from harness.lm.endpoint.requests import Traffic
from harness.service.tables import exchanged_table


def add(connection: sa.Connection, account: int, more: Traffic) -> None:
    """Add the exchange of one query, in the transaction that charges it and has locked the account."""
    columns, values = exchanged_table.c, asdict(more)
    there = exchanged_table.update().where(columns.account == account)
    if not connection.execute(there.values({name: columns[name] + value for name, value in values.items()})).rowcount:
        connection.execute(exchanged_table.insert().values(account=account, **values))


def exchanged(connection: sa.Connection, account: int) -> Traffic | None:
    """The exchange of all charged queries of an account; None where no server computed any."""
    columns = exchanged_table.c
    query = sa.select(columns.requests, columns.resent, columns.sent, columns.received)
    row = connection.execute(query.where(columns.account == account)).first()
    return None if row is None else Traffic(*row)
