"""Rulings: what an organiser has decided about entries, as facts that are appended and never changed.

A ruling takes an entry back from the ranking (`withdraw`), limits how often it may be tried (`cap`), or ends that it is
tried at all (`freeze`). Each has an opposite, which is a ruling as well. Of those that fit an entry, the newest holds.
Every ruling has its reason, its time and a seal, and `harness audit` checks them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import sqlalchemy as sa

from harness.errors import InputError, SubmissionError, counted
from harness.results import tables
from harness.results.records import run_key
from harness.tracks.naming import argument_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.results.records import RunKey

Kind: TypeAlias = Literal["withdraw", "restore", "cap", "uncap", "freeze", "thaw"]
OPPOSITE: dict[Kind, Kind] = {"withdraw": "restore", "cap": "uncap", "freeze": "thaw"}
"""What ends a ruling of each kind."""
LONGEST_REASON = 1000
"""Characters."""


@dataclass(frozen=True)
class Ruling:
    """One decision."""

    kind: Kind
    track: str
    entry: str
    """As the leaderboard shows it, ``team/name[options]``. Without the options, it is the entry with any options; an
    empty one is every entry of the track."""
    number: int | None
    """Runs that a cap allows; None for other kinds."""
    reason: str
    made: float
    """Unix seconds."""

    @property
    def id(self) -> str:
        """The digest by which the same ruling is known again in another database."""
        facts = [self.kind, self.track, self.entry, self.number, self.reason, self.made]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def fits(self, track: str, label: str) -> bool:
        """Whether it is about this entry of a track."""
        return self.track == track and self.entry in {"", label, label.partition("[")[0]}


def decided(connection: sa.Connection) -> list[Ruling]:
    """All rulings, oldest first; none of a database that was made before there were any."""
    if not there(connection):
        return []
    columns = tables.rulings.c
    rows = connection.execute(sa.select(tables.rulings).order_by(columns.made, columns.ruling)).all()
    return [Ruling(row.kind, row.track, row.entry, row.number, row.reason, row.made) for row in rows]


def there(connection: sa.Connection) -> bool:
    """Whether a database has the table: one of version 2 gets it with its first ruling."""
    return sa.inspect(connection).has_table(tables.rulings.name)


def add(connection: sa.Connection, kind: Kind, track: str, entry: str, reason: str, number: int | None = None) -> None:
    """Append a ruling, made now.

    Raises:
        InputError: its reason is empty or too long, or the number of a cap is negative.
    """
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= LONGEST_REASON:
        raise InputError(
            f"--reason has {len(reason):,} characters; 1 to {LONGEST_REASON:,} are needed, for it is shown"
        )
    if kind not in get_args(Kind) or (kind == "cap") != (number is not None) or (number is not None and number < 0):
        raise InputError(f"{kind} {number}: a cap has a number of runs, 0 or more, and no other ruling has one")
    insert(connection, Ruling(kind, track, entry, number, reason, time.time()))


def insert(connection: sa.Connection, ruling: Ruling) -> None:
    """Write a ruling with its seal. A database of version 2 becomes one of the present version, with all its rows."""
    if not there(connection):
        tables.bring_up_to_date(connection)
    row = {
        "ruling": ruling.id,
        "kind": ruling.kind,
        "track": ruling.track,
        "entry": ruling.entry,
        "number": ruling.number,
        "reason": ruling.reason,
        "made": ruling.made,
    }
    tables.insert_sealed(connection, tables.rulings, row)


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with a stored ruling, beside its seal."""
    columns = ("kind", "track", "entry", "number", "reason", "made")
    same = Ruling(*(row[column] for column in columns)).id == row["ruling"]
    return [] if same else ["its id is not the digest of what it says"]


def in_force(rulings: Iterable[Ruling], kind: Kind, track: str, label: str) -> Ruling | None:
    """The ruling of this kind that holds for an entry: the newest, unless the newest is its opposite.

    Args:
        rulings: all of them, oldest first.
        kind: ``withdraw``, ``cap`` or ``freeze``.
        track: the entry's track.
        label: the entry, as the leaderboard shows it.

    Returns:
        The ruling; None where none holds.
    """
    pair = {kind, OPPOSITE[kind]}
    newest = [each for each in rulings if each.kind in pair and each.fits(track, label)][-1:]
    return next((each for each in newest if each.kind == kind), None)


def tries(keys: Iterable[RunKey]) -> Mapping[tuple[str, str, str], int]:
    """How often each entry was tried: its runs by track, team and name, of any code, options and choices.

    A run counts whether or not it ended well. Repeats of a run, which are averaged and not chosen from, count once.
    """
    found: dict[tuple[str, str, str], set[RunKey]] = defaultdict(set)
    for key in keys:
        found[key.tried].add(key.as_first)
    return {who: len(runs) for who, runs in found.items()}


def check_new(connection: sa.Connection, key: RunKey) -> None:
    """Refuse a run that is not in the database yet, where a ruling does not allow it.

    Raises:
        SubmissionError: the entry is withdrawn, frozen, or has as many runs as it may have.
    """
    rulings = decided(connection)
    for kind, said in (("withdraw", "is withdrawn"), ("freeze", "is frozen: no new run of it is begun")):
        ruling = in_force(rulings, kind, key.track, key.label)  # type: ignore[arg-type]  # both are kinds
        if ruling is not None:
            where = f"--track {argument_for(key.track)}"
            way_out = " ".join(filter(None, ["harness", kind, ruling.entry, where, "--undo --reason TEXT"]))
            raise SubmissionError(
                f"{key.label} {said} on track {key.track}: {ruling.reason}. An organiser ends that with: {way_out}"
            )
    cap = in_force(rulings, "cap", key.track, key.label)
    if cap is None or cap.number is None:
        return
    keys = [run_key(text) for text in connection.execute(sa.select(tables.runs.c.identity)).scalars()]
    own = {each.as_first for each in keys if each.tried == key.tried}
    if key.as_first not in own and len(own) >= cap.number:
        raise SubmissionError(
            f"{key.label} has {counted(len(own), 'run')} on track {key.track}, and at most {cap.number:,} are allowed: "
            f"{cap.reason}. Runs that were begun can be finished; an organiser raises the number with harness cap"
        )
