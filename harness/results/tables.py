"""Tables of the results database.

`harness.results.store` says what they hold, `harness.results.digests` defines seals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, UniqueConstraint

from harness.results.digests import row_seal

if TYPE_CHECKING:
    from collections.abc import Collection

    from harness.contract import IntArray

SCHEMA = 5
"""Version of these tables."""
READABLE = (2, 3, 4, SCHEMA)
"""Versions that are used as they are. Version 2 lacks the tables of `LATER`, version 3 the last two of them and version
4 the last; a database gets what it lacks with the first row of such a table. A database of another version is refused;
`harness migrate` copies an older one."""

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text sorted by its bytes, so that every database returns rows in the same order."""
Large = Integer().with_variant(sa.BigInteger(), "postgresql")
"""A 64-bit integer, which every integer is in SQLite."""

metadata = sa.MetaData()
schema = sa.Table("schema", metadata, Column("version", Integer, primary_key=True))
runs = sa.Table(
    "runs",
    metadata,
    Column("run", Text, primary_key=True),  # digest of `identity`
    Column("identity", Text, nullable=False),  # JSON of a `harness.results.records.RunKey`
    Column("environment", Text, nullable=False),  # JSON: versions, device, threads, sandbox tier
    Column("started", sa.Float, nullable=False),
    Column("seal", Text, nullable=False, default=""),
)
attempts = sa.Table(
    "attempts",
    metadata,
    Column("attempt", Integer, primary_key=True, autoincrement=True),
    Column("run", ForeignKey("runs.run"), nullable=False, index=True),
    Column("task", Text, nullable=False),
    Column("split", Integer, nullable=False),
    Column("started", sa.Float, nullable=False),
    Column("seal", Text, nullable=False, default=""),
)
queries = sa.Table(
    "queries",
    metadata,
    Column("attempt", ForeignKey("attempts.attempt"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("rows", Integer, nullable=False),
    Column("tokens", Large, nullable=False),
    Column("bytes_up", Large, nullable=False),
    Column("bytes_down", Large, nullable=False),
    Column("seconds", sa.Float, nullable=False),
    Column("level", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("chain", Text, nullable=False),
)
outcomes = sa.Table(
    "outcomes",
    metadata,
    Column("run", ForeignKey("runs.run"), primary_key=True),
    Column("task", Text, primary_key=True),
    Column("split", Integer, primary_key=True, autoincrement=False),
    Column("attempt", ForeignKey("attempts.attempt"), nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("facts", Text, nullable=False),  # JSON of a `harness.results.records.CellRecord`
    Column("test", ForeignKey("test_sets.test"), nullable=False),
    Column("finished", sa.Float, nullable=False),
    Column("seal", Text, nullable=False, default=""),  # covers the whole cell: see harness.results.digests
)
test_sets = sa.Table(
    "test_sets",
    metadata,
    Column("test", Text, primary_key=True),  # digest of texts and labels
    Column("labels", LargeBinary, nullable=False),  # int16, little-endian
    Column("seal", Text, nullable=False, default=""),
)
answers = sa.Table(
    "answers",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("blob", LargeBinary, nullable=False),
)
incumbents = sa.Table(
    "incumbents",
    metadata,
    Column("attempt", ForeignKey("attempts.attempt"), nullable=False),
    Column("mark", sa.Float, nullable=False),  # fraction of the budget; 1 is the final answer
    Column("rows", Integer, nullable=False),  # rows spent when it was offered
    Column("answer", ForeignKey("answers.sha256"), nullable=False),
    Column("predictions", LargeBinary, nullable=False),  # int16 class per test text
    Column("seal", Text, nullable=False, default=""),
    UniqueConstraint("attempt", "mark"),
)
rulings = sa.Table(
    "rulings",
    metadata,
    Column("ruling", Text, primary_key=True),  # digest of the others, see harness.results.rulings
    Column("kind", Text, nullable=False),
    Column("track", Text, nullable=False),
    Column("entry", Text, nullable=False),  # empty: every entry of the track
    Column("number", Integer),  # of a cap
    Column("reason", Text, nullable=False),
    Column("made", sa.Float, nullable=False),
    Column("seal", Text, nullable=False, default=""),
)
corrections = sa.Table(
    "corrections",
    metadata,
    Column("correction", Text, primary_key=True),  # digest of the others, see harness.results.corrections
    Column("test", ForeignKey("test_sets.test"), nullable=False),
    Column("corrected", ForeignKey("test_sets.test"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("made", sa.Float, nullable=False),
    Column("seal", Text, nullable=False, default=""),
)
observations = sa.Table(
    "observations",
    metadata,
    Column("observation", Text, primary_key=True),  # digest of the facts, see harness.results.observations
    Column("kind", Text, nullable=False),
    Column("run", ForeignKey("runs.run"), nullable=False),
    Column("facts", Text, nullable=False),  # JSON of a `Forgotten` or `Told`
    Column("made", sa.Float, nullable=False),
    Column("seal", Text, nullable=False, default=""),
)
LATER = {3: rulings, 4: corrections, 5: observations}
"""Tables that were added, by the version that added them."""


def version_of(names: Collection[str]) -> int:
    """The version of a database with tables of these names."""
    lacking = [version for version, table in LATER.items() if table.name not in names]
    return min(lacking, default=SCHEMA + 1) - 1


def bring_up_to_date(connection: sa.Connection) -> None:
    """Make the tables that a database of an older readable version lacks, and say so in its version."""
    there = sa.inspect(connection).get_table_names()
    for table in LATER.values():
        if table.name not in there:
            table.create(connection)
    connection.execute(schema.update().values(version=SCHEMA))


def class_bytes(classes: IntArray) -> bytes:
    """Classes of a test set's texts, true or predicted, as stored: int16, little-endian."""
    return np.asarray(classes).astype("<i2").tobytes()


def classes_of(blob: bytes) -> IntArray:
    """Read the classes that `class_bytes` made: int64 (texts,)."""
    return np.frombuffer(blob, dtype="<i2").astype(np.int64)


def insert_sealed(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> str:
    """Write a row with its seal, and return the seal."""
    seal = row_seal(table.name, row)
    connection.execute(table.insert().values(seal=seal, **row))
    return seal


def seal_of(connection: sa.Connection, table: sa.Table, key: Any) -> str:
    """The seal of the row with this primary key."""
    (column,) = table.primary_key.columns
    return str(connection.execute(sa.select(table.c.seal).where(column == key)).scalar_one())
