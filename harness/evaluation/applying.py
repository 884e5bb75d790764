"""Applies the answers of a cell to the test set, within the time and memory that the track allows.

It is done in this process, not in one of its own that would be killed at its limit. A second process would hold the
weights once more, on a GPU too, and load them once more for every evaluation; a forked one cannot use CUDA, nor torch's
threads. Instead nothing that an answer makes the referee do is unbounded. Its price is known when it is offered
(`harness.blackbox.answer_price`). The work is done in pieces of bounded time and memory, and after each the clock is
looked at (`harness.blackbox.checkpoints`). Before a projection is made, its exact size is compared with the memory that
is left (`harness.blackbox.memory`), so that the kernel has no reason to kill.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harness.blackbox.checkpoints import Deadline, at_checkpoints, checkpoint
from harness.blackbox.lock import waited_s
from harness.errors import AnswerError, DeviceMemoryError
from harness.results.records import KeptAnswer
from harness.solving import answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.blackbox.session import Incumbent
    from harness.contract import Examples, IntArray, Task
    from harness.lm.model import LanguageModel
    from harness.tracks.track import TrackTask


@dataclass(frozen=True)
class Applied:
    """What the answers of a cell say of the test set."""

    test: Examples
    kept: tuple[KeptAnswer, ...]
    test_s: float
    status: str = "ok"
    """How a cell ended whose answers could not be applied."""
    problem: str = ""
    """Why they could not; then none is kept."""


def tested_by(lm: LanguageModel, spec: TrackTask) -> LanguageModel:
    """The model as test texts meet it: cut shorter where the track says so."""
    return lm if isinstance(spec.test_tokens, msgspec.UnsetType) else lm.cut_at(spec.test_tokens)


def apply(
    incumbents: Mapping[float, Incumbent],
    task: Task,
    test: Examples,
    lm: LanguageModel,
    seconds: float,
) -> Applied:
    """Predictions of every kept incumbent, computed once per distinct answer.

    Args:
        incumbents: the last answer at each mark; what each costs was checked when it was offered.
        task: whose classes are predicted.
        test: the test set.
        lm: the model as the submission met it.
        seconds: for all of them; the time that others take in between is not counted.

    Returns:
        What is to be stored; an answer that cannot be applied within the limits is a status and no exception.
    """
    deadline = Deadline(seconds)
    before, waited = time.perf_counter(), waited_s()
    known: dict[bytes, IntArray] = {}
    kept, status, problem = [], "ok", ""
    try:
        with at_checkpoints(deadline.check):
            for mark, incumbent in sorted(incumbents.items()):
                if incumbent.blob not in known:
                    p = answers.probabilities(incumbent.answer, task, lm, test.texts, checkpoint)
                    known[incumbent.blob] = np.asarray(p.argmax(axis=1))
                kept.append(KeptAnswer(mark, incumbent.rows, incumbent.blob, known[incumbent.blob]))
    except AnswerError as refused:
        status, problem = "invalid_answer", str(refused)
    except TimeoutError:
        done = f"{len(known)} of {len({incumbent.blob for incumbent in incumbents.values()})} answers"
        status = "too_costly"
        problem = (
            f"{done} were applied to the {len(test):,} test texts in {deadline.seconds:g} s, the limit of this track "
            "for all of them (test_s); take fewer members, shorter templates or smaller heads"
        )
    except (MemoryError, DeviceMemoryError) as missing:
        status, problem = "out_of_memory", f"too little memory to apply an answer: {missing}"
    if problem:
        kept = []
    return Applied(test, tuple(kept), time.perf_counter() - before - (waited_s() - waited), status, problem)
