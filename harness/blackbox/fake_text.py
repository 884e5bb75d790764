"""The fake model's text: what it finds likely and what it writes after a text. It has a planted optimum, too.

A text wants one output: its first reference if the fake knows it, and else its first words. The token that is wanted at
place k has a difficulty d, drawn once for text and place. With the prompt's quality g (`harness.blackbox.fake`),

    logit(wanted) = 16 (g - d)        d ~ U(0, 0.7)
    logit(other)  = noise(text, k, token before)       for 24 common words and the end of text

and a mass of exp(2) is left for all tokens beside these. Likelihoods and outputs come from this one distribution.
Without a prompt g is 0.37, and about a third of the tokens is right; with the planted prompt all are. Tokens are words
with the space before them, and line ends.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.fake import FakeModel, derived_rng, fake_examples, fake_task
from harness.blackbox.fake_words import WORDS
from harness.blackbox.limits import as_read
from harness.contract import Examples, Generated, Likelihoods, Shots, Task, TextTask
from harness.errors import QueryError
from harness.tracks.tasks import template_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.blackbox.text_model import Decoding
    from harness.contract import Mode, Prompts, Text

Floats = npt.NDArray[np.float64]

END = ""
"""The token that ends a text."""
WANTED_WORDS = 4
"""Words of an output that no reference tells."""
_OTHERS = (*tuple(dict.fromkeys(f" {word.strip()}" for word in WORDS))[:24], END)
_GAIN, _HARDEST, _REST = 16.0, 0.7, 2.0
_RARE = _REST - math.log(30_011)
"""Logit of a token beside the wanted and the common ones: one of as many as the fake's vocabulary has."""


class _Place(NamedTuple):
    """What may come next."""

    noise: Floats  # (others,) logits
    wanted: str
    difficulty: float

    def mass(self) -> float:
        """The logarithm of the mass of all tokens but the wanted one."""
        free = [value for token, value in zip(_OTHERS, self.noise, strict=True) if token != self.wanted]
        return float(np.logaddexp.reduce([*free, _REST]))


class _Said(NamedTuple):
    """A target after a text, token by token."""

    right: npt.NDArray[np.bool_]  # (tokens,) whether the token is the wanted one
    difficulty: Floats  # (tokens,)
    mass: Floats  # (tokens,)
    other: Floats  # (tokens,) logit of the token, where it is not the wanted one


