"""What a cell of a served model exchanged with its server, for the columns of tokens and money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.results.records import Billed

if TYPE_CHECKING:
    from harness.lm.endpoint.requests import Traffic


def billed(idle: Traffic | None, tuned: Traffic | None, scored: Traffic | None) -> Billed | None:
    """The exchange of one cell.

    Args:
        idle: what the cell's thread had exchanged before the submission started; None where there is no server.
        tuned: when the submission had ended.
        scored: when its answers were applied.

    Returns:
        Requests and tokens of both parts; None where there is no server.
    """
    if idle is None or tuned is None or scored is None:
        return None
    tuning, test = tuned - idle, scored - tuned
    both = tuning + test
    return Billed(both.requests, both.resent, tuning.sent, tuning.received, test.sent, test.received)
