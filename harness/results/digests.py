"""Seals: digests by which a changed byte of the results database is found and named.

Every row carries one. A query's is its link of the ledger's hash chain, an answer's is its own name, and any other
row's is the digest of its columns. The seal of an outcome closes over its cell: it also takes in the seals of run,
attempt, test set and predictions, and the last link of the chain with the number of links. A seal has no key: it finds
damage and careless hands. Whoever can rewrite the database can seal it anew, so that an organiser publishes the digest
of the whole (`harness audit`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LATE = "late:"
"""Before the seal of an outcome of an older version: it was sealed when the database was migrated, not when the cell
ended."""
_LINKED = ("rows", "tokens", "bytes_up", "bytes_down", "seconds", "level", "sha256")


def chained(previous: str, row: Mapping[str, Any]) -> str:
    """Next link of the ledger's hash chain."""
    return hashlib.sha256(f"{previous}{json.dumps([row[name] for name in _LINKED])}".encode()).hexdigest()


def first_link(run: str, task: str, split: int, attempt: int) -> str:
    """What the first query of an attempt is chained to."""
    return hashlib.sha256(f"{run}/{task}/{split}/{attempt}".encode()).hexdigest()


def row_seal(table: str, row: Mapping[str, Any]) -> str:
    """Digest of a row: the table's name, and every column but ``seal`` in the order of their names."""
    columns = {name: _plain(value) for name, value in sorted(row.items()) if name != "seal"}
    return _digest([table, columns])


def closing_seal(
    outcome: Mapping[str, Any],
    run_seal: str,
    attempt_seal: str,
    test_seal: str,
    incumbent_seals: Sequence[str],
    queries: int,
    last_link: str,
    mark: str = "",
) -> str:
    """Seal of an outcome, over everything its cell consists of; `incumbent_seals` by ascending mark.

    `mark` is `LATE`, or empty; it stands before the digest and is part of it.
    """
    parts = [run_seal, attempt_seal, test_seal, list(incumbent_seals), queries, last_link, mark]
    return mark + _digest([row_seal("outcomes", outcome), *parts])


def mark_of(seal: str) -> str:
    """The `mark` that an outcome's seal was made with."""
    return LATE if seal.startswith(LATE) else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A column's value as JSON: bytes by their digest, so that they are not mistaken for text."""
    return ["bytes", hashlib.sha256(value).hexdigest()] if isinstance(value, bytes | memoryview) else value
