"""A stand-in for the language model: a real `BlackBox` that answers on a CPU in microseconds. Its optimum is known.

    e = sum over layers of B_l (v_l / hidden_std_l)      # effect of the prompt, (8,)
    g = exp(-|e - e*|^2 / 16)                            # how well it suits the task, in (0, 1]
    q = (1 - g) bias + 4 g^2 evidence(text) + noise(text, e)

Without a prompt g is 0.37, so the logits lean to one class and hardly depend on the text. With the planted prompt g is
1
and the text decides. A hidden rule over the words of a text gives its label: each word speaks for at most one class,
and
the label is the class for which most words speak. Hidden states carry the same evidence, linearly and with noise.

The fake is for tests, for authors, and for `harness check`. Every row is computed by itself, so a candidate has the
same
logits to the last bit in any batch. Modes ``add`` and ``prepend`` are the same here.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.blackbox.fake_weights import check_prompts, effect, facts
from harness.blackbox.fake_words import WORDS
from harness.blackbox.limits import as_read, check_log
from harness.blackbox.meter import Meter
from harness.blackbox.projection import matrix
from harness.blackbox.query import Query, texts_of, words_of
from harness.blackbox.weights import soft
from harness.contract import (
    Budget,
    Examples,
    FeatureKind,
    FloatArray,
    ModelInfo,
    Outputs,
    Prompt,
    Prompts,
    Shots,
    Task,
    Text,
    Weights,
)
from harness.errors import QueryError
from harness.tracks.tasks import template_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = npt.NDArray[np.float64]

EFFECTS = 8
"""Number of dimensions of the prompt's effect e, which are what a search has to find."""
MOST_CLASSES = 16
_VOCABULARY = 30_011
_GAIN, _NOISE, _JITTER, _BIAS = 4.0, 1.5, 0.3, 3.0
_LEANING = 0.5
_COMMON = frozenset(WORDS)
_REST = 10.0
"""The logarithm of the sum of exp(logit) over all words that are not label words."""


class _Draw(NamedTuple):
    """The fixed random numbers of one text."""

    evidence: Floats  # (classes,) number of words that speak for each class, centred
    noise: Floats  # (classes,)
    jitter: Floats  # (classes, EFFECTS) how the noise depends on the prompt
    blur: Floats  # (width,) noise of the hidden state
    said: Floats  # (words, classes) 1 if a word speaks for a class


