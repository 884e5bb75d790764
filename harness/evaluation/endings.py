"""How a cell ended: its status and what is said of it, from the conversation with the worker and the process's end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from harness.sandbox import traces

if TYPE_CHECKING:
    from pathlib import Path

    from harness.blackbox.session import Tuning
    from harness.contract import Budget
    from harness.sandbox.launch import Exit
    from harness.sandbox.submission import Submission


def status_of(tuning: Tuning, left: Exit, budget: Budget) -> tuple[str, str]:
    """Status and detail of a cell. `harness.results.status` lists the statuses.

    Args:
        tuning: the conversation.
        left: how the process ended.
        budget: what is left of the cell's budget.

    Returns:
        The status, and the reason: for a failure the author's traceback, for a timeout the stack at that moment, and
        for a cell whose first query never fitted into the budget the numbers.
    """
    detail = tuning.detail
    killed = tuning.end == "closed" and left.code == -signal.SIGKILL
    if tuning.end == "memory" or killed:
        return "out_of_memory", (
            detail or "the worker was killed from outside, as the kernel does when memory runs out"
        )
    failures = {"crashed": "crashed", "protocol": "protocol_error", "answer": "invalid_answer", "closed": "crashed"}
    if tuning.end in failures:
        return failures[tuning.end], (
            detail or f"the worker left with exit code {left.code} before it was finished\n{left.output}"
        )
    detail = unfit(tuning, budget) or detail
    if tuning.last is None:
        return "no_answer", detail
    return {"returned": "ok", "budget": "budget_exhausted"}.get(tuning.end, "timeout"), detail


def unfit(tuning: Tuning, budget: Budget) -> str:
    """Why no query of a cell was answered, where its first one asked for more than the budget; else empty."""
    if tuning.usage.queries or not tuning.unfit_rows:
        return ""
    asked, total, each = tuning.unfit_rows, budget.rows_total, budget.train_rows
    return (
        f"no query was answered: the first one asked for {asked:,} rows, which are {asked / each:,.1f} calls, and the "
        f"whole budget is {total:,} rows, {total / each:,.0f} calls. Nothing was searched: ask for fewer candidates or "
        "texts at once, as lm.budget.calls_left allows"
    )


def stack_of(tuning: Tuning, left: Exit, folder: Path, submission: Submission) -> None:
    """Add the stack of a worker to the detail of a cell that the clock ended."""
    if tuning.end == "timeout":
        stack = traces.of_dump(left.stack, folder, dict(submission.files))
        if left.stack and not stack:
            stack = "no line of the submission's own code was running: its process was still loading packages"
        tuning.detail = "\n".join(filter(None, [tuning.detail, stack]))
