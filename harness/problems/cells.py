"""The cells that answer a problem's queries: in this process, of a service, or with the fake model."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.blackbox.fake import FakeLM, fake_examples, fake_shots, fake_task
from harness.blackbox.fake_text import fake_text_examples, fake_text_shots, fake_text_task
from harness.blackbox.fake_text_lm import FakeTextLM
from harness.blackbox.in_process import in_process
from harness.blackbox.meter import Meter
from harness.blackbox.session import Session
from harness.contract import TextTask
from harness.errors import HarnessError, InputError
from harness.evaluation.billing import between
from harness.evaluation.referee import HandedIn, priced_model, score_handed
from harness.evaluation.text_cells import read_as
from harness.sandbox.submission import entry_name
from harness.solving import answers
from harness.solving.metrics import cell_score
from harness.tracks.examples import load_shots
from harness.tracks.tiers import IN_PROCESS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract import Answer, BlackBox, IntArray, Shots, Task
    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Evaluation
    from harness.results.records import LedgerRow
    from harness.results.store import Attempt, Store
    from harness.service.client import ServiceBlackBox

FAKE_TEST = 400
"""Test texts of the fake task."""


class ProblemCell(Protocol):
    """One cell as a problem uses it."""

    @property
    def lm(self) -> BlackBox:
        """The metered black box."""
        ...

    @property
    def task(self) -> Task | TextTask:
        """The cell's task."""
        ...

    @property
    def shots(self) -> Shots:
        """The few-shot examples."""
        ...

    def costs(self) -> IntArray:
        """Rows that one candidate costs on each training text: (texts,), as far as it is known. Free."""
        ...

    def offer(self, answer: Answer) -> None:
        """Hand over the best answer so far."""
        ...

    def finish(self) -> float | None:
        """Test score of the last answer, from 0 to 1; None if it is not revealed."""
        ...

    def digests(self) -> tuple[str, ...]:
        """The digest of each answered query, as in the ledger; empty if the ledger is elsewhere."""
        ...

    def close(self) -> None:
        """Free what the cell holds."""
        ...


@dataclass(frozen=True)
class PlannedRun:
    """The run that a problem's cell belongs to, before anything of it is recorded."""

    name: str
    """Name of the optimizer, as the leaderboard shows it."""
    options: Mapping[str, str]
    """The options that distinguish the problem from others on the same cell. They are part of the run's identity."""
    seed: int
    """Of the problem and the optimizer."""
    config: Mapping[str, object]
    """All arguments, stored with the outcome."""

    @property
    def _own(self) -> dict[str, Any]:
        """The fields of `RunKey` that distinguish the run."""
        given = tuple(sorted(self.options.items()))
        digest = hashlib.sha256(f"problem {self.name} {json.dumps(given)}".encode()).hexdigest()
        entry = entry_name(self.name, self.options)
        return {"entry": entry, "submission_sha256": digest, "options": given, "seed": self.seed}

    def id(self, evaluation: Evaluation) -> str:
        """The run's id, without recording it."""
        return evaluation.plan.run_id("black-box", **self._own)

    def record(self, evaluation: Evaluation, store: Store) -> str:
        """Record the run, unless it is stored already, and return its id."""
        return evaluation.plan.record(store, "black-box", **self._own)


class LocalCell:
    """A cell of a track in this process. Its queries, prices and rows of the ledger are those of a worker's.

    Run and attempt are recorded when the first query is answered.
    """

    def __init__(
        self, evaluation: Evaluation, cell: Cell, store: Store, run: PlannedRun, *, alone: bool = False
    ) -> None:
        """Use `cell` as part of `run`. If it is `alone`, `close` closes the store and the connections to a server."""
        self._evaluation, self._cell, self._store, self._run = evaluation, cell, store, run
        self._model, self._alone = evaluation.model_for(cell), alone
        self.task = cell.task
        self.shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
        meter = Meter(cell.spec.calls, len(self.shots.train))
        self._meter = meter
        self._priced = priced_model(cell, self.shots, self._model)
        self._session = Session(self._priced, meter, self)
        info = self._model.info(self.shots.train.texts, read_as(self.task))
        self.lm = in_process(self._session, info, self.task, meter.budget, self.shots)
        self.lm.ready(dict(run.config))
        self._began, self._idle, self.stored = time.perf_counter(), self._model.traffic, False

    @cached_property
    def _attempt(self) -> Attempt:
        run = self._run.record(self._evaluation, self._store)
        return self._store.begin(run, self._cell.task.name, self._cell.split)

    def record(self, row: LedgerRow) -> None:
        """See `harness.blackbox.session.Ledger`."""
        self._attempt.record(row)

    def costs(self) -> IntArray:
        """See `ProblemCell`."""
        train, task = self.shots.train, self.task
        if isinstance(task, TextTask):
            return np.array(self._priced.of_text().score_rows(train.texts, task.targets(train)), dtype=np.int64)
        size = self._priced.row_tokens
        if size is None:
            return np.ones(len(train), dtype=np.int64)
        sizes = self._model.text_set(task.template, train.texts).sizes
        return np.array([max(1, math.ceil(own / size)) for own, _ in sizes], dtype=np.int64)

    def offer(self, answer: Answer) -> None:
        """See `ProblemCell`."""
        self.lm.offer(answer)

    def finish(self) -> float | None:
        """See `ProblemCell`. The outcome is stored, unless the run already has an outcome of this cell.

        Raises:
            HarnessError: the answer cannot be applied.
        """
        tuning = self._session.tuning
        if tuning.last is None:
            raise InputError("no candidate was evaluated yet, so there is no answer to score")
        handed = HandedIn(
            tuning.last, tuple(tuning.history), tuning.usage, time.perf_counter() - self._began, tuning.incumbents,
            tuple(tuning.log), tuning.config or {}, self._meter.spent - tuning.last.rows,
            self._session.asked, between(self._idle, self._model.traffic),
        )  # fmt: skip
        verdict = score_handed(self._cell, handed, self._model, self._attempt, IN_PROCESS)
        self.stored = verdict.stored
        if verdict.score is None:
            raise HarnessError(f"the best candidate could not be scored: {verdict.status}, {verdict.record.detail}")
        return verdict.score

    def digests(self) -> tuple[str, ...]:
        """See `ProblemCell`."""
        asked = self._session.tuning.usage.queries
        return tuple(row.sha256 for row in self._store.ledger(self._attempt.number)) if asked else ()

    def close(self) -> None:
        """See `ProblemCell`."""
        if self._alone:
            self._evaluation.close()
            self._store.close()


