"""Tables of the service's database of accounts, and what is done to those of an older version."""

from __future__ import annotations

from itertools import groupby

import sqlalchemy as sa
from sqlalchemy import Column, Float, ForeignKey, Integer, LargeBinary, Text, UniqueConstraint

from harness.results.tables import Large

SCHEMA = 3
"""1: tokens do not expire. 2: `seen_table` had a row for each word, text and row."""

metadata = sa.MetaData()
schema_version = sa.Table("service_schema", metadata, Column("version", Integer, primary_key=True))
tokens_table = sa.Table(
    "service_tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("calls", Integer),  # budget of each cell; null: the track's
    Column("created", Float, nullable=False),
    Column("revoked", Float),
    Column("expires", Float),  # Unix seconds; null: never
)
accounts_table = sa.Table(
    "service_accounts",
    metadata,
    Column("account", Integer, primary_key=True, autoincrement=True),
    Column("token", ForeignKey("service_tokens.name"), nullable=False),
    Column("track", Text, nullable=False),  # name and fingerprint
    Column("task", Text, nullable=False),
    Column("split", Integer, nullable=False),
    Column("rows_total", Large, nullable=False),
    Column("rows_spent", Large, nullable=False),
    Column("queries", Integer, nullable=False),
    Column("answer", LargeBinary),  # the submitted answer, which closes the account
    Column("submitted", Float),
    Column("run", Text),  # of the results database, once the answer is scored
    UniqueConstraint("token", "track", "task", "split"),
)
queries_table = sa.Table(
    "service_queries",
    metadata,
    Column("account", ForeignKey("service_accounts.account"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("request", Text, nullable=False),  # SHA-256
    Column("reply", LargeBinary),  # null after the reply was dropped
    Column("rows", Large, nullable=False),
    Column("tokens", Large, nullable=False),
    Column("bytes_up", Large, nullable=False),
    Column("bytes_down", Large, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("level", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("nominal_up", Large, nullable=False),
    Column("nominal_down", Large, nullable=False),
    Column("answered", Float, nullable=False),
    UniqueConstraint("account", "key"),
)

teams_table = sa.Table(
    "service_teams",  # of a token without a row, the team is the token
    metadata,
    Column("token", ForeignKey("service_tokens.name"), primary_key=True),
    Column("team", Text, nullable=False),
)
seen_table = sa.Table(
    "service_seen",  # what an account was given: ids of words, digests of texts and rows, with spaces between them
    metadata,
    Column("account", ForeignKey("service_accounts.account"), primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("words", "texts", "rows")),
)

exchanged_table = sa.Table(
    "service_exchanged",  # what the queries of an account exchanged with the server of a served model
    metadata,
    Column("account", ForeignKey("service_accounts.account"), primary_key=True),
    *(Column(name, Large, nullable=False) for name in ("requests", "resent", "sent", "received")),
)


def migrate(connection: sa.Connection, version: int) -> int:
    """Bring tables of an older schema up to date, in the caller's transaction.

    Args:
        connection: to the database, allowed to change its tables.
        version: the schema that it has.

    Returns:
        The schema that it has then. That of a newer program is returned as it is.
    """
    if not 1 <= version < SCHEMA:
        return version
    if version == 1:
        connection.execute(sa.text("ALTER TABLE service_tokens ADD COLUMN expires FLOAT"))
    if "kind" in {column["name"] for column in sa.inspect(connection).get_columns(seen_table.name)}:
        _seen_in_one_row(connection)
    connection.execute(schema_version.update().values(version=SCHEMA))
    return SCHEMA


def _seen_in_one_row(connection: sa.Connection) -> None:
    """Put what each account was given, of which every piece had a row of its own, into one row."""
    old = sa.table(seen_table.name, *map(sa.column, ("account", "kind", "digest")))
    rows = connection.execute(sa.select(old).order_by(*old.c)).all()
    seen_table.drop(connection)
    seen_table.create(connection)
    for account, pieces in groupby(rows, key=lambda row: row.account):
        given = list(pieces)
        texts = {
            f"{kind}s": " ".join(row.digest for row in given if row.kind == kind) for kind in ("word", "text", "row")
        }
        connection.execute(seen_table.insert().values(account=account, **texts))
