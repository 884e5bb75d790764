"""What a change of weights does to all that it was not made for: the other tasks, and the model's own masked words.

An answer is applied to no text here. The change of weights is taken out of it, and the bare templates of the track's
other tasks are scored under it, without the answer's prompts, words and heads. And words of passages are masked, one in
each, and the model's cross-entropy on them is compared (of a causal model: on words after their left context). Texts,
passages and words are drawn by a seed, the same before and after.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from harness.contract import Answer, Member, Task, Weights
from harness.errors import AnswerError, InputError
from harness.evaluation.applying import tested_by
from harness.evaluation.run import Evaluation
from harness.results import observations
from harness.results.forgetting import Forgotten
from harness.results.packed import LEFT_OUT
from harness.solving import answers
from harness.solving.metrics import cell_score
from harness.tracks.examples import load_test

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from harness.contract import IntArray, Text
    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Cell
    from harness.lm.served import Served
    from harness.results.records import Run, StoredCell
    from harness.results.store import Store
    from harness.tracks.track import Track

OTHER_TASKS = "other tasks"
"""Passages are test texts of the track's other tasks."""
_LONGEST = 64
"""Words of a passage; a longer one is cut."""
_SHORTEST = 4
"""Words of a passage; a shorter one is left out."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured, and by which draw."""

    texts: int = 200
    """Largest number of test texts of each other task."""
    passages: int = 200
    """Largest number of passages of which a word is masked."""
    seed: int = 0


@dataclass(frozen=True)
class Clozes:
    """Passages with one masked word each."""

    template: str
    texts: tuple[Text, ...]
    """What stands before and after the word."""
    words: tuple[int, ...]
    """Token ids of all words that are asked about."""
    targets: IntArray
    """(texts,): the place of each passage's own word in `words`."""


def changes_of(answer: Answer) -> list[Weights]:
    """The different changes of weights in an answer, without the soft prompts beside them."""
    found: dict[object, Weights] = {}
    for member in answer.members:
        if isinstance(member.prompt, Weights):
            parts = member.prompt.parts
            what = tuple((p.space, p.z.tobytes(), b"" if p.streams is None else p.streams.tobytes()) for p in parts)
            found.setdefault(what, replace(member.prompt, prompts=None))
    return list(found.values())


def clozes(lm: Served, passages: Sequence[str], like: Task, sizes: Sizes) -> Clozes:
    """Mask one word of each passage that has a word of one token.

    Args:
        lm: the model whose tokens count.
        passages: plain texts.
        like: a task whose label words show how this model writes a word: with a space before it or without.
        sizes: how many passages, and the seed.

    Raises:
        InputError: no passage has such a word.
    """
    rng = np.random.default_rng([sizes.seed, 1])
    order = [passages[i] for i in rng.permutation(len(passages))]
    space = " " if like.words[0].startswith(" ") else ""
    found: list[tuple[Text, int]] = []
    for passage in order:
        words = passage.split()[:_LONGEST]
        inner = [n for n in range(1, len(words) - 1) if words[n].isalpha()]
        if len(words) < _SHORTEST or not inner:
            continue
        for n in rng.permutation(inner).tolist():
            (ids,) = lm.word_ids([space + words[n]])
            if len(ids) == 1:
                found.append(((" ".join(words[:n]), " ".join(words[n + 1 :])), ids[0]))
                break
        if len(found) == sizes.passages:
            break
    if not found:
        raise InputError(
            f"none of {len(passages):,} passages has a word of one token between two others; give longer ones by --text"
        )
    own_ids = [own for _, own in found]
    words_asked = tuple(sorted(set(own_ids)))
    gap = "" if space else " "
    template = f"{{a}}{gap}{{mask}}" + ("" if lm.kind == "causal" else " {b}")
    targets = np.searchsorted(words_asked, own_ids)
    return Clozes(template, tuple(text for text, _ in found), words_asked, targets)


