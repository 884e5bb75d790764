"""What a cell of a served model exchanged with its server, for the columns of tokens and money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.results.records import Billed

if TYPE_CHECKING:
    from harness.lm.endpoint.requests import Traffic


def between(before: Traffic | None, after: Traffic | None) -> Traffic | None:
    """What a thread exchanged between two looks at its traffic; None where there is no server."""
    return None if before is None or after is None else after - before


def without(found: Traffic | None, others: Traffic | None) -> Traffic | None:
    """What is left of a thread's traffic if that of others is taken out; None of them is none."""
    return found if found is None or others is None else found - others


def billed(tuning: Traffic | None, test: Traffic | None) -> Billed | None:
    """The exchange of one cell.

    Args:
        tuning: of the submission; None where there is no server.
        test: of the referee, who applied its answers.

    Returns:
        Requests and tokens of both parts; None where there is no server.
    """
    if tuning is None or test is None:
        return None
    both = tuning + test
    return Billed(both.requests, both.resent, tuning.sent, tuning.received, test.sent, test.received)
