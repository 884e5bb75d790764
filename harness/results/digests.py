"""Seals: digests by which a changed byte of the results database is found and named.

Every row has a seal. For a query it is the row's link in the ledger's hash chain; for an answer it is the answer's
name; for any other row it is the digest of its columns. The seal of an outcome covers its whole cell: it includes the
seals of the run, attempt, test set and predictions, and the last link and the length of the chain. Seals have no key,
so they show damage and mistakes. Somebody who can rewrite the database can also compute new seals. For that reason an
organiser publishes the digest of the whole database (`harness audit`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LATE = "late:"
"""Prefix of an outcome's seal that was made when an older database was migrated and not when the cell ended."""
_OF_NOTHING = hashlib.sha256(b"").hexdigest()
_LINKED = ("rows", "tokens", "bytes_up", "bytes_down", "seconds", "level", "sha256")


def chained(previous: str, row: Mapping[str, Any]) -> str:
    """The next link of the ledger's hash chain."""
    return hashlib.sha256(f"{previous}{json.dumps([row[name] for name in _LINKED])}".encode()).hexdigest()


def first_link(run: str, task: str, split: int, attempt: int) -> str:
    """The value to which the first query of an attempt is chained."""
    return hashlib.sha256(f"{run}/{task}/{split}/{attempt}".encode()).hexdigest()


def row_seal(table: str, row: Mapping[str, Any]) -> str:
    """Digest of a row: the table's name, and every column but ``seal``, in the order of their names."""
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
    """The seal of an outcome, which covers everything in its cell. `incumbent_seals` are in the order of the marks.

    `mark` is `LATE` or empty. It stands before the digest and is also hashed.
    """
    parts = [run_seal, attempt_seal, test_seal, list(incumbent_seals), queries, last_link, mark]
    return mark + _digest([row_seal("outcomes", outcome), *parts])


def left_out(blob: bytes, sha256: str) -> bool:
    """Whether an answer's bytes were left out when it was published (`harness.results.packed`).

    An answer can also be empty from the start: that of a white-box reference is.
    """
    return not blob and sha256 != _OF_NOTHING


def mark_of(seal: str) -> str:
    """The `mark` with which an outcome's seal was made."""
    return LATE if seal.startswith(LATE) else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A column's value as JSON. Bytes are replaced by their digest, so that they cannot be confused with text."""
    return ["bytes", hashlib.sha256(value).hexdigest()] if isinstance(value, bytes | memoryview) else value
