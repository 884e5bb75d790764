"""Makes few-shot splits and a test set of one labelled file, for `harness new-competition`.

Everything is drawn by the SHA-256 of a key and the text, as `harness.tracks.examples.draw_shots` draws: the result
depends neither on the order of the file nor on a library's random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Examples
from harness.errors import DataError, counted
from harness.tracks.examples import draw_shots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Shots, Text

KEPT_TEST = 1000
"""Most test texts that are drawn from a file: 7 answers of each cell are applied to all of them."""


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    shots: int
    """Training examples of each class."""
    dev: int
    """Dev examples of each class."""
    splits: int
    test: int = KEPT_TEST
    """Most test texts."""


@dataclass(frozen=True)
class Divided:
    """What was drawn, without a text in common between the test set and any split."""

    shots: dict[int, Shots]
    """By the number of the split, from 1 on."""
    test: Examples
    notes: tuple[str, ...]
    """What was left out, in lines."""


def divide(name: str, classes: Sequence[str], rows: Examples, test: Examples | None, sizes: Sizes) -> Divided:
    """Draw splits and, unless it is given, a test set.

    Half of the texts of each class at most are for the splits, and no more than the splits need if they share no text.
    All others are test texts.

    Args:
        name: of the task; another name gives other draws.
        classes: names of the classes, for messages.
        rows: the labelled texts.
        test: a test set that was given; texts in it are in no split.
        sizes: how much to draw.

    Raises:
        DataError: a class has too few texts. The message has the numbers.
    """
    label_of, notes = _once(rows)
    if test is not None:
        known = set(test.texts)
        shared = [text for text in label_of if text in known]
        for text in shared:
            del label_of[text]
        notes += [f"{counted(len(shared), 'text')} of the data are in the test set, too, and are in no split"] * bool(
            shared
        )
    by_class: list[list[Text]] = [[] for _ in classes]
    for text in sorted(label_of, key=lambda text: _place(f"{name}/test", text)):
        by_class[label_of[text]].append(text)
    need = sizes.shots + sizes.dev
    pool: list[tuple[Text, int]] = []
    rest: list[tuple[Text, int]] = []
    for label, texts in enumerate(by_class):
        share = len(texts) if test is not None else max(need, min(need * sizes.splits, len(texts) // 2))
        if len(texts) < need + (test is None):
            beside = "" if test is not None else " and at least one test text"
            fitting = max(1, (len(texts) - (test is None)) // 2)
            raise DataError(
                f"class {classes[label]!r} has {counted(len(texts), 'text')}, and {sizes.shots} + {sizes.dev} for "
                f"train and dev{beside} are needed; take --shots {fitting}, or give more data"
            )
        pool += [(text, label) for text in texts[:share]]
        rest += [(text, label) for text in texts[share:]]
    if test is None:
        rest.sort(key=lambda each: _place(f"{name}/order", each[0]))
        unused = len(rest) - sizes.test
        notes += [f"{unused:,} more texts could be test texts; {sizes.test:,} are, by --test-texts"] * (unused > 0)
        test = _examples(rest[: sizes.test])
    drawn = _examples(pool)
    shots = {
        number: draw_shots(drawn, len(classes), sizes.shots, sizes.dev, f"{name}/{number}")
        for number in range(1, sizes.splits + 1)
    }
    return Divided(shots, test, tuple(notes))


def _once(rows: Examples) -> tuple[dict[Text, int], list[str]]:
    """Each text once with its label, without texts that have several labels; and what that left out."""
    label_of: dict[Text, int] = {}
    clash: set[Text] = set()
    for text, label in zip(rows.texts, rows.labels.tolist(), strict=True):
        if label_of.setdefault(text, label) != label:
            clash.add(text)
    notes = []
    again = sum(count - 1 for text, count in Counter(rows.texts).items() if text not in clash)
    if again:
        notes.append(f"{counted(again, 'row')} repeat another row; each text counts once")
    if clash:
        notes.append(
            f"{counted(len(clash), 'text')} have several labels and are left out, first {min(clash)[0][:60]!r}"
        )
    return {text: label for text, label in label_of.items() if text not in clash}, notes


def _examples(rows: Sequence[tuple[Text, int]]) -> Examples:
    return Examples(tuple(text for text, _ in rows), np.array([label for _, label in rows], dtype=np.int64))


def _place(key: str, text: Text) -> bytes:
    return hashlib.sha256(json.dumps([key, *text]).encode()).digest()
