"""What is known of a task before anybody competes: its label words, the bias of the bare template, the zero-shot score.

The bias is shown by the mean probability of each class over the training texts, beside the share of the class in them,
and by the probabilities on a text without content (Zhao et al. 2021, "Calibrate Before Use", section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import Answer, Examples
from harness.errors import counted
from harness.solving import answers
from harness.solving.metrics import majority_prediction, score
from harness.tracks.examples import load_shots, load_test, splits_of

if TYPE_CHECKING:
    from harness.contract import FloatArray, Task, Text
    from harness.lm.model import LanguageModel
    from harness.tracks.examples import Source
    from harness.tracks.tasks import TaskFile
    from harness.tracks.track_task import TrackTask

CONTENT_FREE = "N/A"
"""The text without content; of a pair, both texts."""
_STRONG = 2.0
"""A class whose mean probability is so many times its share, or that part of it, is said to be biased."""


@dataclass(frozen=True)
class Word:
    """A label word."""

    text: str
    tokens: tuple[str, ...]
    """As the model's tokenizer cuts it; a label word must be one."""


@dataclass(frozen=True)
class Beforehand:
    """The facts of one task."""

    task: Task
    words: tuple[Word, ...]
    share: tuple[float, ...]
    """Share of each class in the training texts of all splits."""
    mean: tuple[float, ...]
    """Mean probability of each class over these texts, with the bare template; empty if a word is not one token."""
    content_free: tuple[float, ...]
    """Probability of each class on `CONTENT_FREE`."""
    zero_shot: float | None
    """Test score of the bare template; None if a label word is not one token."""
    majority: float
    """Test score of the most frequent class."""
    test_texts: int

    def problems(self) -> list[str]:
        """Label words that the model cannot be asked for."""
        return [
            f"{self.task.name}: the label word {word.text!r} of class {name!r} is {counted(len(word.tokens), 'token')} "
            f"({' '.join(word.tokens) or 'none'}), and one is needed; choose another word in task.toml"
            for name, word in zip(self.task.classes, self.words, strict=True)
            if len(word.tokens) != 1
        ]

    def biased(self) -> list[str]:
        """Classes that the bare template gives much more or much less than their share."""
        pairs = zip(self.task.classes, self.mean, self.share, strict=False)
        return [name for name, mean, share in pairs if not share / _STRONG <= mean <= share * _STRONG]

    def record(self) -> dict[str, Any]:
        """The facts for machines."""
        words = {
            name: {"word": w.text, "tokens": list(w.tokens)}
            for name, w in zip(self.task.classes, self.words, strict=True)
        }
        named = {"share": self.share, "mean_probability": self.mean, "content_free": self.content_free}
        shares = {key: dict(zip(self.task.classes, values, strict=False)) for key, values in named.items()}
        scores = {"zero_shot": self.zero_shot, "majority": self.majority, "test_texts": self.test_texts}
        return {"task": self.task.name, "template": self.task.template, "words": words, **shares, **scores}


def beforehand(file: TaskFile, task: Task, source: Source, spec: TrackTask, lm: LanguageModel) -> Beforehand:
    """Find the facts of a task; it costs one forward pass of each training and test text.

    Args:
        file: the task file.
        task: the task in the track's wording, its words as they are read.
        source: where the examples are.
        spec: the task on the track.
        lm: the model.

    Raises:
        DataError: the data are missing or malformed.
    """
    train = _training(file, source, spec)
    test = load_test(file, source)
    count = len(task.classes)
    ids = lm.word_ids(task.words)
    names = lm.tokenizer.convert_ids_to_tokens
    words = tuple(Word(word, tuple(map(str, names(each)))) for word, each in zip(task.words, ids, strict=True))
    share = np.bincount(train.labels, minlength=count) / max(1, len(train))
    majority = float(score(task.metric, majority_prediction(test.labels), test.labels, count))
    fixed: dict[str, Any] = {
        "task": task,
        "words": words,
        "share": tuple(share.tolist()),
        "majority": majority,
        "test_texts": len(test),
    }
    if any(len(word.tokens) != 1 for word in words):
        return Beforehand(**fixed, mean=(), content_free=(), zero_shot=None)
    mean = _probabilities(task, lm, train.texts).mean(axis=0)
    free = _probabilities(task, lm, ((CONTENT_FREE,) * task.fields,))[0]
    predicted = _probabilities(task, lm, test.texts).argmax(axis=1)
    value = float(score(task.metric, predicted, test.labels, count))
    return Beforehand(**fixed, mean=tuple(mean.tolist()), content_free=tuple(free.tolist()), zero_shot=value)


def _training(file: TaskFile, source: Source, spec: TrackTask) -> Examples:
    """The training texts of all splits, each once."""
    found: dict[Text, int] = {}
    for split in splits_of(file, source, spec, present_only=True):
        train = load_shots(file, source, split, spec).train
        found.update(zip(train.texts, train.labels.tolist(), strict=True))
    return Examples(tuple(found), np.array(list(found.values()), dtype=np.int64))


def _probabilities(task: Task, lm: LanguageModel, texts: tuple[tuple[str, ...], ...]) -> FloatArray:
    """Probabilities of the bare template: (texts, classes)."""
    return answers.probabilities(Answer.of(task), task, lm, texts)
