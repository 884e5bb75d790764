"""BDPL: black-box discrete prompt learning by a policy gradient (Diao et al., TMLR 2023).

    v_i ~ Cat(p_i), i = 1 .. n                          n words, drawn from N candidates each
    g_i = 1/(I-1) sum_k (L(v^k) - mean L) d log P(v^k) / d p_i        over I prompts v^k
    p_i <- projection onto the simplex of p_i - step(g_i)

The words stand before the task's template. The answer has the most probable word at each place. The loop, the
derivative (+1/p for the drawn word, -1/p for the others), AdamW and the clipping are the authors' code's:
https://github.com/shizhediao/Black-Box-Prompt-Learning, run_glue_discrete_LM.py.

Differs from the paper: candidates are n-grams of the few-shot texts (theirs: of the whole training set); the rate is
larger, since budgets here have a tenth of the steps (`rate`; preset tmlr2023 has theirs); looks at dev are paid for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

from harness import Answer, BlackBox, Count, Member, NonNegative, Positive, Several, Shots, Task
from harness.solving import Adam, Selection, cross_entropy, without_braces

Floats = NDArray[np.float64]
CLIP = 3.0
LEAST = 1e-6
"""Smallest probability that is divided by: the projection makes some of them 0."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    length: Count = 10  # n, words of the prompt
    candidates: Several = 200  # N, n-grams to choose from, fewer where the texts have fewer
    samples: Several = 20  # I, prompts per step, one call each
    rate: Positive = 2e-3  # AdamW's step, in units of probability (theirs: 1e-4 in 400 steps)
    decay: NonNegative = 0.1  # AdamW's weight decay
    least_pmi: NonNegative = 1.0  # of the words that make an n-gram
    longest: Count = 5  # words of an n-gram


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the most probable prompt after each step that dev prefers."""
    train, dev = shots.train, shots.dev
    selection = Selection(task, dev)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the template to beat

    grams = ngrams(train.texts + dev.texts, config.least_pmi, config.longest)[: config.candidates]
    p: Floats = np.full((config.length, len(grams)), 1 / len(grams))
    adam, places, seen = Adam(config.rate, config.decay), np.arange(config.length), ""
    while True:
        drawn = np.array([[rng.choice(len(grams), p=p_i) for p_i in p] for _ in range(config.samples)])  # (I, n)
        losses = np.array(
            [cross_entropy(lm.logits(None, train.texts, filled(task, grams, v)), train.labels)[0] for v in drawn]
        )
        lm.log(loss=losses.min())
        gradient = np.zeros_like(p)
        for v, advantage in zip(drawn, losses - losses.mean(), strict=True):
            derivative = -1 / np.maximum(p, LEAST)
            derivative[places, v] *= -1
            gradient += advantage * derivative / (config.samples - 1)
        gradient *= min(1.0, CLIP / (float(np.linalg.norm(gradient)) + LEAST))
        adam.step((p,), (gradient,))
        p[:] = [onto_simplex(p_i) for p_i in p]

        template = filled(task, grams, p.argmax(axis=1))
        if template != seen:
            seen, q = template, lm.logits(None, dev.texts, template)
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer((Member(template, task.words),), {"loss": float(losses.mean()), "dev": metric})


def filled(task: Task, grams: list[str], v: NDArray[np.int64]) -> str:
    """The task's template after the chosen n-grams."""
    return " ".join([*(grams[n] for n in v), task.template])


def ngrams(texts: tuple[tuple[str, ...], ...], least_pmi: float, longest: int) -> list[str]:
    """N-grams of the texts, most frequent first: words in a row whose pairs all have `least_pmi`.

    PMI(a, b) = log(pairs count(a, b) / (count(a) count(b))), as in the authors' pmi_ngram.py.
    """
    lines = [without_braces(field).split() for text in texts for field in text]
    words = Counter(word for line in lines for word in line)
    pairs = Counter(pair for line in lines for pair in pairwise(line))
    total = sum(pairs.values())
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        gram: tuple[str, ...] = ()
        for word in line:
            bound = gram and log(total * pairs[gram[-1], word] / (words[gram[-1]] * words[word])) >= least_pmi
            if gram and not (bound and len(gram) < longest and pairs[gram[-1], word] > 1):
                found[gram] += 1
                gram = ()
            gram += (word,)
        if gram:
            found[gram] += 1
    ordered = sorted(found, key=lambda gram: (-found[gram], gram))
    usable = [" ".join(gram) for gram in ordered if any(letter.isalnum() for letter in "".join(gram))]
    return usable or ["the"]


def onto_simplex(values: Floats) -> Floats:
    """The nearest point with components of at least 0 and a sum of 1 (Euclidean projection, by sorting)."""
    descending = np.sort(values)[::-1]
    over = (np.cumsum(descending) - 1) / np.arange(1, len(values) + 1)
    shift = over[np.flatnonzero(descending > over)[-1]]
    projected = np.maximum(values - shift, 0)
    return np.asarray(projected / projected.sum())
