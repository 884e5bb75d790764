"""`harness check`: a submission on the fake language model, in this process, in seconds.

The fake model has no weights, so of a white-box reference only the source is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox.fake import FakeLM, fake_shots, fake_task
from harness.contract import Answer
from harness.errors import BudgetExhausted, SubmissionError
from harness.sandbox import submission as submissions
from harness.sandbox.presets import on_task
from harness.solving import answers
from harness.solving.metrics import accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import FrameType

CALLS = 200
LONGEST_S = 60


def check(path: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """Import a submission and run it on a fake model with a budget of `CALLS` calls.

    Returns a report; its `lines` are for people.

    Raises:
        SubmissionError: whatever is wrong, with the author's own traceback as its cause.
    """
    found = submissions.find(path)
    if found.access == "white-box":
        return _source_report(found)
    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is not the report
            given, end, lm, shots, task, config = _run(found, options)
    except _TooLongError as problem:
        raise SubmissionError(str(problem)) from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    seconds = time.monotonic() - started
    if not given:
        raise SubmissionError(f"{found.path}: tune ended without a single answer; yield one before the budget ends")
    for answer in given:
        blob = answers.to_bytes(answer)
        answers.check(answers.from_bytes(blob), task, lm.info.width)
    p = answers.probabilities(given[-1], task, lm.free, shots.dev.texts)
    dev = float(accuracy(p.argmax(axis=1), shots.dev.labels))
    used = lm.budget.calls_total - lm.budget.calls_left
    lines = [
        f"{found.name}: imported, Config({config})",
        f"{len(given)} answers, {used:,.0f} of {lm.budget.calls_total:,.0f} calls used, {end}, {seconds:.1f} s",
        f"dev accuracy on the fake model {dev:.2f} (chance {1 / len(task.classes):.2f}, planted prompt about 1)",
        f"final answer: {len(given[-1].members)} members, {len(answers.to_bytes(given[-1])):,} bytes",
    ]
    return {
        "submission": found.name,
        "access": found.access,
        "answers": len(given),
        "calls": used,
        "end": end,
        "dev_accuracy": dev,
        "lines": lines,
    }


def _source_report(found: submissions.Submission) -> dict[str, Any]:
    submissions.check_source(found)
    lines = [
        f"{found.name}: a white-box reference, with tune and Config; nothing was run",
        "it trains with the model's weights, which the fake model has not; it is listed but never ranked",
    ]
    return {"submission": found.name, "access": found.access, "lines": lines}


def _run(found: submissions.Submission, options: Mapping[str, str]) -> tuple[list[Answer], str, FakeLM, Any, Any, str]:
    task = fake_task()
    shots = fake_shots(task, np.random.default_rng(0))
    lm = FakeLM.for_task(task, shots, calls=CALLS, seed=0)
    given: list[Answer] = []
    end = "returned by itself"
    try:
        solver = submissions.load(found.path, on_task(found, options, task.name))
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
    config = ", ".join(f"{name}={value!r}" for name, value in _fields(solver.config))
    return given, end, lm, shots, task, config


def _fields(config: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]


class _TooLongError(BaseException):
    """Passes every `except Exception` of a submission."""


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLongError(
        f"no end after {LONGEST_S} s and no query that met the budget; is there a loop without queries?"
    )
