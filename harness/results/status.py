"""How a cell may end. This is data about statuses, for code that runs cells and code that ranks them."""

from __future__ import annotations

MEANING = {
    "ok": "tune returned",
    "budget_exhausted": "the budget ended it",
    "timeout": "the wall-clock limit ended it",
    "no_answer": "it ended without a single answer",
    "crashed": "an exception, or the process died; the traceback is kept",
    "invalid_answer": "an answer that breaks the contract",
    "protocol_error": "bytes on the socket that are not of the wire format",
    "out_of_memory": "more memory than the limit, or than the machine had left",
    "too_costly": "its answers took more time to apply to the test set than the limit",
}
COUNTS = frozenset({"ok", "budget_exhausted", "timeout"})
"""Statuses whose answer is scored. All others are failures; they are shown as failures and ranked as `FAILED` says."""
FAILED = "counts as the majority class, or as 0 where the answer is text"
"""What becomes of a failed cell."""

MARKS = (1 / 256, 1 / 64, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Fractions of the budget at which the incumbent is stored and scored, for the anytime curve. A cell's facts list
them."""
FIRST_MARKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""The marks of older cells, whose facts list none."""