class FakeModel:
    """The fake without a meter. It implements `harness.solving.answers.Forward`."""

    def __init__(self, task: Task, seed: int, layers: int, width: int, prompt_tokens: int) -> None:
        """Plant an optimum for `task`, drawn from `seed`."""
        classes = len(task.classes)
        if not 2 <= classes <= MOST_CLASSES:  # noqa: PLR2004
            raise ValueError(f"{classes} classes; the fake model supports 2 to {MOST_CLASSES}")
        rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
        hidden_std = tuple(float(s) for s in np.linspace(0.55, 0.73, layers))
        self.task, self.seed = task, seed
        self.info = ModelInfo(
            "fake", "masked", layers, width, _VOCABULARY, 512, prompt_tokens, embedding_std=0.056,
            hidden_std=hidden_std, hidden_std_clipped=tuple(0.9 * s for s in hidden_std), weights=facts(layers, width),
        )  # fmt: skip
        size = prompt_tokens * width
        scale = np.reshape(hidden_std, (layers, 1, 1)) * np.sqrt(size)
        self._effects: Floats = rng.standard_normal((layers, EFFECTS, size)) / scale  # B_l / hidden_std_l
        goal = rng.standard_normal(EFFECTS)
        self._goal: Floats = goal * np.sqrt(2 * EFFECTS) / np.linalg.norm(goal)  # e*, |e*|^2 = 16
        bias = np.zeros(classes)
        bias[int(rng.integers(classes))] = _BIAS
        self._bias: Floats = bias
        directions = rng.standard_normal((classes, width))
        self._directions: Floats = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._drift: Floats = 0.1 * rng.standard_normal((EFFECTS, width))

    @property
    def optimum(self) -> Prompt:
        """The smallest prompt at the input that reaches the planted optimum."""
        info = self.info
        values = np.linalg.pinv(self._effects[0]) @ self._goal
        return Prompt(values.reshape(1, 1, info.prompt_tokens, info.width).astype(np.float32))

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """One id for each piece between spaces. A leading space belongs to its piece."""
        return [[_crc(piece) % _VOCABULARY for piece in re.findall(r"\s*\S+", word)] for word in words_of(words)]

    def vocabulary(self) -> tuple[str, ...]:
        """The label words, the made-up words of the texts, and common English words, each at the index of its id.

        As in a tokenizer like RoBERTa's, a word that stands after a space begins with it, and is another one without.
        """
        words = [""] * _VOCABULARY
        made_up = [w for known in _words(len(self.task.classes)).values() for w in known]
        for word in [
            *WORDS[::-1],
            *(f" {w}" for w in made_up),
            *made_up,
            *self.task.words,
        ]:  # of two, the last one stays
            words[self.word_ids([word])[0][0]] = word
        return tuple(words)

    def check(self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str]) -> None:
        """Refuse what the real model refuses, before it is charged.

        Raises:
            QueryError: the prompts have a wrong shape or a number that is not finite, or the template, texts or words
                are wrong.
        """
        if prompts is not None:
            check_prompts(prompts, self.info)
        fields = {len(text) for text in texts_of(texts)}
        for count in fields:
            problem = template_problem(template, count, causal=False)
            if problem:
                raise QueryError(problem)
        if not words:
            raise QueryError("the query has no label words; give at least one")
        for word, pieces in zip(words, self.word_ids(words), strict=True):
            if len(pieces) != 1:
                raise QueryError(f"label word {word!r} is {len(pieces)} tokens of fake; choose a single-token word")

    def quality(self, prompts: Prompts | None, template: str | None = None) -> Floats:
        """How well each candidate suits the task, g in (0, 1]: (candidates,)."""
        distance = self._effect(prompts, template or self.task.template) - self._goal
        return np.asarray(np.exp(-(distance**2).sum(axis=-1) / (2 * EFFECTS)), dtype=np.float64)

    def outputs(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str,
        words: Sequence[str],
        features: FeatureKind = "mask",
        normalize: bool = False,
    ) -> Outputs:
        """Logits and features in the form of the real model, float32, without a meter.

        Raises:
            QueryError: see `check`.
        """
        texts = texts_of(texts)
        self.check(prompts, texts, template, words)
        texts = [as_read(text) for text in texts]
        e = self._effect(prompts, template)[:, None]  # (candidates, 1, EFFECTS)
        g = self.quality(prompts, template)[:, None, None]
        draws = [_draw(self.seed, text, len(self.task.classes), self.info.width) for text in texts]
        evidence, noise, jitter, blur = (np.stack(part) for part in list(zip(*draws, strict=True))[:4])
        noise = noise + (jitter * e[:, :, None]).sum(axis=-1)  # (candidates, texts, classes)
        q = (1 - g) * self._bias + _GAIN * g**2 * evidence + noise
        columns = self._columns(q, texts, words).astype(np.float32)
        if normalize:
            columns -= np.logaddexp(np.logaddexp.reduce(q, axis=-1), _REST)[..., None].astype(np.float32)
        if features == "all":
            lengths = np.array([len(draw.said) for draw in draws], dtype=np.int64)
            return Outputs(columns, self._states(draws, g, e, int(lengths.max())), lengths)
        blur = blur * (2.0 if features == "cls" else 1.0)
        signal = (evidence[:, :, None] * self._directions).sum(axis=1)  # (texts, width)
        h = 0.5 * (1 + g) * signal + blur + (e[..., None] * self._drift).sum(axis=-2)
        return Outputs(columns, h.astype(np.float32))

    def _states(self, draws: Sequence[_Draw], g: Floats, e: Floats, tokens: int) -> FloatArray:
        """Hidden state of every word: the evidence of the word, with noise (candidates, texts, tokens, width)."""
        h = np.zeros((len(g), len(draws), tokens, self.info.width))
        drift = e @ self._drift  # (candidates, 1, width)
        for n, draw in enumerate(draws):
            signal = (draw.said[:, :, None] * self._directions).sum(axis=1)  # (words, width)
            h[:, n, : len(signal)] = 0.5 * (1 + g) * signal + 0.1 * draw.blur + drift
        return h.astype(np.float32)

    def _columns(self, q: Floats, texts: Sequence[Text], words: Sequence[str]) -> Floats:
        """Columns of q (candidates, texts, classes) for `words`.

        A common English word leans to one class, half as much as that class's label word and with noise of its own, as
        words do in a real model. Any other word that is not a label word has only noise.
        """
        known = {word: k for k, word in enumerate(self.task.words)}
        columns = []
        for word in words:
            if word in known:
                columns.append(q[..., known[word]])
                continue
            stray = np.broadcast_to([_stray(self.seed, text, word) for text in texts], q.shape[:2])
            leans = _LEANING * q[..., _crc(word) % q.shape[-1]] if word in _COMMON else 0.0
            columns.append(stray + leans)
        return np.stack(columns, axis=-1)

    def _effect(self, prompts: Prompts | None, template: str) -> Floats:
        """Effect e of prompt and weights: (candidates, EFFECTS). A template that is not the task's shifts it a bit."""
        shift = np.zeros(EFFECTS)
        if template != self.task.template:
            shift = 0.3 * derived_rng(self.seed, template).standard_normal(EFFECTS)
        if isinstance(prompts, Weights):
            shift = shift + effect(prompts, self.info, self.seed, EFFECTS)
        prompts, shift = soft(prompts), np.atleast_2d(shift)
        if prompts is None:
            return shift
        if isinstance(prompts, Prompt):
            values = np.asarray(prompts.values, dtype=np.float64)
            flat = values.reshape(*values.shape[:2], -1)  # (candidates, layers, tokens * width)
        else:
            space = prompts.space
            flat = np.stack(
                [[matrix(space, layer, self.info.width) @ z[layer] for layer in range(space.layers)] for z in prompts.z]
            )
        used = self._effects[: flat.shape[1], :, : flat.shape[2]]
        parts = [[B @ v for B, v in zip(used, candidate, strict=True)] for candidate in flat]
        total: Floats = np.asarray(parts, dtype=np.float64).sum(axis=1)  # (candidates, layers, EFFECTS) summed
        return shift + total