def masked_loss(lm: Served, change: Weights, asked: Clozes) -> float:
    """Mean cross-entropy of the masked words in nats, over the whole vocabulary.

    Raises:
        AnswerError: it is not finite under this change.
    """
    lm.check(change)
    out = lm.forward(change, lm.text_set(asked.template, asked.texts, None), asked.words, None, normalize=True)
    loss = -float(out.logits[0, np.arange(len(asked.texts)), asked.targets].astype(np.float64).mean())
    if not np.isfinite(loss):
        raise AnswerError(f"the masked loss is {loss} under this change of weights")
    return max(0.0, loss)


class Measure:
    """The model of some runs, with the texts of their track, and what the published weights reach on them."""

    def __init__(self, track: Track, choices: Overrides, store: Store, sizes: Sizes, passages: Sequence[str]) -> None:
        """Load model and texts.

        Args:
            track: with the model and the tasks.
            choices: as for the runs, without a choice of cells.
            store: where the facts go.
            sizes: how much is measured.
            passages: of which words are masked; empty takes test texts of the tasks that an answer was not made for.

        Raises:
            InputError: the track has no two tasks with classes, or see `Evaluation`.
        """
        self.store, self.sizes = store, sizes
        self.evaluation = Evaluation(track, replace(choices, tasks=(), splits=()), store)
        self.lm = self.evaluation.lm
        self._cells: dict[str, Cell] = {}
        for cell in self.evaluation.cells:
            if isinstance(cell.task, Task):
                self._cells.setdefault(cell.task.name, cell)
        if len(self._cells) < 2:  # noqa: PLR2004 - the one that was tuned on, and another
            raise InputError(f"track {track.name} has {len(self._cells)} tasks with classes; no other can be forgotten")
        self._given = tuple(passages)
        self.source = OTHER_TASKS if not passages else hashlib.sha256("\n".join(passages).encode()).hexdigest()
        self._tests = {name: self._drawn(name) for name in self._cells}
        self._clozes: dict[str, Clozes] = {}
        self._before: dict[tuple[object, ...], float] = {}

    def of_cell(self, run: Run, cell: StoredCell, say: Callable[[str], None]) -> Forgotten | None:
        """What the answer of a cell forgets; None if it changes no weights. A stored fact is not measured again.

        Raises:
            AnswerError: there is no answer, it cannot be read, or it does not fit the model.
            StoreError: the fact could not be stored.
        """
        blob = self.store.answer(run.id, cell.task, cell.split)
        if not blob:
            raise AnswerError(_without_bytes(cell))
        changes = changes_of(answers.from_bytes(blob))
        if not changes:
            return None
        others = [name for name in self._cells if name != cell.task]
        asked = self._asked(cell.task, others)
        about = Forgotten(
            run.id, cell.task, cell.split, hashlib.sha256(blob).hexdigest(), len(changes), {}, {}, 0.0, 0.0,
            self.sizes.texts, len(asked.texts), self.source, self.sizes.seed, self.lm.format,
        )  # fmt: skip
        known = observations.same_forgotten(self.store, about)
        if known is not None:
            return known
        observations.check_writable(self.store)
        before, after, masked = dict.fromkeys(others, 0.0), dict.fromkeys(others, 0.0), [0.0, 0.0]
        share = 1 / len(changes)
        for n, change in enumerate(changes, start=1):
            which = f"change {n} of {len(changes)}"
            for name in others:
                say(f"{which} on {name}")
                before[name] += share * self._published(change, name, None)
                after[name] += share * self._score(name, change)
            say(f"{which} on {len(asked.texts):,} masked words")
            masked[0] += share * self._published(change, cell.task, asked)
            masked[1] += share * masked_loss(self.lm, change, asked)
        found = replace(
            about, before=before, after=after, masked_before=masked[0], masked_after=masked[1], made=time.time()
        )
        with self.store.changes() as connection:
            observations.insert(connection, found)
        return found

    def _published(self, change: Weights, name: str, asked: Clozes | None) -> float:
        """What the published weights reach on a task, or on masked words, in the format that a change is computed in.

        Layers that are changed in place are computed in another format than the rest, so it is a change of nothing.
        """
        kind = tuple((part.space.group, part.space.layers) for part in change.parts), name, asked is None
        if kind not in self._before:
            nothing = [Weights(part.space, np.zeros_like(part.z), part.streams) for part in change.parts]
            still = reduce(add, nothing)
            self._before[kind] = self._score(name, still) if asked is None else masked_loss(self.lm, still, asked)
        return self._before[kind]

    def _asked(self, task: str, others: Sequence[str]) -> Clozes:
        if task not in self._clozes:
            passages = self._given or [" ".join(text) for name in others for text in self._tests[name][0]]
            self._clozes[task] = clozes(self.lm, passages, cast("Task", self._cells[others[0]].task), self.sizes)
        return self._clozes[task]

    def _drawn(self, name: str) -> tuple[tuple[Text, ...], IntArray]:
        """Test texts of a task with their labels."""
        cell = self._cells[name]
        test = load_test(cell.file, cell.source)
        rng = np.random.default_rng([self.sizes.seed, 0])
        chosen = np.sort(rng.permutation(len(test))[: self.sizes.texts])
        return tuple(test.texts[i] for i in chosen), test.labels[chosen]

    def _score(self, name: str, change: Weights) -> float:
        """The bare template's score on a task."""
        cell, (texts, labels) = self._cells[name], self._tests[name]
        task = cast("Task", cell.task)
        answer = Answer((Member.of(task, change),))
        p = answers.probabilities(answer, task, tested_by(self.lm, cell.spec), texts)
        return cell_score(task.metric, p.argmax(axis=1), labels, len(task.classes))


