"""`harness check`: a submission on the fake language model, in seconds.

The submission runs in a worker, in the best tier of isolation, as in an evaluation. For authors who debug their own
code, it can also run in this process. The fake model has no weights, so only the source of a white-box reference is
checked.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox import wire
from harness.blackbox.fake import FakeModel, fake_shots, fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session
from harness.errors import SubmissionError
from harness.evaluation import check_here
from harness.evaluation.check_here import CALLS, Checked
from harness.sandbox import best_tier, launch
from harness.sandbox import submission as submissions
from harness.sandbox.presets import on_task
from harness.sandbox.snapshot import as_given, snapshot
from harness.sandbox.trial import refusal
from harness.solving import answers
from harness.solving.metrics import accuracy
from harness.tracks.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.contract import Shots, Task

MEMORY_GB = 4
_GRACE_S = 5.0
_LARGEST = 64 << 20


def check(path: Path, options: Mapping[str, str], *, here: bool = False) -> dict[str, Any]:
    """Import a submission and run it on a fake model with a budget of `CALLS` calls.

    Args:
        path: its folder.
        options: values of its Config's fields, as text.
        here: whether it runs in this process, with the caller's rights and without isolation, for debugging.

    Returns:
        A report. Its `lines` are for people, and its `output` is what the submission printed in its worker.

    Raises:
        SubmissionError: the submission fails. The error has the author's own traceback.
        AnswerError: an answer breaks the contract.
        SandboxError: no worker process can be started.
    """
    found = submissions.find(path)
    if found.access == "white-box":
        return _source_report(found)
    task = fake_task()
    shots = fake_shots(task, np.random.default_rng(0))
    started = time.monotonic()
    tier = "" if here else best_tier.best().tier
    checked = check_here.run(found, options, task, shots) if here else _in_a_worker(found, options, task, shots)
    seconds = time.monotonic() - started
    if checked.last is None:
        raise SubmissionError(f"{found.path}: tune ended without a single answer; yield one before the budget ends")
    model = FakeModel(task, 0, *_SHAPE)
    p = answers.probabilities(checked.last, task, model, shots.dev.texts)
    dev = float(accuracy(p.argmax(axis=1), shots.dev.labels))
    where = "in this process, without isolation" if here else f"in a worker, sandbox tier {tier}"
    config = ", ".join(f"{name}={value!r}" for name, value in checked.config.items())
    lines = [
        f"{found.name}: imported, Config({config}), {where}",
        f"{checked.answers} answers, {checked.calls:,.0f} of {CALLS:,} calls used, {checked.end}, {seconds:.1f} s",
        f"dev accuracy on the fake model {dev:.2f} (chance {1 / len(task.classes):.2f}, planted prompt about 1)",
        f"final answer: {len(checked.last.members)} members, {len(answers.to_bytes(checked.last)):,} bytes",
    ]
    return {
        "submission": found.name,
        "access": found.access,
        "sandbox": tier,
        "answers": checked.answers,
        "calls": checked.calls,
        "end": checked.end,
        "dev_accuracy": dev,
        "output": checked.output,
        "lines": lines,
    }


_SHAPE = 3, 16, 4
"""Layers, width and prompt tokens of the fake model."""


@dataclass(frozen=True)
class _Nowhere:
    """A ledger that discards all rows."""

    def record(self, row: object) -> None:
        """Discard the row."""


def _in_a_worker(found: submissions.Submission, options: Mapping[str, str], task: Task, shots: Shots) -> Checked:
    """Run a submission as an evaluation does: in a worker, from a snapshot, with a session that serves it."""
    wall_s = float(check_here.LONGEST_S)
    limits, meter = Limits(wall_s=wall_s, memory_gb=MEMORY_GB), Meter(CALLS, len(shots.train))
    model: Any = FakeLanguageModel(task)  # whose "token ids" are words
    session = Session(PricedModel(model, task, _LARGEST, _LARGEST), meter, _Nowhere())
    examples = list(shots.train.texts), shots.train.labels.tolist(), list(shots.dev.texts), shots.dev.labels.tolist()
    info, rows = dataclasses.asdict(model.fake.info), meter.budget.rows_total
    given = on_task(found, options, task.name)
    with snapshot(found) as folder:
        deadline = time.monotonic() + wall_s
        worker = launch.start(limits, folder, best_tier.best().tier)
        tuning, grace_s = session.tuning, 0.0
        try:
            job = wire.Job(str(folder), dataclasses.asdict(task), *examples, info, rows, given, 0)
            worker.sock.settimeout(wall_s)
            worker.sock.sendall(wire.encode(job))
            session.serve(worker.sock, deadline)
            grace_s = 0.0 if tuning.end == "timeout" else _GRACE_S
        except OSError:
            tuning.end = "closed"
        finally:
            left = worker.end(grace_s)
    detail, output = (as_given(text, folder, found) for text in (tuning.detail, left.output))
    if tuning.end == "timeout":
        raise SubmissionError(check_here.too_long())
    if tuning.config is None and tuning.end in {"crashed", "closed"}:
        raise refusal(found, detail or f"the worker left with exit code {left.code}\n{output}")
    if tuning.end == "answer":
        raise SubmissionError(f"{found.path}: {detail}")
    if tuning.end in {"crashed", "memory", "closed", "protocol"}:
        said = detail or f"the worker left with exit code {left.code}\n{output}"
        raise SubmissionError(f"{found.path} {_HOW[tuning.end]}:\n{said}")
    used = meter.budget.calls_total - meter.budget.calls_left
    last = None if tuning.last is None else tuning.last.answer
    end = "ended by the budget" if tuning.end == "budget" else "returned by itself"
    return Checked(len(tuning.history), last, used, end, tuning.config or {}, output)


_HOW = {
    "crashed": "raised",
    "memory": f"took more than {MEMORY_GB} GiB of memory",
    "closed": "ended its process",
    "protocol": "broke the protocol",
}


def _source_report(found: submissions.Submission) -> dict[str, Any]:
    submissions.check_source(found)
    lines = [
        f"{found.name}: a white-box reference, with tune and Config; nothing was run",
        "it trains with the model's weights, which the fake model has not; it is listed but never ranked",
    ]
    return {"submission": found.name, "access": found.access, "lines": lines}
