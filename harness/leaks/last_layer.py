"""Stealing the last layer: the attack of Carlini et al. with the black box that every submission has.

The logits of a text are h W^T + b: a hidden state h of `width` numbers, times the head. However many words one asks
about, the logits of all texts lie in a space of `width` dimensions (Carlini et al., *Stealing Part of a Production
Language Model*, ICML 2024):

- the width is where the singular values of the logits Q, texts x words, fall: argmax_i log s_i - log s_{i+1} (section
  4.1);
- the first `width` right singular vectors are the head up to a `width` x `width` matrix: Q = U S V^T, W ~ V G (section
  4.2).

Differences to the paper: the mean over words is taken off first, so that log-probabilities, which are logits minus a
number for each text, have no dimension more. The mean over texts stays: behind a LayerNorm states have `width` - 1
dimensions around a constant one, which the mean over texts would take away. The head itself is not looked at, because
a served model does not show it: the subspace is compared with true logits of texts that the attack did not query.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr

from harness.errors import BudgetExhausted, InputError, QueryError
from harness.leaks.intervals import Share, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import BlackBox, FloatArray, Task, Text

FEWEST_ROWS = 8
CLEAR_GAP = 3.0
"""A ratio of neighbouring singular values from which the fall counts as the width. In noise it is close to 1."""
TEXT_WORDS = 8
"""Random words in a text of the attack. It fills one row on all tracks that ship."""


@dataclass(frozen=True)
class Collected:
    """What the attack was given."""

    words: tuple[str, ...]
    logits: FloatArray
    """(rows, words), float64"""
    refused: str = ""
    """Why it could not ask about more; empty where nothing was refused."""


@dataclass(frozen=True)
class Stolen:
    """How much of the last layer is known after some rows."""

    rows: int
    calls: float
    words: int
    width: int
    """The hidden width by the singular values; 0 where they do not fall clearly."""
    width_error: float
    """|width - true width| / true width; 1 where it was not found."""
    gap: float
    """The ratio of singular values at the width."""
    known: int
    """Dimensions of the subspace that the attack uses."""
    subspace_error: float
    """Relative error of true logits of unseen texts, projected on the subspace; 0 is all of it, 1 nothing."""
    explained: float
    """R^2 of the logits of unseen texts at words that were predicted from the logits of `known` others."""
    agreement: Share
    """Unseen texts whose likeliest predicted word is the true one."""
    by_chance: float
    """The same for whoever always names the word that is likeliest on average."""
    true_width: int

    @property
    def share(self) -> float:
        """Share of the last layer that is known: known dimensions, and how much of unseen logits lies in them."""
        return min(self.known / self.true_width, 1.0) * max(0.0, 1 - self.subspace_error**2)

    def record(self) -> dict[str, float]:
        """One row of a table."""
        return {
            "rows": self.rows, "calls": self.calls, "words": self.words, "width": self.width,
            "width_error": self.width_error, "gap": self.gap, "known": self.known,
            "subspace_error": self.subspace_error, "r2": self.explained, "agreement": self.agreement.value,
            "agreement_low": self.agreement.low, "agreement_high": self.agreement.high, "by_chance": self.by_chance,
            "share": self.share,
        }  # fmt: skip


def random_words(lm: BlackBox, count: int, rng: np.random.Generator, always: Sequence[str] = ()) -> tuple[str, ...]:
    """Different words of the vocabulary that a query may ask about, `always` among them.

    Raises:
        InputError: the vocabulary has fewer.
    """
    single = sorted(set(filter(_is_word, lm.vocabulary())) - set(always))
    wanted = count - len(always)
    if wanted > len(single):
        raise InputError(f"{count:,} words to ask about; the vocabulary has {len(single) + len(always):,}")
    drawn = rng.choice(len(single), size=max(wanted, 0), replace=False)
    return (*always, *(single[i] for i in sorted(drawn)))


def _is_word(word: str) -> bool:
    return word.strip().isalpha()


def plain_words(vocabulary: Sequence[str]) -> list[str]:
    """The words of a vocabulary of which texts are made: letters of ASCII, without the space before."""
    return sorted({word.strip() for word in vocabulary if _is_word(word) and word.isascii()})


def random_texts(lm: BlackBox, count: int, fields: int, rng: np.random.Generator) -> tuple[Text, ...]:
    """Texts of random words of the vocabulary: the attack needs no data."""
    known, each = plain_words(lm.vocabulary()), TEXT_WORDS // fields
    drawn = rng.integers(len(known), size=(count, fields, each))
    return tuple(tuple(" ".join(known[i] for i in field) for field in text) for text in drawn)


def collect(
    lm: BlackBox,
    task: Task,
    words: Sequence[str],
    rows: int,
    rng: np.random.Generator,
    progress: Callable[[int], None] = lambda _rows: None,
) -> Collected:
    """Ask for the logits of words on random texts, a call at a time, until the rows are spent.

    What a defence refuses is asked for in another way: fewer words, down to the task's own, until a first row is given;
    then fewer texts at once; and in the end the first text again, behind random words in the template.

    Args:
        lm: the black box, metered like a submission's.
        task: of the cell, for the number of fields and the words that everyone may ask about.
        words: to ask about, the task's own first.
        rows: to spend at most.
        rng: draws the texts.
        progress: gets the rows spent.

    Returns:
        What was given.
    """
    first = copy.deepcopy(rng)  # draws the first text once more
    size, refused, asked, template = 1, "", tuple(words), None
    given: list[FloatArray] = []
    texts: tuple[Text, ...] = ()
    while (left := min(rows - sum(map(len, given)), lm.budget.rows_left)) > 0:
        if template is None:
            texts = random_texts(lm, min(size, left), task.fields, rng)
        else:
            template = f"{' '.join(random_texts(lm, 1, 1, rng)[0])} {task.template}"
        try:
            given.append(lm.logits(None, texts[:left], template, asked)[0].astype(np.float64))
        except BudgetExhausted:
            break
        except QueryError as problem:
            refused = refused or str(problem)
            if not given and len(asked) > len(task.words):
                asked = asked[: max(len(task.words), len(asked) * 4 // 5)]
            elif given and size > 1 and template is None:
                size //= 2
            elif given and template is None:
                template, texts = task.template, random_texts(lm, 1, task.fields, first)
            else:
                break
            continue
        progress(sum(map(len, given)))
        if len(given) == 1:  # a row was given, so the words are allowed: now whole calls
            size = lm.budget.train_rows
    logits = np.concatenate(given) if given else np.zeros((0, len(asked)))
    return Collected(asked, logits, refused)


def steal(found: Collected, unseen: FloatArray, width: int, rows: int, train_rows: int) -> Stolen:
    """The last layer as far as the first `rows` rows show it, compared with true logits.

    Args:
        found: what was given.
        unseen: (texts, words), the model's own logits of the same words on texts that were not queried.
        width: the model's hidden width.
        rows: how many of the given rows to use.
        train_rows: rows of one call.
    """
    q, truth = _centred(found.logits[:rows]), _centred(unseen)
    _, s, vt = np.linalg.svd(q, full_matrices=False)
    last = min(len(q), q.shape[1] - 1)
    h, gap = _fall(s[:last])
    clear = gap >= CLEAR_GAP
    known = h if clear else min(last, width)  # the width is published
    v = vt[:known].T  # (words, known)
    spread = float(np.linalg.norm(truth - q.mean(axis=0)))
    error = float(np.linalg.norm(truth - truth @ v @ v.T)) / spread
    told, at = _others(v, truth)
    asked, right, usual, explained = truth[:, at], 0, 0, 0.0
    if at.size > 1:
        away = asked - asked.mean(axis=0)
        explained = max(0.0, 1 - float(((asked - told) ** 2).sum() / (away**2).sum()))
        best = asked.argmax(axis=1)
        right = int((best == told.argmax(axis=1)).sum())
        usual = int((best == q[:, at].mean(axis=0).argmax()).sum())
    return Stolen(
        rows, rows / train_rows, q.shape[1], h if clear else 0, abs(h - width) / width if clear else 1.0, gap, known,
        error, explained, share(right, len(unseen)), usual / len(unseen),
        width,
    )  # fmt: skip


def steps(rows: int) -> list[int]:
    """Numbers of rows at which a curve is measured: doubling, and half-way between, up to all."""
    if rows < FEWEST_ROWS:
        return []
    found = {rows}
    exponent = math.log2(FEWEST_ROWS)
    while 2**exponent < rows:
        found.add(round(2**exponent))
        exponent += 0.5
    return sorted(found)


def _centred(logits: FloatArray) -> FloatArray:
    """Logits minus the mean over words of each text."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def _fall(s: FloatArray) -> tuple[int, float]:
    """Where singular values fall most, and by which ratio (Carlini et al., section 4.1).

    The fall behind the first one is left out: that one is the mean over texts, larger than all others.
    """
    positive = np.maximum(s.astype(np.float64), np.finfo(np.float64).tiny)[1:]
    if len(positive) < 2:  # noqa: PLR2004 - a ratio needs two
        return 0, 1.0
    falls = np.log(positive[:-1]) - np.log(positive[1:])
    at = int(falls.argmax())
    return at + 2, float(np.exp(min(falls[at], 700.0)))


def _others(v: FloatArray, new: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Logits of unseen texts, predicted from those of as many words as the subspace has dimensions.

    The words that are read are chosen by pivoted QR, which keeps the system well-conditioned.

    Returns:
        The predictions (texts, other words), and the places of the other words.
    """
    _, _, pivots = qr(v.T, pivoting=True, mode="economic")
    read, others = pivots[: v.shape[1]], np.sort(pivots[v.shape[1] :])
    coefficients = np.linalg.lstsq(v[read].T, v[others].T, rcond=None)[0]  # (read, others)
    return new[:, read] @ coefficients, others
