"""Applies the answers of a cell to the test set, within the time and memory that the track allows.

The answers are applied in this process, not in a second one that could be killed at its limit. A second process would
hold a second copy of the weights, on a GPU too, and load it for every evaluation. A forked process can use neither CUDA
nor torch's threads. Instead, all work that an answer causes is bounded. Its price is known when it is offered
(`harness.blackbox.answer_price`). The work is done in pieces of bounded time and memory, and the clock is checked
after each piece (`harness.blackbox.checkpoints`). Before a projection is made, its exact size is compared with the free
memory (`harness.blackbox.memory`), so that the kernel does not kill the process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from harness.blackbox.checkpoints import Deadline, at_checkpoints, checkpoint
from harness.blackbox.lock import waited_s
from harness.contract import TextTask
from harness.errors import AnswerError, DeviceMemoryError
from harness.evaluation.text_cells import Told, nobody, scored, write
from harness.results.records import KeptAnswer
from harness.solving import answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.blackbox.session import Incumbent
    from harness.contract import Answer, Examples, IntArray, Task
    from harness.lm.served import Served
    from harness.tracks.track_task import TrackTask

M = TypeVar("M", bound="Served")


@dataclass(frozen=True)
class Applied:
    """The predictions of a cell's answers on the test set."""

    test: Examples
    kept: tuple[KeptAnswer, ...]
    test_s: float
    status: str = "ok"
    """The status of a cell whose answers could not be applied."""
    problem: str = ""
    """Why the answers could not be applied. In that case no prediction is kept."""


def tested_by(lm: M, spec: TrackTask) -> M:
    """The model that reads the test texts. It cuts them shorter if the track says so."""
    return lm if isinstance(spec.test_tokens, msgspec.UnsetType) else lm.cut_at(spec.test_tokens)


def predicted(
    answer: Answer, task: Task | TextTask, lm: Served, test: Examples, told: Told = nobody
) -> tuple[IntArray, tuple[str, ...] | None]:
    """What an answer predicts on a test set.

    Args:
        answer: which fits the task.
        task: of either kind.
        lm: the model that reads the test texts.
        test: the test set.
        told: of a text task gets how many texts are written, from time to time.

    Returns:
        Predictions (texts,): classes, or of a text task the scores of its outputs, with the outputs beside them.

    Raises:
        AnswerError: the answer does not fit the model, or leads to numbers that are not finite.
    """
    if isinstance(task, TextTask):
        outputs = write(answer, task, lm, test.texts, told)
        return scored(task, outputs, test), outputs
    return np.asarray(answers.probabilities(answer, task, lm, test.texts, checkpoint).argmax(axis=1)), None


def apply(
    incumbents: Mapping[float, Incumbent],
    task: Task | TextTask,
    test: Examples,
    lm: Served,
    seconds: float,
    told: Told = nobody,
) -> Applied:
    """Compute the predictions of every kept incumbent, once for each distinct answer.

    Args:
        incumbents: the last answer at each mark. The cost of each was checked when it was offered.
        task: the task whose classes are predicted.
        test: the test set.
        lm: the model as the submission met it.
        seconds: time limit for all answers together. Time that other work takes in between is not counted.
        told: of a text task gets how many texts all answers together have written, and will write.

    Returns:
        What is to be stored. An answer that cannot be applied within the limits gives a status, not an exception.
    """
    deadline = Deadline(seconds)
    before, waited = time.perf_counter(), waited_s()
    known: dict[bytes, tuple[IntArray, tuple[str, ...] | None]] = {}
    kept, status, problem = [], "ok", ""
    distinct = len({incumbent.blob for incumbent in incumbents.values()})

    def so_far(written: int, texts: int) -> None:
        told(len(known) * texts + written, distinct * texts)

    try:
        with at_checkpoints(deadline.check):
            for mark, incumbent in sorted(incumbents.items()):
                if incumbent.blob not in known:
                    known[incumbent.blob] = predicted(incumbent.answer, task, lm, test, so_far)
                kept.append(KeptAnswer(mark, incumbent.rows, incumbent.blob, *known[incumbent.blob]))
    except AnswerError as refused:
        status, problem = "invalid_answer", str(refused)
    except TimeoutError:
        done = f"{len(known)} of {distinct} answers"
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
