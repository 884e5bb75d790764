"""Forgetting: what an answer's change of weights does to other tasks and to masked words, as facts that are appended.

`harness.evaluation.forgetting` measures it. A fact is about the answer that it names, so that it is passed over when
another answer takes that cell's place. Of several facts about one answer, the newest is shown.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the types
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from harness.errors import StoreError
from harness.results import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.results.store import Store

_SINCE = 5
"""Version of the database that has the table."""


@dataclass(frozen=True)
class Forgotten:
    """The state of the model before and after an answer's change of its weights. Several changes count as their mean.

    Scores are those of the bare template under the published and under the changed weights, 0 to 1.
    """

    run: str
    task: str
    """The task that was tuned on."""
    split: int
    answer: str
    """SHA-256 of the answer."""
    changes: int
    """Different changes of weights in it."""
    before: Mapping[str, float]
    """By other task."""
    after: Mapping[str, float]
    masked_before: float
    """Mean cross-entropy of a masked word in nats, over passages that were not tuned on."""
    masked_after: float
    texts: int
    """Largest number of test texts of a task."""
    passages: int
    source: str
    """Where the passages are from: ``other tasks``, or the SHA-256 of a file."""
    seed: int
    """By which texts and words were drawn."""
    format: str
    """Number format of the model."""
    made: float = 0.0
    """Unix seconds."""

    @property
    def id(self) -> str:
        """The digest by which the same fact is known again in another database."""
        return hashlib.sha256(msgspec.json.encode(asdict(self), order="sorted")).hexdigest()

    @property
    def lost(self) -> float:
        """Mean change of the other tasks' scores; below 0 they were forgotten."""
        return sum(self.after[task] - self.before[task] for task in self.before) / len(self.before)

    @property
    def masked(self) -> float:
        """Change of the masked loss; above 0 the model became worse at its own trade."""
        return self.masked_after - self.masked_before

    def same(self, other: Forgotten) -> bool:
        """Whether another fact has the same answer and the same texts and words, so that nothing has to be measured."""
        names = ("run", "task", "split", "answer", "texts", "passages", "source", "seed", "format")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def there(connection: sa.Connection) -> bool:
    """Whether a database has the table: one of an older version gets it with its first fact."""
    return sa.inspect(connection).has_table(tables.forgetting.name)


def decided(connection: sa.Connection) -> list[Forgotten]:
    """All facts, oldest first; none of a database that was made before there were any."""
    version = connection.execute(sa.select(tables.schema.c.version)).scalar()
    if version is None or version < _SINCE:
        return []
    columns = tables.forgetting.c
    rows = connection.execute(sa.select(columns.facts).order_by(columns.made, columns.forgetting)).scalars()
    try:
        return [_read(facts) for facts in rows]
    except ValueError as problem:
        raise StoreError(f"a fact about forgetting cannot be read: {problem}. See harness audit") from problem


def insert(connection: sa.Connection, fact: Forgotten) -> None:
    """Write a fact with its seal. A database of an older version becomes one of the present version."""
    if not there(connection):
        tables.bring_up_to_date(connection)
    facts = msgspec.json.encode(asdict(fact), order="sorted").decode()
    row = {"forgetting": fact.id, "run": fact.run, "facts": facts, "made": fact.made}
    tables.insert_sealed(connection, tables.forgetting, row)


def of_runs(store: Store) -> dict[str, list[Forgotten]]:
    """The newest fact of each cell, by run, about the answers that stand there now."""
    outcomes, incumbents = tables.outcomes.c, tables.incumbents.c
    query = (
        sa.select(outcomes.run, outcomes.task, outcomes.split, incumbents.answer)
        .join(tables.incumbents, incumbents.attempt == outcomes.attempt)
        .where(incumbents.mark == 1.0)
    )
    with store.snapshot() as connection:
        facts = decided(connection)
        if not facts:
            return {}
        standing = {(row.run, row.task, row.split): row.answer for row in connection.execute(query)}
    newest = {}
    for fact in facts:
        place = fact.run, fact.task, fact.split
        if standing.get(place) == fact.answer:
            newest[place] = fact
    found: dict[str, list[Forgotten]] = {}
    for place in sorted(newest):
        found.setdefault(place[0], []).append(newest[place])
    return found


def means(facts: Sequence[Forgotten]) -> tuple[float, float]:
    """The means over cells of `Forgotten.lost` and `Forgotten.masked`."""
    return sum(fact.lost for fact in facts) / len(facts), sum(fact.masked for fact in facts) / len(facts)


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with a stored fact, beside its seal."""
    fact, found = _read(row["facts"]), []
    if fact.id != row["forgetting"] or (fact.run, fact.made) != (row["run"], row["made"]):
        found.append("its id is not the digest of what it says")
    scores = [*fact.before.values(), *fact.after.values()]
    if fact.before.keys() != fact.after.keys() or not fact.before or fact.task in fact.before:
        found.append(f"its tasks are {sorted(fact.before)} before and {sorted(fact.after)} after")
    if not all(0 <= score <= 1 for score in scores):
        found.append("a score is not from 0 to 1")
    if not all(math.isfinite(loss) and loss >= 0 for loss in (fact.masked_before, fact.masked_after)):
        found.append("a masked loss is not finite")
    return found


def _read(facts: str) -> Forgotten:
    return msgspec.json.decode(facts, type=Forgotten)
