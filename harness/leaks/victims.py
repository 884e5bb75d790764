"""Answers that attacks are made on: those of a submission's cells, tuned now or stored before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError
from harness.evaluation.applying import tested_by
from harness.evaluation.engines import local
from harness.evaluation.engines.job import Job
from harness.evaluation.text_cells import with_classes
from harness.leaks.behaviour import Copies, copy
from harness.leaks.last_layer import plain_words
from harness.solving import answers
from harness.tracks.examples import load_shots, load_test

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import Answer, FloatArray, IntArray, Text
    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Evaluation, Progress
    from harness.leaks.solvers import Solver
    from harness.results.store import Store
    from harness.tracks.track import Track


def tuned(track: Track, overrides: Overrides, store: Store, solver: Solver, progress: Progress) -> str:
    """The run of a submission on the chosen cells; those that are stored are not run again, unless they failed."""
    plan = local.run(Job(track, overrides, store, (solver.submission,), solver.options, again=True), progress)
    return plan.peek(store, solver.submission, solver.options).id


def stored(store: Store, run: str, cell: Cell, entry: str) -> Answer:
    """The answer of a cell.

    Raises:
        InputError: the cell has none.
    """
    blob = store.answer(run, cell.task.name, cell.split)
    if blob is None:
        raise InputError(f"{entry} has no answer on {cell.task.name}/{cell.split}, so there is nothing to attack")
    return answers.from_bytes(blob)


def confidences(evaluation: Evaluation, cell: Cell, answer: Answer, texts: Sequence[Text]) -> FloatArray:
    """Probabilities of each class: (texts, classes)."""
    lm = tested_by(evaluation.model_for(cell), cell.spec)
    return np.asarray(answers.probabilities(answer, with_classes(cell.task, "harness leaks"), lm, texts))


def copied(
    evaluation: Evaluation,
    cell: Cell,
    store: Store,
    run: str,
    entry: str,
    seed: int,
    progress: Callable[[str], None],
) -> Copies:
    """Copy the behaviour of a stored answer.

    Args:
        evaluation: the track with its model.
        cell: of the victim.
        store: holds its answer.
        run: the victim's.
        entry: its name.
        seed: of texts and draws.
        progress: is told what is being done.

    Raises:
        InputError: the cell has no answer.
    """
    answer = stored(store, run, cell, entry)
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    known = {*shots.train.texts, *shots.dev.texts}
    others: dict[Text, None] = {}
    for split in () if cell.spec.splits == "present" else cell.spec.splits:
        more = load_shots(cell.file, cell.source, split, cell.spec)
        others |= dict.fromkeys(text for text in (*more.train.texts, *more.dev.texts) if text not in known)

    def victim(texts: Sequence[Text]) -> IntArray:
        found: IntArray = confidences(evaluation, cell, answer, texts).argmax(axis=1)
        return found

    words = plain_words(evaluation.lm.words)
    test = load_test(cell.file, cell.source)
    return copy(entry, cell.task.name, cell.split, victim, list(others), words, test, seed, progress)
