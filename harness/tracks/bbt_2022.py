"""The few-shot rows of BBT's code (Sun et al., ICML 2022), from a description of what it does.

Rows of more than 512 tokens, with the filled template and the prompt's tokens, are left out of the training set and of
the test set. What is left of the training set is shuffled by numpy's legacy generator, seeded with the split's number,
and gone through once: a row is for training while its class has fewer than k there, else for dev while its class has
fewer than k there, else for nothing. Rows stay in the order in which they were taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import Examples, IntArray, Shots, Text
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.tracks.tasks import TaskFile
    from harness.tracks.track import Track
    from harness.tracks.track_task import TrackTask

LONGEST = 512
"""Most tokens of an input, the prompt's included."""


@dataclass(frozen=True)
class RowsOf2022:
    """What decides which rows of a data set count: the tokenizer and the wording of a track."""

    tokenizer: str
    """The directory of the model, or its hub id."""
    revision: str | None
    profile: str
    prompt_tokens: int

    @classmethod
    def of(cls, track: Track) -> RowsOf2022:
        """Those of a track."""
        return cls(track.model.source, track.model.revision, track.profile, track.prompt.tokens)

    def shots(self, pool: Examples, file: TaskFile, split: int, spec: TrackTask) -> Shots:
        """Draw the training and dev rows of a split.

        Raises:
            DataError: a class has too few rows.
        """
        kept = self.kept(pool, file)
        train, dev = draw(kept.labels.tolist(), split, spec.shots, spec.dev)
        for label, name in enumerate(file.classes):
            counts = [sum(int(kept.labels[n]) == label for n in rows) for rows in (train, dev)]
            if counts != [spec.shots, spec.dev]:
                raise DataError(
                    f"{file.name}/{split}: class {name} has {counts[0]} rows to train on and {counts[1]} for dev; "
                    f"{spec.shots} and {spec.dev} are needed"
                )
        return Shots(_rows(kept, train), _rows(kept, dev))

    def kept(self, examples: Examples, file: TaskFile) -> Examples:
        """The rows that are short enough, in their order, with spaces for the line breaks that the set writes out."""
        broken = file.hub.line_break if file.hub else None
        if broken is not None:
            texts = tuple(tuple(part.replace(broken, " ") for part in text) for text in examples.texts)
            examples = Examples(texts, examples.labels)
        template = file.task(self.profile, "masked").template
        most = LONGEST - self.prompt_tokens
        lengths = _lengths(self.tokenizer, self.revision, template, examples.texts, most)
        return _rows(examples, np.flatnonzero(lengths <= most).tolist())


def draw(labels: Sequence[int], seed: int, train: int, dev: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows to train on and of those for dev, in the order in which they are taken.

    Args:
        labels: class of each row, 0 .. K-1.
        seed: the split's number.
        train: rows to train on per class.
        dev: rows for dev per class.
    """
    order = list(range(len(labels)))
    np.random.RandomState(seed).shuffle(order)
    found: tuple[list[int], list[int]] = ([], [])
    counts: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for n in order:
        for rows, count, most in zip(found, counts, (train, dev), strict=True):
            if count.get(labels[n], 0) < most:
                count[labels[n]] = count.get(labels[n], 0) + 1
                rows.append(n)
                break
    return found


def _rows(examples: Examples, numbers: Sequence[int]) -> Examples:
    return Examples(tuple(examples.texts[n] for n in numbers), examples.labels[list(numbers)])


@lru_cache(maxsize=16)
def _lengths(source: str, revision: str | None, template: str, texts: tuple[Text, ...], most: int) -> IntArray:
    """Tokens of each filled template, special ones included; of those that cannot exceed `most` a bound.

    A token of byte-pair encoding is at least one byte, so a text of few bytes needs no tokenizer.
    """
    tokenizer = _tokenizer(source, revision)
    mask = str(tokenizer.mask_token)
    filled = [template.replace("{mask}", mask).replace("{a}", t[0]).replace("{b}", t[-1]) for t in texts]
    lengths = np.array([len(text.encode()) + 2 for text in filled], dtype=np.int64)
    long = np.flatnonzero(lengths > most).tolist()
    for start in range(0, len(long), 10_000):
        part = long[start : start + 10_000]
        ids = tokenizer([filled[n] for n in part], verbose=False)["input_ids"]
        lengths[part] = [len(each) for each in ids]
    return lengths


@lru_cache(maxsize=2)
def _tokenizer(source: str, revision: str | None) -> Any:
    import transformers  # noqa: PLC0415 - seconds, and only this draw needs it

    revision = None if Path(source).is_dir() else revision
    return transformers.AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
