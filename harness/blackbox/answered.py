"""A query that was charged and answered, and what it weighs by the papers' formula."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.results.records import LedgerRow

if TYPE_CHECKING:
    from harness.blackbox.defence import Seen
    from harness.blackbox.query import Query

TOKEN_BYTES, FLOAT_BYTES = 3, 4
"""Bytes in the nominal formula (BBT, appendix C): a token has two of id and one of mask, and a float has four."""


@dataclass(frozen=True)
class Answered:
    """A query that was charged and answered."""

    frame: bytes
    """The reply as it is sent over a socket. The ledger row has its digest, whatever the query is sent over."""
    row: LedgerRow
    nominal_up: int
    """Bytes by the papers' formula; see `harness.results.records.Usage`."""
    nominal_down: int
    new: Seen
    """What the solver had not been given before."""


def ledger_row(body: bytes, frame: bytes, rows: int, tokens: int, seconds: float, level: int) -> LedgerRow:
    """The row of a query that was received as `body` and answered by `frame`. Its digest covers both."""
    digest = hashlib.sha256(body)
    digest.update(frame)
    return LedgerRow(rows, tokens, len(body), len(frame), seconds, level, digest.hexdigest())


def nominal_up(query: Query, tokens: int) -> int:
    """Bytes of a query by the papers' formula: the tokens of all texts for every candidate, and the prompts' floats."""
    return TOKEN_BYTES * query.candidates * tokens + FLOAT_BYTES * query.prompt_floats
