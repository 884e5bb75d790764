"""Stealing what an answer does: a student learns from a victim's predictions (Krishna et al., ICLR 2020).

The victim is an answer that someone tuned, served as a classifier. The thief sends texts, reads the predicted classes,
and trains a student of its own on them (*Thieves on Sesame Street! Model Extraction of BERT-based APIs*, section 4).
Texts are random words (their RANDOM), or texts of the task's domain without labels. The student is judged on texts that
neither has seen: agreement is the share of equal predictions, accuracy that of right ones.

Difference to the paper: students are small, because answers here are tuned on a few dozen labelled texts: logistic
regression on TF-IDF, and on the mean state of a public sentence encoder.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import Examples, FloatArray, IntArray, Text

Student = Literal["tfidf", "encoder"]
Kind = Literal["random", "in-domain"]
FEWEST, DRAWS, RESAMPLES = 10, 5, 1000
RANDOM_TEXTS = 640


@dataclass(frozen=True)
class Copied:
    """How well a student does after so many queries."""

    texts: Kind
    student: Student
    queries: int
    agreement: float
    agreement_low: float
    agreement_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    draws: int
    """Draws of the queries that the numbers are means over; the intervals contain both draws and texts."""


@dataclass(frozen=True)
class Copies:
    """All students of one victim."""

    entry: str
    task: str
    split: int
    victim_accuracy: float
    majority: float
    """Agreement of whoever always names the class that the victim predicts most."""
    judged_on: int
    found: tuple[Copied, ...]


def random_like(texts: Sequence[Text], words: Sequence[str], count: int, rng: np.random.Generator) -> list[Text]:
    """Texts of random words, as long as the given ones are in words."""
    lengths = [tuple(max(1, len(field.split())) for field in text) for text in texts]
    return [
        tuple(" ".join(words[i] for i in rng.integers(len(words), size=n)) for n in lengths[rng.integers(len(lengths))])
        for _ in range(count)
    ]


def copy(
    entry: str,
    task: str,
    split: int,
    victim: Callable[[Sequence[Text]], IntArray],
    own: Sequence[Text],
    words: Sequence[str],
    test: Examples,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _said: None,
) -> Copies:
    """Train students on a victim's predictions, for each kind of texts and number of queries.

    Half of the test texts stand for texts of the domain that a thief has without labels; students are judged on the
    other half.

    Args:
        entry: the victim's name.
        task: of the cell.
        split: of the cell.
        victim: predicted classes of texts.
        own: more texts of the domain; none that the victim's examples hold.
        words: of which random texts are made.
        test: the labelled test set.
        seed: of all draws.
        progress: is told what is being done.

    Raises:
        InputError: there are too few texts.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(test.texts))
    theirs, judged = order[: len(order) // 2], order[len(order) // 2 :]
    domain = [*own, *(test.texts[i] for i in theirs)]
    if len(domain) < FEWEST or len(judged) < FEWEST:
        raise InputError(f"{task}: {len(test.texts)} test texts are too few to copy an answer and to judge the copy")
    judges = [test.texts[i] for i in judged]
    progress("the victim answers")
    said, labels = victim(judges), test.labels[judged]
    found: list[Copied] = []
    kinds: dict[Kind, list[Text]] = {"random": random_like(domain, words, RANDOM_TEXTS, rng), "in-domain": domain}
    for kind, texts in kinds.items():
        answered = victim(texts)
        for student in ("tfidf", "encoder"):
            progress(f"{student} learns from {kind} texts")
            x, y = _features(student, texts, judges)
            for queries in _numbers(len(texts)):
                drawn = [rng.permutation(len(texts))[:queries] for _ in range(DRAWS)]
                guessed = np.stack([_learn(x[rows], answered[rows], y) for rows in drawn])  # (draws, texts)
                agree, right = guessed == said, guessed == labels
                found.append(
                    Copied(
                        kind, student, queries, float(agree.mean()), *_interval(agree, seed), float(right.mean()),
                        *_interval(right, seed), DRAWS,
                    )
                )  # fmt: skip
    usual = float(np.bincount(said).max() / len(said))
    return Copies(entry, task, split, float((said == labels).mean()), usual, len(judges), tuple(found))


def _numbers(most: int) -> list[int]:
    numbers, n = [], FEWEST
    while n < most:
        numbers.append(n)
        n *= 2
    return [*numbers, most]


def _features(student: Student, texts: Sequence[Text], judges: Sequence[Text]) -> tuple[Any, Any]:
    """Features of the queried texts and of those that the student is judged on."""
    if student == "encoder":
        encode = encoder()
        return encode(texts), encode(judges)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")  # noqa: S106
    return vectorizer.fit_transform(map(_joined, texts)), vectorizer.transform(map(_joined, judges))


def _joined(text: Text) -> str:
    """Words of each field with the field's place, so that a pair's two texts are told apart."""
    return " ".join(f"{place}_{word}" for place, field in enumerate(text) for word in field.lower().split())


def _learn(x: Any, y: IntArray, judged: Any) -> IntArray:
    if len(set(y.tolist())) == 1:
        return np.full(judged.shape[0], y[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(LogisticRegression(C=10.0, max_iter=300).fit(x, y).predict(judged))


def _interval(hits: FloatArray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap over draws and over texts at once."""
    rng = np.random.default_rng([seed, 2])
    draws, texts = hits.shape
    means = [hits[rng.integers(draws, size=draws)][:, rng.integers(texts, size=texts)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@cache
def encoder() -> Callable[[Sequence[Text]], FloatArray]:
    """The public sentence encoder that the embedded model was made of: mean state, of unit length.

    Of a pair it gives both, their difference and their product, as is usual for pairs.

    Raises:
        ModelError: the package is not installed.
    """
    import torch  # noqa: PLC0415 - seconds

    from harness.lm import embedded  # noqa: PLC0415

    folder = embedded.package_folder()
    model, tokenizer = embedded.base_model(folder).bert, embedded.tokenizer(folder)

    def states(texts: Sequence[str]) -> FloatArray:
        made = []
        for start in range(0, len(texts), 64):
            batch = tokenizer(
                list(texts[start : start + 64]), padding=True, truncation=True, max_length=96, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None].float()
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            made.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
        return np.concatenate(made)

    def encode(texts: Sequence[Text]) -> FloatArray:
        fields = [states([text[k] for text in texts]) for k in range(len(texts[0]))]
        if len(fields) == 1:
            return fields[0]
        u, v = fields
        return np.concatenate([u, v, np.abs(u - v), 10 * u * v], axis=1)

    return encode
