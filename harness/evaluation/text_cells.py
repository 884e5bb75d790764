"""Cells of text tasks: their prices, and how the referee lets the answers write and scores what they wrote.

The answers of a cell write when the submission is gone, greedily, with the task's stop and limit. Each distinct answer
writes once. What it wrote is stored with the cell, and its prediction is the score of each output in ten-thousandths,
so that everything that is computed of predictions (ranks, intervals, curves over the budget) is computed of texts, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.projection import LARGEST_BYTES
from harness.blackbox.text_model import Decoding
from harness.blackbox.text_pricing import TextPricing, mode_of, only_member
from harness.contract import TextTask
from harness.errors import AnswerError, InputError, QueryError
from harness.evaluation.text_metrics import scores
from harness.solving.metrics import TEXT_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import Answer, Examples, IntArray, Task, Text
    from harness.lm.served import Served

Told: TypeAlias = "Callable[[int, int], None]"
"""Gets how many test texts are written, and how many there are."""
_TEXTS_AT_ONCE = 256
_ASKED_AT_ONCE = 16
"""The same of a server, which is asked for each text by itself."""
_TOLD_S = 0.5


def nobody(_written: int, _texts: int) -> None:
    """Tell nobody."""


def read_as(task: Task | TextTask) -> str:
    """The template under which a model's facts are measured: a cloze, whose mask is where an output would begin."""
    return task.template if task.classes else f"{task.template}{{mask}}"


def with_classes(task: Task | TextTask, what: str) -> Task:
    """A task that has classes, for what works on no other.

    Args:
        task: of either kind.
        what: does not work on text tasks.

    Raises:
        InputError: it is a text task.
    """
    if isinstance(task, TextTask):
        raise InputError(f"task {task.name} is answered by text, and {what} needs classes; choose another with --task")
    return task


def pricing_of(
    task: TextTask,
    lm: Served,
    frame_bytes: int,
    row_tokens: int | None,
    direction_bytes: int = LARGEST_BYTES,
) -> TextPricing:
    """The model of a text task with its limits and prices.

    Raises:
        ModelError: the model does not write.
    """
    from harness.lm.generation import text_model  # noqa: PLC0415 - torch

    return TextPricing(lm, text_model(lm), task, frame_bytes, row_tokens, direction_bytes)


def write(answer: Answer, task: TextTask, lm: Served, texts: Sequence[Text], told: Told = nobody) -> tuple[str, ...]:
    """What an answer writes after each text.

    Args:
        answer: a template and a prompt.
        task: gives stops and the longest output.
        lm: the model.
        texts: of the test set.
        told: gets how many texts are written, from time to time.

    Returns:
        One output for each text, cut by the stops.

    Raises:
        AnswerError: the answer does not fit the task or the model.
    """
    from harness.lm.generation import text_model  # noqa: PLC0415 - torch

    model, member, found = text_model(lm), only_member(answer), list[str]()
    how, at_once = Decoding(task.most_tokens, task.stop), _TEXTS_AT_ONCE if model.soft else _ASKED_AT_ONCE
    try:
        lm.check(member.prompt)
        for first in range(0, len(texts), at_once):
            some = tuple(texts[first : first + at_once])
            encoded = model.encode(member.template, some, mode_of(member), task.most_tokens)
            counted = _Counted(first, len(texts), told)
            found += model.generate(member.prompt, encoded, how, counted).texts[0]
            told(len(found), len(texts))
            checkpoint()
    except QueryError as problem:
        raise AnswerError(f"the model refuses this answer: {problem}") from problem
    return tuple(map(task.output, found))


class _Counted:
    """Lets a model write on, and tells how many texts have ended: those that were begun and are not going on."""

    def __init__(self, before: int, texts: int, told: Told) -> None:
        """Tell `told` about `texts` texts, `before` of which were written before."""
        self._before, self._texts, self._told = before, texts, told
        self._begun, self._next = set[int](), 0.0

    def __call__(self, sequences: Sequence[int]) -> bool:
        """Count the sequences that go on."""
        self._begun.update(sequences)
        if (now := time.monotonic()) >= self._next:
            self._next = now + _TOLD_S
            self._told(self._before + len(self._begun) - len(sequences), self._texts)
        return True


def scored(task: TextTask, outputs: Sequence[str], test: Examples) -> IntArray:
    """The predictions that stand for outputs: (texts,), their scores in ten-thousandths."""
    found = scores(task.metric, outputs, test.references)
    return np.asarray(np.rint(found * TEXT_SCALE), dtype=np.int64)
