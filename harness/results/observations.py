"""Observations: what was measured of stored answers after their cells had ended, as facts that are appended.

There are two kinds: what a change of weights makes the model forget, and how well members are told from others.
Each fact is a dataclass that names the answers that it is about.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from harness.errors import StoreError
from harness.results import forgetting, membership, tables
from harness.results.forgetting import Forgotten
from harness.results.membership import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.results.store import Store

Observation: TypeAlias = Forgotten | Told
KINDS: dict[str, type[Forgotten | Told]] = {"forgetting": Forgotten, "membership": Told}
_SINCE = 5
"""Version of the database that has the table."""
T = TypeVar("T", Forgotten, Told)


def id_of(fact: Observation) -> str:
    """The digest by which the same fact is known again in another database."""
    return hashlib.sha256(f"{_kind(fact)} {_text(fact)}".encode()).hexdigest()


def there(connection: sa.Connection) -> bool:
    """Whether a database has the table: one of an older version gets it with its first fact."""
    return sa.inspect(connection).has_table(tables.observations.name)


def decided(connection: sa.Connection) -> list[Observation]:
    """All facts, oldest first; none of a database that was made before there were any."""
    version = connection.execute(sa.select(tables.schema.c.version)).scalar()
    if version is None or version < _SINCE:
        return []
    columns = tables.observations.c
    rows = connection.execute(sa.select(columns.kind, columns.facts).order_by(columns.made, columns.observation))
    try:
        return [_read(kind, facts) for kind, facts in rows]
    except (ValueError, KeyError) as problem:
        raise StoreError(f"an observation cannot be read: {problem}. See harness audit") from problem


def insert(connection: sa.Connection, fact: Observation) -> None:
    """Write a fact with its seal. A database of an older version becomes one of the present version."""
    if not there(connection):
        tables.bring_up_to_date(connection)
    row = {"observation": id_of(fact), "kind": _kind(fact), "run": fact.run, "facts": _text(fact), "made": fact.made}
    tables.insert_sealed(connection, tables.observations, row)


def check_writable(store: Store) -> None:
    """Refuse a database that cannot take a fact, before minutes are spent on measuring one.

    Raises:
        StoreError: it is compressed, or nobody may write to it here.
    """
    with store.changes() as connection:
        connection.execute(sa.update(tables.schema).values(version=tables.schema.c.version))


def same_forgotten(store: Store, about: Forgotten) -> Forgotten | None:
    """The newest stored fact about the same answer, texts and words, if there is one."""
    with store.snapshot() as connection:
        facts = [fact for fact in decided(connection) if isinstance(fact, Forgotten) and fact.same(about)]
    return facts[-1] if facts else None


def forgotten(store: Store) -> dict[str, list[Forgotten]]:
    """The newest fact about forgetting of each cell, by run, about the answers that stand there now."""
    return forgetting.newest(*_standing(store, Forgotten))


def told(store: Store) -> dict[str, Told]:
    """For each run, the fact about membership that covers the most of the answers that stand there now."""
    return membership.newest(*_standing(store, Told))


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with a stored fact, beside its seal."""
    fact = _read(row["kind"], row["facts"])
    wrong = id_of(fact) != row["observation"] or (fact.run, fact.made) != (row["run"], row["made"])
    return ["its id is not the digest of what it says"] * wrong + fact.problems


def _kind(fact: Observation) -> str:
    return next(kind for kind, type_ in KINDS.items() if isinstance(fact, type_))


def _text(fact: Observation) -> str:
    return msgspec.json.encode(asdict(fact), order="sorted").decode()


def _read(kind: str, facts: str) -> Observation:
    return msgspec.json.decode(facts, type=KINDS[kind])


def _standing(store: Store, kind: type[T]) -> tuple[list[T], dict[tuple[str, str, int], str]]:
    """The facts of one kind, oldest first, and the digest of the answer that stands in each cell."""
    outcomes, incumbents = tables.outcomes.c, tables.incumbents.c
    query = (
        sa.select(outcomes.run, outcomes.task, outcomes.split, incumbents.answer)
        .join(tables.incumbents, incumbents.attempt == outcomes.attempt)
        .where(incumbents.mark == 1.0)
    )
    with store.snapshot() as connection:
        facts = [fact for fact in decided(connection) if isinstance(fact, kind)]
        if not facts:
            return [], {}
        return facts, {(row.run, row.task, row.split): row.answer for row in connection.execute(query)}