def _without_bytes(cell: StoredCell) -> str:
    """Why a finished cell has no answer that could be looked at."""
    if 1.0 in cell.predictions:
        return f"the bytes of its answer are not in this database, {LEFT_OUT}"
    return f"it ended as {cell.status} and has no answer"


def in_format(track: Track, cells: Sequence[StoredCell]) -> Track:
    """The track with the number format in which cells were computed, and not the fastest one of this machine."""
    formats = {cell.record.format for cell in cells if cell.record.format}
    if len(formats) != 1:
        return track
    return msgspec.structs.replace(track, model=msgspec.structs.replace(track.model, formats=(formats.pop(),)))


def check_stored(run: Run, cells: Sequence[StoredCell]) -> None:
    """Refuse a run whose weights are not stored, before a model is loaded.

    Raises:
        InputError: it is a reference or an upload, or it has no such cell.
    """
    key = run.key
    if key.access != "black-box":
        what = "the weights that it trained are not stored" if key.access == "white-box" else "it has no answers"
        raise InputError(f"run {run.id} ({key.label}) is {key.access}: {what}, so what they forget is not known")
    if not cells:
        raise InputError(f"run {run.id} ({key.label}) has no finished cell like that")


def check_model(run: Run, measure: Measure) -> None:
    """Refuse a run that another model computed.

    Raises:
        InputError: the weights have another digest.
    """
    if run.key.model_sha256 != measure.lm.sha256:
        raise InputError(
            f"run {run.id} ({run.key.label}) was computed by weights {run.key.model_sha256[:16]}, and those here are "
            f"{measure.lm.sha256[:16]}; name its model with --model, or its track with --track"
        )


def read_passages(path: Path) -> list[str]:
    """Passages of a plain text file, one a line.

    Raises:
        InputError: it cannot be read, or has no text.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"--text {path} cannot be read: {problem}") from problem
    if not lines:
        raise InputError(f"--text {path} is empty; a file with one passage a line is expected")
    return lines


def records(facts: Sequence[Forgotten], names: Mapping[str, str]) -> list[dict[str, object]]:
    """Flat rows: one for each cell; scores are 0 to 1. `names` are the entries of runs."""
    return [
        {
            "entry": names[fact.run], "run": fact.run, "task": fact.task, "split": fact.split, "changes": fact.changes,
            "other_tasks": round(fact.lost, 6), "masked": round(fact.masked, 6),
            "masked_before": round(fact.masked_before, 6), "masked_after": round(fact.masked_after, 6),
            **{f"{task}_{when}": round(scores[task], 6)
               for task in sorted(fact.before) for when, scores in (("before", fact.before), ("after", fact.after))},
            "texts": fact.texts, "passages": fact.passages, "source": fact.source, "seed": fact.seed,
        }
        for fact in facts
    ]  # fmt: skip
