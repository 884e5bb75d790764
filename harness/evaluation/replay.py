"""`harness replay`: checks a stored run by running it again.

Two things are checked for each chosen cell. First, the stored answers are applied to the test set again and must give
the stored predictions. Second, the submission is run again with the seed and the options of the run, by the same code
that evaluates, into a separate database. Its queries must give the digests in the ledger, one by one, and its answers
must equal the stored ones. A digest covers the bytes of request and reply. So a changed reply, a query that was never
asked, or another model is found at the first query that it affects.

Digests agree only if the numbers are equal: on the same processor with the same versions and threads. On other
machines logits differ by rounding. Each cell keeps the logits of fixed texts as a fingerprint
(`harness.lm.fingerprint`), which distinguishes rounding from another model.
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from harness.contract import TextTask
from harness.errors import AnswerError, InputError
from harness.evaluation.applying import predicted, tested_by
from harness.evaluation.run import Evaluation
from harness.lm.fingerprint import probe
from harness.results.store import Store
from harness.sandbox.presets import identity_sha256
from harness.solving import answers
from harness.tracks.examples import load_test
from harness.tracks.naming import argument_for
from harness.tracks.tiers import ELSEWHERE, IN_PROCESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Progress
    from harness.results.records import Fingerprint, LedgerRow, Run, RunKey, StoredCell
    from harness.sandbox.submission import Submission
    from harness.tracks.track import Track

_FLIPPED = 0.02
"""Largest share of predictions that rounding may change, for texts near the border between two classes."""
_COMPARED = ("rows", "tokens", "bytes_up", "bytes_down", "level", "sha256")
_IDENTITY = ("submission_sha256", "track_fingerprint", "model_sha256", "data_sha256", "device", "environment_sha256")

Verdict = Literal["reproduced", "within rounding", "not reproduced"]


@dataclass(frozen=True)
class Replayed:
    """The result of checking one cell again."""

    task: str
    split: int
    status: tuple[str, str]
    """The status of the stored run and of the new one."""
    drift: float | None
    """Largest difference between the stored and the new logits of the fixed texts; None if the run kept none."""
    rounding: float
    """Largest difference that counts as rounding in this number format."""
    predictions: int
    """Number of stored predictions, at all marks, that have a stored answer."""
    flipped: int
    """How many of them the stored answers do not reproduce."""
    queries: tuple[int, int]
    """Number of queries in the ledger, and of queries asked now."""
    difference: str
    """The first difference between the two runs in ledger, answers or predictions; empty if there is none."""

    @property
    def verdict(self) -> Verdict:
        """`reproduced` means equal bit for bit. `within rounding` means that the logits are close but not equal."""
        if not self.flipped and not self.difference:
            return "reproduced"
        close = self.drift is not None and 0 < self.drift <= self.rounding
        return "within rounding" if close and self.flipped <= _FLIPPED * self.predictions else "not reproduced"


@dataclass(frozen=True)
class Replay:
    """The result of checking a run again."""

    run: str
    entry: str
    identity: tuple[str, ...]
    """The parts of the run's identity that have changed, in words."""
    cells: tuple[Replayed, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of its cells."""
        order: tuple[Verdict, ...] = ("reproduced", "within rounding", "not reproduced")
        return max((cell.verdict for cell in self.cells), key=order.index)


def choices_of(key: RunKey, cells: Sequence[StoredCell], track: Track, given: Overrides) -> Overrides:
    """The choices for the replay: those that the run has stored, and the files that are given again.

    Raises:
        InputError: the run has no queries to repeat.
    """
    if key.access != "black-box" or not cells:
        why = f"it is {key.access}" if key.access != "black-box" else "none of its cells is finished"
        raise InputError(f"run of {key.label!r} cannot be replayed: {why}. Only metered runs have queries and answers")
    if any(cell.record.sandbox == ELSEWHERE for cell in cells):
        raise InputError(
            f"run of {key.label!r} cannot be replayed: its solver ran elsewhere, over HTTP, and its code was "
            "never here. harness audit checks what is stored of it"
        )
    if any(cell.record.sandbox == IN_PROCESS for cell in cells):
        raise InputError(
            f"run of {key.entry!r} cannot be replayed: its optimizer is no submission. The same seeds ask the same "
            "queries: run harness bench again with another --store, and compare the digests (docs/optimizers.md)"
        )
    return given.repeating(key, cells, track)


def sampled(store: Store, run: str, count: int | None, rng: np.random.Generator) -> list[StoredCell]:
    """`count` finished cells of a run, drawn at random; all of them if `count` is None."""
    cells = store.cells(run)
    if count is None or count >= len(cells):
        return cells
    return [cells[i] for i in sorted(rng.choice(len(cells), size=count, replace=False))]


def replay(
    store: Store,
    run: Run,
    cells: Sequence[StoredCell],
    track: Track,
    choices: Overrides,
    submission: Submission,
    progress: Progress,
) -> Replay:
    """Check cells of a run again. `choices` is made by `choices_of`.

    Raises:
        InputError: the submission's folder or the track is not the one of the run.
        HarnessError: as `Evaluation` and `Evaluation.run`.
    """
    key = run.key
    found_sha256 = identity_sha256(submission, dict(key.options))
    if key.submission_sha256 not in {found_sha256, submission.sha256_with_page}:
        raise InputError(
            f"{submission.path} is not what ran: its sha256 is {found_sha256}, the run's is "
            f"{key.submission_sha256}. Name the right folder with --submission"
        )
    if track.name != key.track:
        raise InputError(f"the run is of track {key.track}, not {track.name}; give --track {argument_for(key.track)}")
    if track.fingerprint != key.track_fingerprint:
        raise InputError(
            f"track {track.name} has fingerprint {track.fingerprint}, the run's track {key.track} had "
            f"{key.track_fingerprint}. Name the track's file with --track"
        )
    found: list[Replayed] = []
    for name in dict.fromkeys(cell.record.format or track.model.dtype for cell in cells):
        model = msgspec.structs.replace(track.model, formats=(name,))  # the stored format, not the fastest one here
        in_format = msgspec.structs.replace(track, model=model)
        own = [cell for cell in cells if (cell.record.format or track.model.dtype) == name]
        replayed, now = _again(store, own, in_format, choices, submission, dict(key.options), progress)
        found += replayed
    pairs = {name: (getattr(key, name), getattr(now, name)) for name in _IDENTITY}
    changed = (f"{name}: {then} then, {now} now" for name, (then, now) in pairs.items() if then != now)
    return Replay(run.id, key.label, tuple(changed), tuple(found))


def _again(
    store: Store,
    cells: Sequence[StoredCell],
    track: Track,
    choices: Overrides,
    submission: Submission,
    options: dict[str, str],
    progress: Progress,
) -> tuple[list[Replayed], RunKey]:
    """Run the cells of one number format again. Return the result of each, and the identity of the second run."""
    wanted = {(cell.task, cell.split): cell for cell in cells}
    with tempfile.TemporaryDirectory(prefix="harness-replay-") as folder:
        scratch = Store(str(Path(folder) / "replay.db"))
        try:
            evaluation = Evaluation(track, choices, scratch)
            chosen = tuple(
                _priced_as(cell, wanted[cell.task.name, cell.split])
                for cell in evaluation.cells
                if (cell.task.name, cell.split) in wanted
            )
            evaluation.plan = dataclasses.replace(evaluation.plan, cells=chosen)
            again = evaluation.run(submission, options, progress)
            second = {(cell.task, cell.split): cell for cell in scratch.cells(again)}
            found = [
                _compare(store, wanted[key], scratch, second[key], evaluation, cell)
                for cell in evaluation.cells
                for key in [(cell.task.name, cell.split)]
            ]
            (run,) = scratch.runs()
        finally:
            scratch.close()
    return found, run.key


def _priced_as(cell: Cell, then: StoredCell) -> Cell:
    """The cell with the row size of the stored run."""
    size = msgspec.UNSET if then.record.row_tokens is None else then.record.row_tokens
    return dataclasses.replace(cell, spec=msgspec.structs.replace(cell.spec, row_tokens=size))


def _compare(
    store: Store, then: StoredCell, scratch: Store, now: StoredCell, evaluation: Evaluation, cell: Cell
) -> Replayed:
    predictions, flipped = _applied(store, then, evaluation, cell)
    ledgers = store.ledger(then.attempt), scratch.ledger(now.attempt)
    late = "timeout" in {then.status, now.status}  # the clock decided how many queries were asked
    difference = _first_query(*ledgers, late) or ("" if late else _first_answer(store, then, scratch, now))
    return Replayed(
        then.task,
        then.split,
        (then.status, now.status),
        _drift(then.record.probe, evaluation, cell),
        evaluation.track.rounding,
        predictions,
        flipped,
        (len(ledgers[0]), len(ledgers[1])),
        difference,
    )


def _applied(store: Store, then: StoredCell, evaluation: Evaluation, cell: Cell) -> tuple[int, int]:
    """Number of stored predictions, and of those that the stored answers do not reproduce."""
    test, lm = load_test(cell.file, cell.source), evaluation.model_for(cell)
    known: dict[bytes, Any] = {}
    total = flipped = 0
    for mark, stored in then.predictions.items():
        blob = store.answer(then.run, then.task, then.split, mark)
        if blob is None:
            continue  # its bytes were not published
        if blob not in known:
            try:
                answer = answers.from_bytes(blob)
                if not isinstance(cell.task, TextTask):
                    answers.check(answer, cell.task, lm.backbone.width)
                known[blob], _ = predicted(answer, cell.task, tested_by(lm, cell.spec), test)
            except AnswerError:
                known[blob] = np.full(len(test), -1)  # no valid answer can give these predictions
        total += len(stored)
        flipped += int((known[blob] != stored).sum()) if len(stored) == len(test) else len(stored)
    return total, flipped


def _drift(then: Fingerprint | None, evaluation: Evaluation, cell: Cell) -> float | None:
    if then is None:
        return None
    now = probe(evaluation.model_for(cell), cell.task).logits
    same = len(now) == len(then.logits)
    return float(np.abs(np.subtract(now, then.logits)).max()) if same else float("inf")


def _first_query(then: list[LedgerRow], now: list[LedgerRow], late: bool) -> str:
    """The first difference between two ledgers, in words."""
    for number, (one, two) in enumerate(zip(then, now, strict=False)):
        for name in _COMPARED:
            before, after = getattr(one, name), getattr(two, name)
            if before != after:
                return f"query {number}: {name} {_short(before)} then, {_short(after)} now"
    if len(then) != len(now) and not late:
        return f"query {min(len(then), len(now))}: {len(then):,} queries then, {len(now):,} now"
    return ""


def _first_answer(store: Store, then: StoredCell, scratch: Store, now: StoredCell) -> str:
    """The first difference between two outcomes, in words."""
    if then.status != now.status:
        return f"status {then.status} then, {now.status} now"
    for mark in sorted(then.predictions.keys() | now.predictions.keys()):
        blobs = (
            store.answer(then.run, then.task, then.split, mark),
            scratch.answer(now.run, now.task, now.split, mark),
        )
        left_out = blobs[0] is None and mark in then.predictions  # its bytes were not published
        if blobs[0] != blobs[1] and not left_out:
            return f"answer at {mark} of the budget: another one now"
        if not np.array_equal(then.predictions[mark], now.predictions[mark]):
            return f"predictions at {mark} of the budget: others now, from the same answer"
        if then.rows[mark] != now.rows[mark]:
            return (
                f"answer at {mark} of the budget: offered after {then.rows[mark]:,} rows then, {now.rows[mark]:,} now"
            )
    return ""


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else f"{value:,}"