class ServiceCell:
    """A cell of `harness serve`. The service does not reveal its test score."""

    def __init__(self, box: ServiceBlackBox) -> None:
        """Use a box that `harness.connect` opened."""
        self.lm, self.task, self.shots = box, box.task, box.shots
        self._last: Answer | None = None

    def costs(self) -> IntArray:
        """See `ProblemCell`. A service does not say what a text costs before it is asked about."""
        return np.ones(len(self.shots.train), dtype=np.int64)

    def offer(self, answer: Answer) -> None:
        """See `ProblemCell`. The answer is kept here, because a service accepts only one answer."""
        self._last = answer

    def finish(self) -> float | None:
        """See `ProblemCell`. Submits the answer, which closes the cell."""
        if self._last is None:
            raise InputError("no candidate was evaluated yet, so there is no answer to submit")
        self.lm.submit(self._last)
        return None

    def digests(self) -> tuple[str, ...]:
        """See `ProblemCell`."""
        return ()

    def close(self) -> None:
        """See `ProblemCell`."""
        self.lm.close()


class FakeCell:
    """The fake model with its made-up task: microseconds a query, no torch, nothing stored."""

    def __init__(self, split: int, calls: int, classes: int = 2) -> None:
        """Draw the examples of a split; the model and the test set are the same for all splits."""
        self.task = fake_task(classes)
        self.shots = fake_shots(self.task, np.random.default_rng(split))
        self._test = fake_examples(self.task, FAKE_TEST, np.random.default_rng(0))
        self.lm = FakeLM.for_task(self.task, self.shots, calls)
        self._last: Answer | None = None

    def costs(self) -> IntArray:
        """See `ProblemCell`."""
        return np.ones(len(self.shots.train), dtype=np.int64)

    def offer(self, answer: Answer) -> None:
        """See `ProblemCell`."""
        self._last = answer

    def finish(self) -> float | None:
        """See `ProblemCell`."""
        if self._last is None:
            raise InputError("no candidate was evaluated yet, so there is no answer to score")
        p = answers.probabilities(self._last, self.task, self.lm.free, self._test.texts)
        return cell_score(self.task.metric, p.argmax(axis=1), self._test.labels, len(self.task.classes))

    def digests(self) -> tuple[str, ...]:
        """See `ProblemCell`."""
        return ()

    def close(self) -> None:
        """See `ProblemCell`."""


class FakeTextCell:
    """The fake model with its made-up text task: milliseconds a query, no torch, nothing stored."""

    def __init__(self, split: int, calls: int) -> None:
        """Draw the examples of a split; the model and the test set are the same for all splits."""
        self.task = fake_text_task()
        self.shots = fake_text_shots(np.random.default_rng(split))
        self._test = fake_text_examples(FAKE_TEST, np.random.default_rng(0))
        self.lm = FakeTextLM.for_task(self.task, self.shots, calls)
        self._last: Answer | None = None

    def costs(self) -> IntArray:
        """See `ProblemCell`."""
        return np.ones(len(self.shots.train), dtype=np.int64)

    def offer(self, answer: Answer) -> None:
        """See `ProblemCell`."""
        self.lm.offer(answer)
        self._last = answer

    def finish(self) -> float | None:
        """See `ProblemCell`. The score is the share of test texts whose output is the reference."""
        if self._last is None:
            raise InputError("no candidate was evaluated yet, so there is no answer to score")
        written = self.lm.written(self._last, self._test.texts)
        pairs = zip(written, self._test.references, strict=True)
        return float(np.mean([output in references for output, references in pairs]))

    def digests(self) -> tuple[str, ...]:
        """See `ProblemCell`."""
        return ()

    def close(self) -> None:
        """See `ProblemCell`."""
