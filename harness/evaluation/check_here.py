"""Runs a submission on the fake language model in this process, without isolation, for debugging."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.blackbox.fake import FakeLM
from harness.contract import Answer
from harness.errors import BudgetExhausted, SubmissionError
from harness.sandbox.presets import on_task
from harness.sandbox.submission import loaded
from harness.solving import answers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from harness.contract import Shots, Task
    from harness.sandbox.submission import Submission

CALLS = 200
LONGEST_S = 60


@dataclass(frozen=True)
class Checked:
    """The result of running `tune` on the fake model."""

    answers: int
    last: Answer | None
    calls: float
    """Calls used, of `CALLS`."""
    end: str
    """The outcome in words."""
    config: Mapping[str, object]
    """The full configuration."""
    output: str = ""
    """What it printed, unless it printed to this terminal."""


def run(found: Submission, options: Mapping[str, str], task: Task, shots: Shots) -> Checked:
    """Import a submission from its own folder and run it.

    Raises:
        SubmissionError: the submission fails. The author's own traceback is its cause.
        AnswerError: an answer breaks the contract.
    """
    before = signal.signal(signal.SIGALRM, _end)
    signal.alarm(LONGEST_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its output must not mix with the report
            return _run(found, options, task, shots)
    except _TooLongError as problem:
        raise SubmissionError(str(problem)) from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def too_long() -> str:
    """The message about a submission that does not end in time."""
    return f"no end after {LONGEST_S} s and no query that met the budget; is there a loop without queries?"


def _run(found: Submission, options: Mapping[str, str], task: Task, shots: Shots) -> Checked:
    lm = FakeLM.for_task(task, shots, calls=CALLS, seed=0)
    given: list[Answer] = []
    end = "returned by itself"
    try:
        with loaded(found.path, on_task(found, options, task.name)) as solver:
            config = {each.name: getattr(solver.config, each.name) for each in dataclasses.fields(solver.config)}
            try:
                for answer in solver.tune(lm, task, shots, np.random.default_rng(0), solver.config):
                    if not isinstance(answer, Answer):
                        raise SubmissionError(f"tune yielded {type(answer).__name__}; yield harness.Answer")
                    given.append(answer)
            except BudgetExhausted:
                end = "ended by the budget"
    except SubmissionError:
        raise
    except (Exception, SystemExit) as problem:
        raise SubmissionError(f"{found.path} raised:\n{traceback.format_exc()}") from problem
    for answer in given:
        answers.check(answers.from_bytes(answers.to_bytes(answer)), task, lm.info.width)
    used = lm.budget.calls_total - lm.budget.calls_left
    return Checked(len(given), given[-1] if given else None, used, end, config)


class _TooLongError(BaseException):
    """Is not caught by any `except Exception` of a submission."""


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLongError(too_long())
