"""Shadow answers: a submission on many splits that are drawn from the pool of a task, as the track draws its own."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.errors import InputError
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import with_classes
from harness.leaks.membership import DEV, OUT, TRAIN, Shadows
from harness.leaks.victims import stored, tuned
from harness.solving import answers
from harness.tracks.examples import load_shots, load_test

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import FeatureKind, Outputs, Prompts, Text
    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Progress
    from harness.leaks.solvers import Solver
    from harness.results.store import Store
    from harness.tracks.track import Track

SHADOWS = 64
_FEWEST = 3
"""Splits of a task. A text of another split tells something only if a third split lacks it, too."""


@dataclass(frozen=True)
class Stored:
    """Stored answers of an entry, to be attacked by each other."""

    tasks: list[Shadows]
    answers: tuple[str, ...]
    """Their SHA-256, sorted."""


def with_splits(track: Track, task: str, shadows: int) -> Track:
    """The track with one task alone, on splits 1 to `shadows`, drawn as the track draws them.

    Raises:
        InputError: the track has no such task, or its splits are not drawn from a pool that ships.
    """
    if task not in track.tasks:
        raise InputError(f"track {track.name} has no task {task!r}; it has {', '.join(track.tasks)}")
    if track.data.source != "embedded":
        raise InputError(
            f"shadow splits are drawn from a pool, and the data of track {track.name} are {track.data.source!r}; take "
            'a track whose data.source is "embedded"'
        )
    spec = msgspec.structs.replace(track.tasks[task], splits=tuple(range(1, shadows + 1)))
    return msgspec.structs.replace(track, tasks={task: spec})


def cast(
    track: Track,
    overrides: Overrides,
    store: Store,
    solver: Solver,
    task: str,
    shadows: int,
    progress: Progress,
    said: Callable[[str], None] = lambda _said: None,
) -> Shadows:
    """Tune a submission on each shadow split, and ask its answers about every text of the pool and of the test set.

    Args:
        track: whose task it is.
        overrides: how cells run.
        store: keeps the runs; a finished shadow is never run again.
        solver: the submission.
        task: on which.
        shadows: how many splits.
        progress: of the cells.
        said: is told what comes after.

    Raises:
        InputError: the track's splits cannot be drawn, or a shadow has no answer.
    """
    many = with_splits(track, task, shadows)
    choices = dataclasses.replace(overrides, tasks=(), splits=())
    run = tuned(many, choices, store, solver, progress)
    evaluation = Evaluation(many, choices, store)
    return _shown(evaluation, evaluation.cells, store, run, solver.name, said)


def of_entry(
    evaluation: Evaluation, store: Store, run: str, entry: str, said: Callable[[str], None] = lambda _said: None
) -> Stored:
    """The stored answers of an entry, each a target whose shadows are the same task's other splits.

    Args:
        evaluation: the track with its model.
        store: holds the answers.
        run: the entry's.
        entry: its name, for messages.
        said: is told what comes.

    Returns:
        The answers of tasks with at least three, and what each says of all labelled texts and of the test set.

    Raises:
        InputError: no task has three answers.
    """
    tasks: dict[str, list[tuple[Cell, str]]] = {}
    for cell in evaluation.cells:
        if blob := store.answer(run, cell.task.name, cell.split):
            tasks.setdefault(cell.task.name, []).append((cell, hashlib.sha256(blob).hexdigest()))
    several = [cells for cells in tasks.values() if len(cells) >= _FEWEST]
    if not several:
        most = max(map(len, tasks.values()), default=0)
        raise InputError(
            f"{entry} has answers on {most} of a task's splits in {store.url}; {_FEWEST} are needed: one that is "
            "attacked, one of other texts, and one without either. A published database keeps digests of answers alone"
        )
    shown = [_shown(evaluation, [cell for cell, _ in cells], store, run, entry, said) for cells in several]
    return Stored(shown, tuple(sorted(digest for cells in several for _, digest in cells)))


def _shown(
    evaluation: Evaluation,
    cells: Sequence[Cell],
    store: Store,
    run: str,
    entry: str,
    said: Callable[[str], None],
) -> Shadows:
    """What the answers of one task's cells say of all their labelled texts, and of the test set."""
    splits = [load_shots(cell.file, cell.source, cell.split, cell.spec) for cell in cells]
    labels = {
        text: int(label)
        for shots in splits
        for part in (shots.train, shots.dev)
        for text, label in zip(part.texts, part.labels, strict=True)
    }
    texts, truth = list(labels), np.array(list(labels.values()))
    place = {text: k for k, text in enumerate(texts)}
    part = np.full((len(splits), len(texts)), OUT)
    for row, shots in zip(part, splits, strict=True):
        row[[place[text] for text in shots.train.texts]] = TRAIN
        row[[place[text] for text in shots.dev.texts]] = DEV
    first = cells[0]
    test = load_test(first.file, first.source)
    lm = _Remembering(evaluation.model_for(first))
    both, right = [*texts, *test.texts], np.concatenate([truth, test.labels])
    p = []
    for n, cell in enumerate(cells, start=1):
        said(f"what answer {n} of {len(splits)} on {first.task.name} says of {len(both):,} texts")
        answer, of = stored(store, run, cell, entry), with_classes(cell.task, "harness leaks")
        given = answers.probabilities(answer, of, lm, both)
        p.append(given[np.arange(len(both)), right])
    every = np.stack(p)
    return Shadows(every[:, : len(texts)], part, every[:, len(texts) :])


class _Remembering:
    """A model that computes what the bare template shows of the same texts once for all answers."""

    def __init__(self, lm: Any) -> None:
        self._lm, self._known = lm, dict[Any, Any]()

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """See `harness.solving.answers.Forward`."""
        if prompts is not None:
            found: Outputs = self._lm.outputs(prompts, texts, template, words, features)
            return found
        key = tuple(texts), template, tuple(words), features
        if key not in self._known:
            self._known[key] = self._lm.outputs(prompts, texts, template, words, features)
        kept: Outputs = self._known[key]
        return kept
