"""One cell: a worker tunes, the referee applies its answers to the test set afterwards, and the store keeps the facts.

A white-box reference has no worker: it trains in this process, with the model's weights (`run_reference`).
How a cell may end is in `harness.status`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from harness import answer as answers
from harness.data import examples_sha256, load_shots, load_test
from harness.errors import AnswerError, SubmissionError
from harness.lm import wire
from harness.lm.broker import Broker, Incumbent, Service
from harness.lm.probe import fingerprint
from harness.lm.turns import waited_s
from harness.meter import Meter
from harness.metrics import score
from harness.sandbox import ladder, launch
from harness.sandbox.tiers import REFEREE
from harness.sandbox.trial import refusal
from harness.status import COUNTS, MARKS
from harness.store import KeptAnswer
from harness.submission import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.contract import Examples, ModelInfo, Shots, Task
    from harness.data import Source
    from harness.lm.model import LanguageModel
    from harness.sandbox.tiers import Tier
    from harness.store import Attempt
    from harness.submission import Solver, Submission
    from harness.tasks import TaskFile
    from harness.track import Limits, TrackTask
    from harness.whitebox import Training

_GRACE_S = 5.0

Watch: TypeAlias = "Callable[[int, dict[str, float]], None]"


@dataclass(frozen=True)
class Cell:
    """One task and split on one track, ready to run."""

    file: TaskFile
    task: Task
    split: int
    spec: TrackTask
    limits: Limits
    source: Source
    seed: int

    @property
    def train_rows(self) -> int:
        """Rows of one call."""
        return len(load_shots(self.file, self.source, self.split, self.spec).train)

    @property
    def worker_seed(self) -> int:
        """Seed of the submission's generator: a function of run seed, task and split alone."""
        digest = hashlib.sha256(f"{self.seed}/{self.task.name}/{self.split}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 2


@dataclass(frozen=True)
class Verdict:
    """How a cell ended."""

    status: str
    facts: dict[str, Any]
    score: float | None
    """Test score of the final answer, for progress; None for a failure. Rankings recompute it."""
    stored: bool
    """False where another process had finished the same cell first."""


def run_cell(
    cell: Cell,
    submission: Submission,
    options: Mapping[str, str],
    lm: LanguageModel,
    attempt: Attempt,
    watch: Watch,
    tier: Tier | None = None,
) -> Verdict:
    """Run a submission on a cell and store what came of it, in the best tier of isolation or the one that is given.

    Raises:
        SandboxError: no worker can be isolated so.
        SubmissionError: the submission cannot be imported or configured; nothing is stored.
        DataError: the data are not there or malformed.
        StoreError: a fact could not be made durable.
    """
    from harness.lm import device  # noqa: PLC0415 - torch, which a command that only checks or resumes does without

    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    info = lm.info(shots.train.texts, cell.task.template)
    probed = fingerprint(lm, cell.task)
    device.reset_peak(lm.device)
    meter = Meter(cell.spec.calls, len(shots.train))
    broker = Broker(lm, cell.task, meter, attempt, cell.limits.answer_mb << 20, cell.limits.frame_mb << 20, watch)
    started, before, waited = time.monotonic(), time.perf_counter(), waited_s()
    worker = launch.start(cell.limits, submission.path, tier or ladder.best().tier)
    service, grace_s = broker.service, 0.0
    try:
        _hand_over(worker, _job(cell, shots, info, submission, options, meter), cell.limits.wall_s)
        broker.serve(worker.sock, started + cell.limits.wall_s)
        grace_s = _GRACE_S if service.end in {"returned", "budget", "crashed", "memory", "answer", "closed"} else 0.0
    finally:
        left = worker.end(grace_s)
    waited = waited_s() - waited
    tuning_s = time.perf_counter() - before - waited
    status = _status(service, left)
    if service.config is None and status == "crashed":
        raise refusal(submission, service.detail or left.output)
    test = load_test(cell.file, cell.source)  # only now, after the worker is dead
    before, waited_before = time.perf_counter(), waited_s()
    try:
        kept = _apply(service, cell.task, lm, test)
    except AnswerError as problem:
        kept = []
        if status in COUNTS:  # a failure keeps its own reason
            status, service.detail = "invalid_answer", str(problem)
    facts = _facts(cell, shots, meter, service, left) | {
        "sandbox": worker.isolation.tier,
        "isolation": dataclasses.asdict(worker.isolation),
        "tuning_s": tuning_s,
        "waited_s": waited,
        "test_s": time.perf_counter() - before - (waited_s() - waited_before),
        "device_peak_mb": device.peak_mb(lm.device),
        "probe": probed,
    }
    return _finished(cell, attempt, status, facts, test, kept)


def _finished(
    cell: Cell, attempt: Attempt, status: str, facts: dict[str, Any], test: Examples, kept: list[KeptAnswer]
) -> Verdict:
    """Store how a cell ended."""
    stored = attempt.finish(status, facts, examples_sha256(test), test.labels, kept)
    shown = None
    if kept and status in COUNTS:
        shown = float(score(cell.task.metric, kept[-1].predictions, test.labels, len(cell.task.classes)))
    return Verdict(status, facts, shown, stored)


def _hand_over(worker: launch.Worker, job: wire.Job, wall_s: float) -> None:
    """Send the job; a worker that is gone or does not read it shows in what follows."""
    worker.sock.settimeout(wall_s)
    with contextlib.suppress(OSError):
        worker.sock.sendall(wire.encode(job))


def _job(
    cell: Cell, shots: Shots, info: ModelInfo, submission: Submission, options: Mapping[str, str], meter: Meter
) -> wire.Job:
    return wire.Job(
        str(submission.path),
        dataclasses.asdict(cell.task),
        list(shots.train.texts),
        shots.train.labels.tolist(),
        list(shots.dev.texts),
        shots.dev.labels.tolist(),
        dataclasses.asdict(info),
        meter.budget.rows_total,
        dict(options),
        cell.worker_seed,
    )


def _status(service: Service, left: launch.Exit) -> str:
    """What the end of the conversation and of the process say together."""
    killed = service.end == "closed" and left.code == -signal.SIGKILL
    if service.end == "memory" or killed:
        service.detail = service.detail or "the worker was killed from outside, as the kernel does when memory runs out"
        return "out_of_memory"
    failures = {"crashed": "crashed", "protocol": "protocol_error", "answer": "invalid_answer", "closed": "crashed"}
    if service.end in failures:
        service.detail = (
            service.detail or f"the worker left with exit code {left.code} before it was finished\n{left.output}"
        )
        return failures[service.end]
    if service.last is None:
        return "no_answer"
    return {"returned": "ok", "budget": "budget_exhausted"}.get(service.end, "timeout")


def _facts(cell: Cell, shots: Shots, meter: Meter, service: Service, left: launch.Exit) -> dict[str, Any]:
    """What is known of a cell beside its status and predictions; plain data."""
    return {
        "detail": service.detail,
        "config": service.config or {},
        "calls_total": cell.spec.calls,
        "rows_total": meter.budget.rows_total,
        "rows_spent": meter.spent,
        "train_rows": len(shots.train),
        "queries": service.queries,
        "level": service.level,
        "tokens": service.tokens,
        "bytes_up": service.bytes_up,
        "bytes_down": service.bytes_down,
        "declared_bytes": service.declared_bytes,
        "nominal_up": service.nominal_up,
        "nominal_down": service.nominal_down,
        "lm_s": service.lm_s,
        "waited_s": 0.0,
        "refused": service.refused,
        "rejected": service.rejected,
        "worker_peak_mb": left.peak_mb,
        "referee_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worker_exit": left.code,
        "output": left.output,
        "note": service.last.answer.note if service.last else {},
        "history": service.history,
        "marks": MARKS,
        "template": cell.task.template,
        "words": list(cell.task.words),
        "shots_sha256": [examples_sha256(shots.train), examples_sha256(shots.dev)],
        "sandbox": REFEREE,
        "isolation": {},
        "seed": cell.worker_seed,
        "access": "black-box",
    }


def _apply(service: Service, task: Task, lm: LanguageModel, test: Examples) -> list[KeptAnswer]:
    """Predictions of every kept incumbent, computed once per distinct answer."""
    known: dict[bytes, Any] = {}

    def kept(mark: float, incumbent: Incumbent) -> KeptAnswer:
        if incumbent.blob not in known:
            try:
                p = answers.probabilities(incumbent.answer, task, lm, test.texts)
            except MemoryError as problem:  # of the heads; a device's own is `DeviceMemoryError`, and nobody's fault
                raise AnswerError(f"too little memory to apply this answer: {problem}") from problem
            known[incumbent.blob] = p.argmax(axis=1)
        return KeptAnswer(mark, incumbent.rows, incumbent.blob, known[incumbent.blob])

    return [kept(mark, incumbent) for mark, incumbent in sorted(service.incumbents.items())]


def run_reference(
    cell: Cell, submission: Submission, options: Mapping[str, str], lm: LanguageModel, attempt: Attempt, watch: Watch
) -> Verdict:
    """Run a white-box reference on a cell, in this process and without a sandbox, and store what came of it.

    Raises:
        SubmissionError: it cannot be imported or configured; nothing is stored.
        DataError: the data are not there or malformed.
        StoreError: a fact could not be made durable.
    """
    from harness.lm import device  # noqa: PLC0415 - torch, as in `run_cell`
    from harness.whitebox import WhiteBox, train  # noqa: PLC0415 - torch

    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    probed = fingerprint(lm, cell.task)
    device.reset_peak(lm.device)
    before = time.perf_counter()
    white = WhiteBox(lm, cell.task, shots.train.texts, time.monotonic() + cell.limits.wall_s)
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:  # what it prints is no result
        solver = _imported(stack, submission, options)
        training = train(solver, white, cell.task, shots, cell.worker_seed, watch)
        tuning_s = time.perf_counter() - before
        test = load_test(cell.file, cell.source)  # only now, after training has ended
        before = time.perf_counter()
        kept = []
        if training.last is not None and training.status in COUNTS:
            try:
                kept = [KeptAnswer(1.0, 0, b"", training.last.classes(test.texts, len(cell.task.classes)))]
            except Exception:  # noqa: BLE001 - the author's code again
                training.status, training.detail = "invalid_answer", traceback.format_exc()
    facts = _reference_facts(cell, shots, solver.config, training) | {
        "tuning_s": tuning_s,
        "test_s": time.perf_counter() - before,
        "device_peak_mb": device.peak_mb(lm.device),
        "probe": probed,
    }
    return _finished(cell, attempt, training.status, facts, test, kept)


def score_handed(
    cell: Cell, service: Service, lm: LanguageModel, attempt: Attempt, tuning_s: float, where: str
) -> Verdict:
    """Apply an answer that was handed in from outside, without a worker, and store what came of it.

    `service` says what was asked and answered before, and holds the answer; `where` stands in the sandbox's place and
    makes a division of its own, since neither the solver's time nor its means were under control.

    Raises:
        DataError: the data are not there or malformed.
        StoreError: a fact could not be made durable.
    """
    from harness.lm import device  # noqa: PLC0415 - torch, as in `run_cell`

    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    meter = Meter(cell.spec.calls, len(shots.train))
    if service.last is not None and service.last.rows:
        meter.charge(1, service.last.rows)
    probed, test = fingerprint(lm, cell.task), load_test(cell.file, cell.source)
    device.reset_peak(lm.device)
    before, status, kept = time.perf_counter(), "ok", []
    try:
        kept = _apply(service, cell.task, lm, test)
    except AnswerError as problem:
        status, service.detail = "invalid_answer", str(problem)
    facts = _facts(cell, shots, meter, service, launch.Exit(0, "", 0.0)) | {
        "tuning_s": tuning_s,
        "test_s": time.perf_counter() - before,
        "device_peak_mb": device.peak_mb(lm.device),
        "probe": probed,
        "marks": (1.0,),
        "sandbox": where,
    }
    return _finished(cell, attempt, status, facts, test, kept)


def _imported(stack: contextlib.ExitStack, submission: Submission, options: Mapping[str, str]) -> Solver:
    """A reference's code, to be taken out of this process when the stack closes."""
    try:
        return stack.enter_context(loaded(submission.path, options))
    except SubmissionError:
        raise
    except ModuleNotFoundError as problem:
        raise SubmissionError(
            f"{submission.path}: the module {problem.name!r} is not installed. What the references that ship need "
            'comes with: pip install -e ".[references]"'
        ) from problem
    except Exception as problem:
        raise SubmissionError(f"{submission.path}: cannot be imported:\n{traceback.format_exc()}") from problem


def _reference_facts(cell: Cell, shots: Shots, config: Any, training: Training) -> dict[str, Any]:
    """The facts of a cell without worker, queries and budget; 0 is what they are then."""
    from harness.whitebox import WHITE_BOX_LEVEL  # noqa: PLC0415 - torch, loaded by now

    plain = (bool, int, float, str, type(None))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    shown: dict[str, object] = {k: v if isinstance(v, plain) else repr(v) for k, v in values.items()}
    service = Service(detail=training.detail, config=shown, history=training.history, level=WHITE_BOX_LEVEL)
    return _facts(cell, shots, Meter(cell.spec.calls, len(shots.train)), service, launch.Exit(0, "", 0.0)) | {
        "calls_total": 0,
        "rows_total": 0,
        "note": training.note,
        "access": "white-box",
    }
