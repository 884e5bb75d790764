"""Digests of what is stored of each entry, so that what was computed from it can be kept and found again."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from harness.results import corrections, observations, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.results.records import Run
    from harness.results.store import Store


def entry_digests(store: Store, runs: Iterable[Run]) -> Mapping[str, str]:
    """For each run, a digest of all runs of its entry: of their identities and of how their cells ended.

    A cell's seal covers its facts and predictions (`harness.results.digests`); the time at which it ended tells cells
    apart that have no seal because they are older. Repeats are averaged with a run, so they belong to its digest, and
    so do the labels with which cells are read: every correction of labels changes every digest.
    """
    columns = tables.outcomes.c
    query = sa.select(columns.run, columns.task, columns.split, columns.attempt, columns.finished, columns.seal)
    outcomes: dict[str, list[str]] = defaultdict(list)
    with store.snapshot() as connection:
        labels = [store.labels, *(each.id for each in corrections.decided(connection))]
        for row in connection.execute(query.order_by(columns.run, columns.task, columns.split)):
            outcomes[row.run].append(repr(tuple(row)))
    of_entry: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        of_entry[run.key.label].append(run)
    found: dict[str, str] = {}
    for own in of_entry.values():
        stored = [(run.id, outcomes[run.id]) for run in sorted(own, key=lambda run: run.id)]
        digest = hashlib.sha256(repr((labels, stored)).encode()).hexdigest()
        found |= {run.id: digest for run in own}
    return found


def state(store: Store) -> tuple[object, ...]:
    """What changes when a cell ends, a run is opened, or an entry is ruled upon; with labels, and with observations."""
    outcomes = tables.outcomes.c
    with store.snapshot() as connection:
        ended = connection.execute(sa.select(sa.func.count(), sa.func.max(outcomes.attempt))).one()
        runs = connection.execute(sa.select(sa.func.count()).select_from(tables.runs)).scalar()
        corrected, observed = len(corrections.decided(connection)), len(observations.decided(connection))
    return (*ended, runs, len(store.rulings()), corrected, observed)