class FakeLM:
    """The fake as a submission sees it, with a meter. `free` is the same model without the meter, for scoring."""

    def __init__(self, free: FakeModel, meter: Meter) -> None:
        """Answer queries by `free` and charge them to `meter`."""
        self.free = free
        self.meter = meter
        self.logged: list[tuple[int, dict[str, float]]] = []
        """Rows spent when something was logged, and the numbers."""

    @classmethod
    def for_task(
        cls,
        task: Task,
        shots: Shots,
        calls: int,
        seed: int = 0,
        layers: int = 3,
        width: int = 16,
        prompt_tokens: int = 4,
    ) -> FakeLM:
        """A fake model with an optimum planted for `task`, and a budget of `calls` x len(shots.train) rows."""
        return cls(FakeModel(task, seed, layers, width, prompt_tokens), Meter(calls, len(shots.train)))

    @property
    def info(self) -> ModelInfo:
        """See `BlackBox`."""
        return self.free.info

    @property
    def budget(self) -> Budget:
        """See `BlackBox`."""
        return self.meter.budget

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """See `BlackBox`."""
        return self.free.word_ids(words)

    def vocabulary(self) -> tuple[str, ...]:
        """See `BlackBox`."""
        return self.free.vocabulary()

    def log(self, **numbers: float) -> None:
        """See `BlackBox`."""
        found = {name: float(value) for name, value in numbers.items()}
        check_log(found)
        self.logged.append((self.meter.spent, found))

    def logits(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        normalize: bool = False,
    ) -> FloatArray:
        """See `BlackBox`."""
        return self.outputs(prompts, texts, template, words, normalize=normalize).logits

    def outputs(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        features: FeatureKind = "mask",
        normalize: bool = False,
    ) -> Outputs:
        """See `BlackBox`."""
        query = Query.of(prompts, texts, template, words, features, normalize)
        template, words = query.wording(self.free.task)
        self.free.check(prompts, query.texts, template, words)
        self.meter.charge(query.candidates, len(query.texts))
        return self.free.outputs(prompts, query.texts, template, words, features, normalize)


