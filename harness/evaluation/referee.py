"""Runs one cell: a worker tunes, then the referee applies its answers to the test set and stores the facts.

A white-box reference has no worker. It trains in this process, with the model's weights (`run_reference`).
`harness.results.status` lists the ways in which a cell can end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from harness.blackbox import wire
from harness.blackbox.lock import waited_s
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session
from harness.contract import TextTask
from harness.errors import SubmissionError
from harness.evaluation.applying import Applied, apply, tested_by
from harness.evaluation.billing import between, billed, without
from harness.evaluation.endings import stack_of, status_of
from harness.evaluation.queried import QueriedTexts
from harness.evaluation.text_cells import pricing_of, read_as
from harness.lm.fingerprint import fingerprint
from harness.lm.reading import Reading
from harness.results.outputs import Outputs
from harness.results.records import CellRecord, Usage
from harness.results.status import COUNTS, MARKS
from harness.sandbox import best_tier, launch, presets, traces
from harness.sandbox.snapshot import as_given, snapshot
from harness.sandbox.trial import refusal
from harness.solving.metrics import cell_score
from harness.tracks.defences import Defences
from harness.tracks.examples import examples_sha256, load_shots, load_test
from harness.tracks.tiers import REFEREE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from harness.blackbox.session import Incumbent
    from harness.contract import ModelInfo, Shots, Task
    from harness.lm.endpoint.requests import Traffic
    from harness.lm.model import LanguageModel
    from harness.lm.served import Served
    from harness.results.asked import Asked
    from harness.results.records import Note
    from harness.results.store import Attempt
    from harness.sandbox.submission import Submission
    from harness.tracks.examples import Source
    from harness.tracks.limits import Limits
    from harness.tracks.tasks import TaskFile
    from harness.tracks.tiers import Tier
    from harness.tracks.track_task import TrackTask

_GRACE_S = 5.0

Watch: TypeAlias = "Callable[[int, dict[str, float]], None]"


@dataclass(frozen=True)
class Cell:
    """One task and split on one track, ready to run."""

    file: TaskFile
    task: Task | TextTask
    split: int
    spec: TrackTask
    limits: Limits
    source: Source
    seed: int
    repeat: int = 0
    packages: tuple[str, ...] = ()
    """Distributions that the track allows beside those of every track."""
    defences: Defences = Defences()  # noqa: RUF009 - a frozen value
    """What the black box keeps back."""

    @property
    def train_rows(self) -> int:
        """Number of rows that one call costs."""
        return len(load_shots(self.file, self.source, self.split, self.spec).train)

    @property
    def worker_seed(self) -> int:
        """Seed of the submission's generator. It depends on run seed, task, split and repeat alone."""
        again = f"/{self.repeat}" if self.repeat else ""
        digest = hashlib.sha256(f"{self.seed}/{self.task.name}/{self.split}{again}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 2


@dataclass(frozen=True)
class Verdict:
    """How a cell ended."""

    status: str
    record: CellRecord
    score: float | None
    """Test score of the final answer, for the progress display; None for a failure. Rankings recompute it."""
    stored: bool
    """False if another process had finished the same cell first."""


def run_cell(
    cell: Cell,
    submission: Submission,
    options: Mapping[str, str],
    lm: Served,
    attempt: Attempt,
    watch: Watch,
    tier: Tier | None = None,
) -> Verdict:
    """Run a submission on a cell and store the outcome, in the best tier of isolation or in the given one.

    Whatever the submission does gives the cell a status. If it cannot be imported or configured, that is `crashed`.

    Raises:
        SandboxError: no worker can be isolated in that tier.
        DataError: the data are missing or malformed.
        StoreError: a fact could not be written to disk.
    """
    cell, options = settled(cell, submission, options)
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    info = lm.info(shots.train.texts, read_as(cell.task))
    meter = Meter(cell.spec.calls, len(shots.train))
    begun = _begun(cell, shots, lm)
    queried = QueriedTexts(Reading.of_tokenizer(lm.tokenizer))
    session = Session(priced_model(cell, shots, lm), meter, attempt, watch, queried.add)
    started, before, waited, idle = time.monotonic(), time.perf_counter(), waited_s(), lm.traffic
    with snapshot(submission) as folder, lm.serving():
        worker = launch.start(cell.limits, folder, tier or best_tier.best().tier, cell.packages)
        tuning, grace_s = session.tuning, 0.0
        try:
            _hand_over(worker, job_of(cell, shots, info, folder, options, meter), cell.limits.wall_s)
            session.serve(worker.sock, started + cell.limits.wall_s)
            grace_s = _GRACE_S if tuning.end in {"returned", "budget", "crashed", "memory", "answer", "closed"} else 0.0
        finally:
            left = worker.end(grace_s, stack=tuning.end == "timeout")
        stack_of(tuning, left, folder, submission)
    left = dataclasses.replace(left, output=as_given(left.output, folder, submission))
    tuning.detail = as_given(tuning.detail, folder, submission)
    waited = waited_s() - waited
    tuning_s, tuned = time.perf_counter() - before - waited, lm.traffic
    status, detail = status_of(tuning, left, meter.budget)
    if tuning.config is None and status == "crashed":
        detail = str(refusal(submission, detail or left.output))
    if status == "crashed" and lm.lacks:
        detail = f"{lm.lacks}\n{detail}"
    test = load_test(cell.file, cell.source)  # only now, after the worker is dead
    told = partial(_written, watch, meter.spent)
    applied = apply(tuning.incumbents, cell.task, test, tested_by(lm, cell.spec), cell.limits.answers.seconds, told)
    if applied.problem and status in COUNTS:  # a failure keeps its own reason
        status, detail = applied.status, applied.problem
    record = dataclasses.replace(
        _used(begun, tuning.usage),
        detail=detail,
        config=tuning.config or {},
        rows_spent=meter.spent,
        declared_bytes=tuning.declared_bytes,
        waited_s=waited,
        refused=tuning.refused,
        rejected=tuning.rejected,
        worker_peak_mb=left.peak_mb,
        worker_exit=left.code,
        output=left.output,
        note=tuning.last.answer.note if tuning.last else {},
        history=tuple(tuning.history),
        log=tuple(tuning.log),
        sandbox=worker.isolation.tier,
        isolation=dataclasses.asdict(worker.isolation),
        tuning_s=tuning_s,
        test_texts=queried.of_test(test, shots),
        billed=billed(between(idle, tuned), between(tuned, lm.traffic)),
        asked=session.asked if tuning.usage.queries else None,
    )
    return _finished(cell, attempt, status, record, applied, lm)


def _written(watch: Watch, spent: int, written: int, texts: int) -> None:
    """Tell whoever watches a cell how many test texts its answers have written."""
    watch(spent, {"written": written, "texts": texts})


def priced_model(cell: Cell, shots: Shots, lm: Served) -> PricedModel:
    """The model with the limits and prices of a cell."""
    frame, answer, texts = cell.limits.frame_mb << 20, cell.limits.answer_mb << 20, shots.train.texts
    limits, size = cell.limits.answers, cell.spec.tokens_of_a_row
    text = None
    if isinstance(cell.task, TextTask):
        text = pricing_of(cell.task, lm, frame, size, limits.projection_bytes)
    return PricedModel(lm, cell.task, answer, frame, texts, limits, size, cell.defences, text)


def settled(cell: Cell, submission: Submission, options: Mapping[str, str]) -> tuple[Cell, dict[str, str]]:
    """The cell with its budget limited by the preset, and the options together with those of the preset on its task."""
    spec = msgspec.structs.replace(cell.spec, calls=presets.most_calls(submission, options, cell.spec.calls))
    return dataclasses.replace(cell, spec=spec), presets.on_task(submission, options, cell.task.name)


def _begun(cell: Cell, shots: Shots, lm: Served) -> CellRecord:
    """The facts about a cell before anything runs. The device's peak memory is measured from here."""
    from harness.lm import device  # noqa: PLC0415 - torch, as in `run_cell`

    probe = fingerprint(lm, cell.task)
    device.reset_peak(lm.device)
    return CellRecord(
        calls_total=cell.spec.calls,
        rows_total=cell.spec.calls * len(shots.train),
        train_rows=len(shots.train),
        declared_bytes=0,
        worker_peak_mb=0.0,
        worker_exit=0,
        history=(),
        marks=MARKS,
        template=cell.task.template,
        words=cell.task.words,
        shots_sha256=(examples_sha256(shots.train), examples_sha256(shots.dev)),
        sandbox=REFEREE,
        seed=cell.worker_seed,
        probe=probe,
        format=lm.format,
        metric=cell.task.metric,
        row_tokens=cell.spec.tokens_of_a_row,
    )


def _used(record: CellRecord, usage: Usage) -> CellRecord:
    """The record with the totals of its queries."""
    return dataclasses.replace(record, **dataclasses.asdict(usage))


def _finished(cell: Cell, attempt: Attempt, status: str, record: CellRecord, applied: Applied, lm: Served) -> Verdict:
    """Store how a cell ended, with the time of its test and the peak memory."""
    from harness.lm import device  # noqa: PLC0415 - torch, as in `run_cell`

    record = dataclasses.replace(
        record,
        referee_peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        test_s=applied.test_s,
        outputs=Outputs.of((each.mark, each.outputs) for each in applied.kept),
        device_peak_mb=device.peak_mb(lm.device),
    )
    test, kept = applied.test, list(applied.kept)
    stored = attempt.finish(status, record, examples_sha256(test), test.labels, kept)
    shown = None
    if kept and status in COUNTS:
        shown = cell_score(cell.task.metric, kept[-1].predictions, test.labels, len(cell.task.classes))
    return Verdict(status, record, shown, stored)


def _hand_over(worker: launch.Worker, job: wire.Job, wall_s: float) -> None:
    """Send the job. If the worker has ended or does not read it, later steps find that out."""
    worker.sock.settimeout(wall_s)
    with contextlib.suppress(OSError):
        worker.sock.sendall(wire.encode(job))


def job_of(
    cell: Cell, shots: Shots, info: ModelInfo, folder: Path, options: Mapping[str, str], meter: Meter
) -> wire.Job:
    """All that a worker is told of a cell."""
    return wire.Job.of(str(folder), cell.task, shots, info, meter.budget.rows_total, options, cell.worker_seed)


def run_reference(
    cell: Cell, submission: Submission, options: Mapping[str, str], lm: LanguageModel, attempt: Attempt, watch: Watch
) -> Verdict:
    """Run a white-box reference on a cell, in this process and without a sandbox, and store the outcome.

    With the option ``forwards`` it has a budget of forward passes (`presets.forward_calls`), and its predictors are
    kept at the budget's marks.

    Raises:
        ModelError: the task is answered by text, and the model does not write.
        DataError: the data are missing or malformed.
        StoreError: a fact could not be written to disk.
    """
    from harness.evaluation import text_white_box, white_box  # noqa: PLC0415 - torch
    from harness.evaluation import training as reference  # noqa: PLC0415

    given = options
    cell, options = settled(cell, submission, options)
    calls = presets.forward_calls(submission, given, cell.task.name, cell.spec.calls) or 0
    task = cell.task
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    begun = _begun(cell, shots, lm)
    before = time.perf_counter()
    until, size = time.monotonic() + cell.limits.wall_s, cell.spec.tokens_of_a_row
    if isinstance(task, TextTask):
        white: white_box.WhiteBox = text_white_box.TextWhiteBox(lm, task, shots.train.texts, until, size)
    else:
        white = white_box.WhiteBox(lm, task, shots.train.texts, until)
    white.most_forwards = calls * len(shots.train) if calls else white.most_forwards
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:  # its output is not a result
        config, folder = dict[str, object](), submission.path
        try:
            solver = reference.imported(stack, submission, options)
        except SubmissionError as problem:
            training = reference.Training("crashed", str(problem), None, [])
        else:
            config, folder = reference.shown(solver.config), solver.folder
            training = reference.train(solver, white, task, shots, cell.worker_seed, watch)
        tuning_s, forwards = time.perf_counter() - before, white.forwards
        status, detail, test = training.status, training.detail, load_test(cell.file, cell.source)  # only now
        white.test_by(tested_by(lm, cell.spec))  # and the test costs nothing
        before = time.perf_counter()
        kept = []
        if training.last is not None and status in COUNTS:
            try:
                kept = training.kept(test, task)
            except Exception as problem:  # noqa: BLE001 - the author's code again
                status, detail = "invalid_answer", traces.authors(problem, folder)
        applied = Applied(test, tuple(kept), time.perf_counter() - before)
    record = dataclasses.replace(
        _used(begun, Usage(level=white_box.WHITE_BOX_LEVEL)),
        detail=as_given(detail, folder, submission),
        config=config,
        calls_total=calls,
        rows_total=calls * len(shots.train),
        forwards=forwards,
        note=training.note,
        history=tuple(training.history),
        log=tuple(white.logged),
        access="white-box",
        tuning_s=tuning_s,
    )
    return _finished(cell, attempt, status, record, applied, lm)


@dataclass(frozen=True)
class HandedIn:
    """An answer from a solver outside the sandbox, with the queries and replies before it."""

    incumbent: Incumbent
    history: tuple[tuple[int, Note], ...]
    usage: Usage
    tuning_s: float
    incumbents: Mapping[float, Incumbent] = dataclasses.field(default_factory=dict)
    """The answers at all marks, if they are known, as for an optimizer in this process."""
    log: tuple[tuple[int, Note], ...] = ()
    config: Mapping[str, object] = dataclasses.field(default_factory=dict)
    rows_after: int = 0
    """Number of rows that were spent after the answer was handed in."""
    asked: Asked | None = None
    """What its queries were given; None where it is not known."""
    exchanged: Traffic | None = None
    """What its queries exchanged with the model's server; None where there is no server."""


def score_handed(
    cell: Cell,
    handed: HandedIn,
    lm: Served,
    attempt: Attempt,
    where: str,
    problem: str = "",
    others: Callable[[], Traffic | None] = lambda: None,
) -> Verdict:
    """Apply an answer from a solver outside the sandbox, without a worker, and store the outcome.

    `where` replaces the name of the sandbox tier and makes a separate division, because neither the solver's time nor
    its resources were controlled. If `problem` is given, it is the reason why the answer is not applied at all.
    `others` tells what this thread has exchanged with the model's server for others meanwhile, which is left out.

    Raises:
        DataError: the data are missing or malformed.
        StoreError: a fact could not be written to disk.
    """
    begun = _begun(cell, load_shots(cell.file, cell.source, cell.split, cell.spec), lm)
    test, limits, before = load_test(cell.file, cell.source), cell.limits.answers, lm.traffic
    if problem:
        applied = Applied(test, (), 0.0, "too_costly", problem)
    else:
        kept = handed.incumbents or {1.0: handed.incumbent}
        applied = apply(kept, cell.task, test, tested_by(lm, cell.spec), limits.seconds)
    record = dataclasses.replace(
        _used(begun, handed.usage),
        detail=applied.problem,
        rows_spent=handed.incumbent.rows + handed.rows_after,
        note=handed.incumbent.answer.note,
        history=handed.history,
        log=handed.log,
        config=handed.config,
        marks=MARKS if handed.incumbents else (1.0,),
        sandbox=where,
        tuning_s=handed.tuning_s,
        asked=handed.asked,
        billed=billed(handed.exchanged, without(between(before, lm.traffic), others())),
    )
    return _finished(cell, attempt, applied.status, record, applied, lm)
