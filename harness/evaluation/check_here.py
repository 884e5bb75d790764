"""Runs a submission in this process, without isolation, for debugging. Its frames go the way of a worker's."""

from __future__ import annotations

import bdb
import contextlib
import dataclasses
import os
import pdb  # noqa: T100 - for the author's own breakpoint()
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox.in_process import in_process
from harness.errors import AnswerError, BudgetExhausted, SubmissionError
from harness.evaluation.trying import EnoughError, Rows, result, too_long
from harness.sandbox import answering, traces
from harness.sandbox.submission import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from harness.blackbox.session import Session
    from harness.contract import Budget
    from harness.evaluation.trying import Checked, Trial
    from harness.sandbox.submission import Submission


def run(found: Submission, trial: Trial) -> Checked:
    """Import a submission from its own folder and run it.

    A `breakpoint()` in it opens the debugger on this terminal, and the clock stands still from then on.

    Raises:
        SubmissionError: the submission fails, or an answer of it breaks the contract. The author's own traceback is its
            cause.
    """
    meter, rows = trial.meter(), Rows()
    session = trial.session(meter, rows)
    with _clock(trial.wall_s, found.path), contextlib.redirect_stdout(sys.stderr), _debugger():
        try:
            _tune(found, trial, session, meter.budget)
        except SubmissionError:
            raise
        except AnswerError as problem:
            raise SubmissionError(f"{found.path}: {problem}") from problem
        except _TooLongError as problem:
            raise SubmissionError(f"{found.path}: {problem}") from None
        except bdb.BdbQuit:
            raise SubmissionError(f"{found.path}: the debugger was left, and the check ended with it") from None
        except (Exception, SystemExit) as problem:
            raise SubmissionError(f"{found.path} raised:\n{traces.authors(problem, found.path)}") from problem
    return result(found, trial, session.tuning, meter, rows)


def _tune(found: Submission, trial: Trial, session: Session, budget: Budget) -> None:
    tuning, task = session.tuning, trial.priced.task
    lm = in_process(session, trial.info, task, budget, trial.shots)
    with loaded(found.path, trial.options) as solver:
        values = {each.name: getattr(solver.config, each.name) for each in dataclasses.fields(solver.config)}
        lm.ready({name: _plain(value) for name, value in values.items()})
        tuning.config = values
        rng = np.random.default_rng(trial.seed)
        try:
            tuning.detail = answering.offered(solver.tune(lm, task, trial.shots, rng, solver.config), lm.offer, task)
            tuning.end = "returned"
        except (BudgetExhausted, EnoughError):
            tuning.end = "budget"


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else repr(value)


@contextlib.contextmanager
def _clock(seconds: float | None, folder: Path) -> Iterator[None]:
    """Raise `_TooLongError` in the code that runs when the time is over. None is no limit."""

    def end(_signal: int, frame: FrameType | None) -> None:
        raise _TooLongError(too_long(seconds or 0.0, traces.of_frame(frame, folder)))

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _debugger() -> Iterator[None]:
    """Let `breakpoint()` stop the clock and talk to the terminal, not to the stream that a submission prints to."""

    def stop(*given: Any, **named: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        sys.stdout = sys.__stdout__
        if os.environ.get("PYTHONBREAKPOINT"):
            sys.__breakpointhook__(*given, **named)  # noqa: T100 - the debugger that the author has chosen
        else:
            pdb.Pdb(nosigint=True).set_trace(sys._getframe(1))  # noqa: SLF001 - the author's line, not this one

    before = sys.breakpointhook
    sys.breakpointhook = stop
    try:
        yield
    finally:
        sys.breakpointhook = before


class _TooLongError(BaseException):
    """Is not caught by any `except Exception` of a submission."""
