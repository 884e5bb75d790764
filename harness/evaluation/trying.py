"""Tries a submission in a worker, as an evaluation does, and stores nothing: the run behind `harness check`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.blackbox import wire
from harness.blackbox.meter import Meter
from harness.blackbox.session import Session
from harness.errors import SubmissionError
from harness.evaluation.endings import stack_of, unfit
from harness.sandbox import best_tier, launch
from harness.sandbox.snapshot import as_given, snapshot
from harness.sandbox.trial import refusal
from harness.tracks.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.blackbox.answered import Answered
    from harness.blackbox.pricing import PricedModel
    from harness.blackbox.session import Tuning
    from harness.contract import Answer, ModelInfo, Shots
    from harness.results.records import LedgerRow
    from harness.sandbox.submission import Submission

LONGEST_S = 60.0
"""Seconds that a submission has, unless somebody says otherwise."""
MEMORY_GB = 4
_GRACE_S = 5.0
FOREVER_S = 1e6
"""The wall clock of a trial without a limit: eleven days. A socket waits no longer than 24."""


class EnoughError(BaseException):
    """Ends a trial of one query, when the submission asks the second one. No `except Exception` of it catches this."""


class OneQuery(Session):
    """A session that answers one query. It ends with the next one."""

    def _query(self, frame: wire.QueryFrame | wire.Score | wire.Generate, body: bytes) -> Answered:
        if self.tuning.usage.queries:
            raise EnoughError
        return super()._query(frame, body)


@dataclass(frozen=True)
class Trial:
    """What a submission is tried on."""

    priced: PricedModel
    info: ModelInfo
    shots: Shots
    calls: int
    """The budget."""
    options: Mapping[str, str]
    """Values of its Config's fields, as text, those of a preset among them."""
    seed: int = 0
    wall_s: float | None = None
    """Seconds that it has; None is no limit."""
    limits: Limits = field(default_factory=lambda: Limits(wall_s=LONGEST_S, memory_gb=MEMORY_GB))
    """Of memory and files; its wall clock does not count."""
    packages: tuple[str, ...] = ()
    """Distributions that it may import beside those of every track."""
    once: bool = False
    """Whether the trial ends when the second query is asked."""

    def session(self, meter: Meter, rows: Rows) -> Session:
        """A new session, which writes its ledger to `rows`."""
        return (OneQuery if self.once else Session)(self.priced, meter, rows)

    def meter(self) -> Meter:
        """The whole budget."""
        return Meter(self.calls, len(self.shots.train))


@dataclass
class Rows:
    """A ledger that stores nothing on disk."""

    answered: list[LedgerRow] = field(default_factory=list)

    def record(self, row: LedgerRow) -> None:
        """Keep the row."""
        self.answered.append(row)


@dataclass(frozen=True)
class Checked:
    """The result of a trial."""

    answers: int
    last: Answer | None
    calls: float
    """Calls used."""
    end: str
    """The outcome in words."""
    config: Mapping[str, object]
    """The full configuration."""
    rows: tuple[LedgerRow, ...] = ()
    """The answered queries."""
    advice: str = ""
    """What the author should know of the end; usually nothing."""
    output: str = ""
    """What it printed, unless it printed to this terminal."""


def result(found: Submission, trial: Trial, tuning: Tuning, meter: Meter, rows: Rows, *, output: str = "") -> Checked:
    """The result of a conversation that came to its end.

    Raises:
        SubmissionError: nothing was searched: there is no answer, or the first query did not fit into the budget.
    """
    problem = unfit(tuning, meter.budget)
    if problem:
        raise SubmissionError(f"{found.path}: {problem}{_more(trial)}")
    if tuning.last is None and not (trial.once and rows.answered):
        advice = f" ({tuning.detail})" if tuning.end == "returned" and tuning.detail else ""
        raise SubmissionError(
            f"{found.path}: tune ended without a single answer{advice}; yield one before the budget ends"
        )
    used = meter.budget.calls_total - meter.budget.calls_left
    last = None if tuning.last is None else tuning.last.answer
    end = {"budget": "ended by the budget", "returned": "returned by itself"}.get(tuning.end, "ended after one query")
    advice = tuning.detail if tuning.end == "returned" else ""
    return Checked(len(tuning.history), last, used, end, tuning.config or {}, tuple(rows.answered), advice, output)


def too_long(seconds: float, stack: str) -> str:
    """The message about a submission that does not end in time, with the stack at that moment."""
    where = f"\n{stack}" if stack else ""
    return (
        f"no end after {seconds:g} s and no query that met the budget; is there a loop without queries? --timeout "
        f"gives it more time{where}"
    )


def in_a_worker(found: Submission, trial: Trial) -> Checked:
    """Run a submission as an evaluation does: in a worker, from a snapshot, with a session that serves it.

    Raises:
        SubmissionError: the submission fails. The error has the author's own traceback.
        SandboxError: no worker process can be started.
    """
    meter, rows = trial.meter(), Rows()
    session = trial.session(meter, rows)
    tuning, wall_s, grace_s = session.tuning, trial.wall_s or FOREVER_S, 0.0
    limits = Limits(wall_s=wall_s, memory_gb=trial.limits.memory_gb, open_files=trial.limits.open_files)
    with snapshot(found) as folder:
        deadline = time.monotonic() + wall_s
        worker = launch.start(limits, folder, best_tier.best().tier, trial.packages)
        try:
            worker.sock.settimeout(wall_s)
            worker.sock.sendall(wire.encode(_job(str(folder), trial, meter)))
            session.serve(worker.sock, deadline)
            grace_s = 0.0 if tuning.end == "timeout" else _GRACE_S
        except OSError:
            tuning.end = "closed"
        except EnoughError:
            tuning.end = "budget"
        finally:
            left = worker.end(grace_s, stack=tuning.end == "timeout")
        tuning.detail = "" if tuning.end == "timeout" else tuning.detail
        stack_of(tuning, left, folder, found)
    detail, output = (as_given(text, folder, found) for text in (tuning.detail, left.output))
    tuning.detail = detail
    if tuning.end == "timeout":
        raise SubmissionError(f"{found.path}: {too_long(wall_s, detail)}{_printed(output)}")
    if tuning.config is None and tuning.end in {"crashed", "closed"}:
        raise refusal(found, detail or f"the worker left with exit code {left.code}\n{output}")
    if tuning.end == "answer":
        raise SubmissionError(f"{found.path}: {detail}{_printed(output)}")
    if tuning.end in {"crashed", "memory", "closed", "protocol"}:
        said = detail or f"the worker left with exit code {left.code}"
        raise SubmissionError(f"{found.path} {_how(tuning.end, limits)}:\n{said}{_printed(output)}")
    return result(found, trial, tuning, meter, rows, output=output)


def _how(end: str, limits: Limits) -> str:
    return {
        "crashed": "raised",
        "memory": f"took more than {limits.memory_gb:g} GiB of memory",
        "closed": "ended its process",
        "protocol": "broke the protocol",
    }[end]


def _printed(output: str) -> str:
    """What a failed submission printed, for the end of a message."""
    return f"\nIt had printed:\n{output.rstrip()}" if output.strip() else ""


def _more(trial: Trial) -> str:
    """How to check with a larger budget."""
    return "" if trial.once else f". If the track gives more than {trial.calls:,} calls, check with --calls N"


def _job(folder: str, trial: Trial, meter: Meter) -> wire.Job:
    task, rows = trial.priced.task, meter.budget.rows_total
    return wire.Job.of(folder, task, trial.shots, trial.info, rows, trial.options, trial.seed)