@dataclass(frozen=True)
class FakeTexts:
    """Texts under one template. Their words count as tokens."""

    template: str
    texts: tuple[Text, ...]

    def __len__(self) -> int:
        """Count the texts."""
        return len(self.texts)

    @property
    def tokens(self) -> int:
        """Words of all texts, the template not counted."""
        return sum(own for own, _ in self.sizes)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Of each text, its words and those of the template."""
        others = len(self.template.split())
        return tuple((sum(len(part.split()) for part in text), others) for text in self.texts)


class FakeWriter:
    """The fake as a model that writes; implements `harness.blackbox.text_model.TextModel`."""

    soft = scores = True

    def __init__(self, free: FakeModel, task: TextTask, shots: Shots | None = None, service_s: float = 0.0) -> None:
        """Write for `task`.

        Args:
            free: gives the quality of prompts. Its task is `stand_in(task)`.
            task: gives what stands around an output.
            shots: whose references are known; the outputs of other texts are their first words.
            service_s: seconds of a forward pass.
        """
        self._free, self._task, self._service_s = free, task, service_s
        self._known: dict[Text, str] = {}
        for examples in () if shots is None else (shots.dev, shots.train):
            self._known.update(
                zip((as_read(text) for text in examples.texts), (r[0] for r in examples.references), strict=True)
            )

    def encode(self, template: str, texts: tuple[Text, ...], mode: Mode | None, room: int) -> FakeTexts:
        """See `TextModel`."""
        longest = self._free.info.max_tokens - (0 if mode is None else self._free.info.prompt_tokens) - room
        if longest < 1:
            raise QueryError(f"{room:,} tokens of output; fake takes {self._free.info.max_tokens} with text and prompt")
        for text in texts:
            checkpoint()
            problem = template_problem(f"{template}{{mask}}", len(text), True)
            if problem:
                raise QueryError(problem)
        return FakeTexts(template, tuple(map(as_read, texts)))

    def target_ids(self, targets: Sequence[str]) -> tuple[tuple[Any, ...], ...]:
        """See `TextModel`. The fake's tokens are text and no numbers."""
        found = tuple(map(pieces, targets))
        for target, tokens in zip(targets, found, strict=True):
            if not tokens:
                raise QueryError(f"the target {target!r} has no token; a target is the text whose likelihood is asked")
        return found

    def score(self, prompts: Prompts | None, texts: FakeTexts, targets: Sequence[tuple[Any, ...]]) -> Likelihoods:
        """See `TextModel`. Each row is computed by itself, so it has the same bits in any batch."""
        g = self._quality(prompts, texts.template)
        lengths = np.array([len(target) for target in targets], dtype=np.int64)
        values = np.zeros((len(g), len(targets), int(lengths.max())), dtype=np.float32)
        checkpoint()
        time.sleep(self._service_s)
        for n, (text, target) in enumerate(zip(texts.texts, targets, strict=True)):
            said = _said(self._free.seed, text, self._wanted(text), target)
            wanted = _GAIN * (g[:, None] - said.difficulty)  # (candidates, tokens)
            own = np.where(said.right, wanted, said.other)
            values[:, n, : len(target)] = own - np.logaddexp(said.mass, wanted)
        return Likelihoods(values, lengths)

    def generate(
        self, prompts: Prompts | None, texts: FakeTexts, how: Decoding, go_on: Callable[[Sequence[int]], bool]
    ) -> Generated:
        """See `TextModel`. There is a checkpoint before each step."""
        g, count = self._quality(prompts, texts.template), len(texts)
        written: list[list[str]] = [[] for _ in range(len(g) * count)]
        going, cut = list(range(len(written))), False
        chances = [
            np.random.Generator(np.random.Philox(key=[how.seed, (n // count << 32) + n % count])) if how.temperature
            else None for n in going
        ]  # fmt: skip
        while going:
            checkpoint()
            if not go_on(going):
                cut = True
                break
            time.sleep(self._service_s)
            for n in going:
                text, own = texts.texts[n % count], written[n]
                place = _place(self._free.seed, text, self._wanted(text), len(own), own[-1] if own else END)
                own.append(_chosen(place, float(g[n // count]), how.temperature, chances[n]))
            going = [n for n in going if not _ended(written[n], how)]
        tokens = np.array([len(own) for own in written], dtype=np.int64).reshape(len(g), count)
        joined = ["".join(own) for own in written]
        return Generated(tuple(tuple(joined[c * count : (c + 1) * count]) for c in range(len(g))), tokens, cut)

    def _quality(self, prompts: Prompts | None, template: str) -> Floats:
        return self._free.quality(prompts, f"{template}{{mask}}")

    def _wanted(self, text: Text) -> str:
        return self._task.target(self._known.get(text) or first_words(text))


def stand_in(task: TextTask) -> Task:
    """The task with classes whose fake model gives a text task's prompts their quality."""
    return Task(task.name, ("said", "not"), "accuracy", f"{task.template}{{mask}}", (" said", " not"), task.fields)


def pieces(text: str) -> tuple[str, ...]:
    """The fake's tokens of a text; together they are the text."""
    return tuple(re.findall(r"\n| ?\S+|\s", text))


def first_words(text: Text) -> str:
    """The output that a text wants where no reference tells another."""
    return " ".join(" ".join(text).split()[:WANTED_WORDS])


def fake_text_task() -> TextTask:
    """A text task for the fake model: say the first four of nine made-up words."""
    return TextTask("fake-text", "exact_match", "{a} =>", most_tokens=8)


def fake_text_examples(count: int, rng: np.random.Generator) -> Examples:
    """Texts of nine made-up words, with the references of `fake_text_task`."""
    texts = fake_examples(fake_task(), count, rng).texts
    return Examples(texts, np.zeros(count, dtype=np.int64), tuple((first_words(text),) for text in texts))


def fake_text_shots(rng: np.random.Generator, texts: int = 32) -> Shots:
    """A few-shot split of `fake_text_task`: so many texts for training, and as many for selection."""
    return Shots(fake_text_examples(texts, rng), fake_text_examples(texts, rng))


@lru_cache(maxsize=1 << 16)
def _place(seed: int, text: Text, wanted: str, place: int, before: str) -> _Place:
    tokens = pieces(wanted)
    difficulty = _HARDEST * derived_rng(seed, *text, str(place)).random()
    noise = derived_rng(seed, *text, str(place), before).standard_normal(len(_OTHERS))
    return _Place(noise, tokens[place] if place < len(tokens) else END, difficulty)


@lru_cache(maxsize=1 << 14)
def _said(seed: int, text: Text, wanted: str, target: tuple[str, ...]) -> _Said:
    places = [_place(seed, text, wanted, k, before) for k, before in enumerate((END, *target[:-1]))]
    known = [dict(zip(_OTHERS, each.noise.tolist(), strict=True)) for each in places]
    return _Said(
        np.array([token == each.wanted for token, each in zip(target, places, strict=True)]),
        np.array([each.difficulty for each in places]),
        np.array([each.mass() for each in places]),
        np.array([noise.get(token, _RARE) for token, noise in zip(target, known, strict=True)]),
    )


def _chosen(place: _Place, g: float, temperature: float, chance: np.random.Generator | None) -> str:
    """The most likely token, or one that is drawn; the rare ones are never written."""
    tokens = [*_OTHERS, place.wanted]
    known = [-math.inf if token == place.wanted else value for token, value in zip(_OTHERS, place.noise, strict=True)]
    logits = np.array([*known, _GAIN * (g - place.difficulty)])
    if chance is None:
        return tokens[int(logits.argmax())]
    shares = np.exp((logits - logits.max()) / temperature)
    return tokens[int(np.searchsorted(shares.cumsum(), chance.random() * shares.sum(), side="right"))]


def _ended(written: Sequence[str], how: Decoding) -> bool:
    if written[-1] == END or len(written) >= how.most_tokens:
        return True
    text = "".join(written)
    return any(stop in text for stop in how.stop)
