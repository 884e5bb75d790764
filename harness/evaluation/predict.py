"""`harness predict`: classifies one text with a stored answer, with the same code that scores answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError, did_you_mean
from harness.evaluation.applying import tested_by
from harness.lm.load import load_model
from harness.results.packed import LEFT_OUT
from harness.solving import answers

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from harness.contract import Task, Text
    from harness.results.store import Store
    from harness.tracks.track import Track


def classify(blob: bytes, task: Task, track: Track, text: Text) -> npt.NDArray[np.float64]:
    """Probabilities of one text: (classes,).

    Raises:
        AnswerError: the bytes are no answer, or the answer does not fit the task or the model.
        ModelError: the track's model is not available.
    """
    answer = answers.from_bytes(blob)
    lm = load_model(track.model, track.prompt, numerics=track.numerics)
    answers.check(answer, task, lm.backbone.width)
    if task.name in track.tasks:
        lm = tested_by(lm, track.tasks[task.name])
    (p,) = answers.probabilities(answer, task, lm, [text])
    return np.asarray(p)


def stored_answer(results: Store, entry: str, track: str, task: str, split: int, *, other_model: bool) -> bytes:
    """Answer of the newest run of an entry that has one, on the track's model or, with `other_model`, on another one.

    Runs with a pre-trained p0 are skipped, because their answers have a meaning only together with that p0.

    Raises:
        InputError: there is no answer, or the entry is a white-box reference.
    """
    bare = False
    for run in reversed(results.runs()):
        key = run.key
        if (key.label, key.track, "model" in key.modified) == (entry, track, other_model):
            if key.external:
                continue  # the answer is relative to a pre-trained p0, which is not available here
            blob = results.answer(run.id, task, split)
            if key.access == "white-box":
                raise InputError(
                    f"{entry!r} is a white-box reference: it trained the model's weights, and no answer of it is kept. "
                    "Take a ranked entry, or evaluate the reference again to see its score"
                )
            if key.access == "predictions":
                raise InputError(f"{entry!r} was uploaded as predictions, without an answer; take a ranked entry")
            if blob is not None:
                return blob
            there = (cell for cell in results.cells(run.id) if (cell.task, cell.split) == (task, split))
            bare = bare or any(1.0 in cell.predictions for cell in there)
    if bare:
        raise InputError(
            f"{results.url} has the answer of {entry!r} for {task}, split {split} without its bytes, {LEFT_OUT}"
        )
    alike = did_you_mean(entry, {run.key.label for run in results.runs() if run.key.track == track} - {entry})
    raise InputError(f"{results.url} holds no answer of {entry!r}{alike} for {task}, split {split} on track {track}")


def read(path: Path) -> bytes:
    """Read the bytes of an answer file; InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem}") from problem


def write(path: Path, blob: bytes) -> None:
    """Write an answer file; InputError if it cannot be written."""
    try:
        path.write_bytes(blob)
    except OSError as problem:
        raise InputError(f"{path} cannot be written: {problem}") from problem