def fake_task(classes: int = 2, fields: Literal[1, 2] = 1) -> Task:
    """A task for the fake model: sentences of made-up words, or pairs of them."""
    template = "{a} . It was {mask} ." if fields == 1 else "{a} ? {mask} , {b}"
    names = tuple(f"class{k}" for k in range(classes))
    return Task("fake", names, "accuracy", template, tuple(f" {name}" for name in names), fields)


def fake_examples(task: Task, count: int, rng: np.random.Generator) -> Examples:
    """Texts of nine words with their labels. The classes are as equal in number as possible.

    Three words speak for the label, at most two for other classes, and the rest for no class.
    """
    classes = len(task.classes)
    labels = rng.permutation(np.arange(count) % classes).astype(np.int64)
    texts = []
    for label in labels:
        others = [k for k in range(classes) if k != label]
        stray = [others[int(i)] for i in rng.integers(len(others), size=rng.integers(3))]
        speaks = [int(label)] * 3 + stray + [-1] * (6 - len(stray))
        words = [_words(classes)[k][int(rng.integers(len(_words(classes)[k])))] for k in rng.permutation(speaks)]
        cut = [words] if task.fields == 1 else [words[:5], words[5:]]
        texts.append(tuple(" ".join(part) for part in cut))
    return Examples(tuple(texts), labels)


def fake_shots(task: Task, rng: np.random.Generator, per_class: int = 16) -> Shots:
    """A few-shot split: `per_class` examples of each class for training, and as many for selection."""
    count = per_class * len(task.classes)
    return Shots(fake_examples(task, count, rng), fake_examples(task, count, rng))


def _crc(text: str) -> int:
    return zlib.crc32(text.encode())


def derived_rng(seed: int, *parts: str) -> np.random.Generator:
    """Chance that depends on the seed and some texts alone."""
    return np.random.Generator(np.random.Philox(key=[seed, _crc("\0".join(parts)) + 1]))


@lru_cache(maxsize=8)
def _words(classes: int) -> dict[int, list[str]]:
    """Made-up words by the class for which they speak; -1 means none."""
    words: dict[int, list[str]] = {k: [] for k in range(-1, classes)}
    for n in range(40 * MOST_CLASSES):
        speaks = _crc(f"w{n}") % (MOST_CLASSES + 1)
        words[speaks if speaks < classes else -1].append(f"w{n}")
    return words


@lru_cache(maxsize=1 << 16)
def _draw(seed: int, text: Text, classes: int, width: int) -> _Draw:
    words = " ".join(text).split()
    speaks = [_crc(word) % (MOST_CLASSES + 1) for word in words]
    counts = np.array([speaks.count(k) for k in range(classes)], dtype=np.float64)
    said = np.array(
        [[k == spoken for k in range(classes)] for spoken in speaks] or [[False] * classes], dtype=np.float64
    )
    rng = derived_rng(seed, *text)
    return _Draw(
        counts - counts.mean(),
        _NOISE * rng.standard_normal(classes),
        _JITTER * rng.standard_normal((classes, EFFECTS)),
        rng.standard_normal(width),
        said,
    )


@lru_cache(maxsize=1 << 16)
def _stray(seed: int, text: Text, word: str) -> float:
    return float(_NOISE * derived_rng(seed, *text, word).standard_normal()) - 1.0
