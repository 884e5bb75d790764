"""Random template search: random words, demonstrations and spellings of the label words; the best training loss wins.

    (t*, w*) = argmin over (t_1, w_1) .. (t_n, w_n) of CE(lm(t_i(x), w_i), y)

A template t_i is the task's with random words of the training texts and random demonstrations before it. The label
words w_i are spellings of the task's. It is to text what `random_search` is to soft prompts: whatever an optimizer of
text claims, it has to beat this. It needs text alone (level L0), so it runs over an endpoint as on any model here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Answer, BlackBox, Count, Member, QueryError, Shots, Task
from harness.solving import Selection, cross_entropy, demonstration, without_braces

TRIES = 20
"""Templates that are drawn anew where the service finds one too long; that costs nothing."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    words: Count = 6  # most random words before the template; each number from 0 on is as likely
    demonstrations: Count = 2  # most demonstrations before the template; the same
    dev_every: Count = 20  # templates between two looks at dev (len(dev) rows each, only if the best has changed)


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the best template whenever dev prefers it."""
    train, dev = shots.train, shots.dev
    spellings = [single_tokens(lm, word) for word in task.words]
    known = sorted({word for text in train.texts for field in text for word in without_braces(field).split()})

    selection = Selection(task, dev)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the template to beat
    best, best_loss, looked, drawn = Member.of(task), np.inf, True, 0
    while True:
        member, q = asked(lm, task, shots, rng, config, spellings, known)
        loss, drawn = float(cross_entropy(q, train.labels)[0]), drawn + 1
        lm.log(loss=loss)
        if loss < best_loss:
            best, best_loss, looked = member, loss, False
        last = lm.budget.rows_left < len(train) + len(dev)
        if not looked and (last or drawn % config.dev_every == 0):
            looked = True
            q = lm.logits(None, dev.texts, best.template, best.words)
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                yield Answer((best,), {"loss": best_loss, "dev": metric})


def asked(
    lm: BlackBox,
    task: Task,
    shots: Shots,
    rng: np.random.Generator,
    config: Config,
    spellings: list[list[str]],
    known: list[str],
) -> tuple[Member, np.ndarray]:
    """A random template that the service takes, and its logits (1, texts, words) on train; in the end the bare one."""
    for attempt in range(TRIES + 1):
        words = tuple(each[int(rng.integers(len(each)))] for each in spellings)
        chosen = rng.choice(known, size=int(rng.integers(config.words + 1))).tolist()
        most = min(config.demonstrations, len(shots.train))
        order = rng.permutation(len(shots.train))[: int(rng.integers(most + 1))].tolist()
        before = [*chosen, *(demonstration(task, shots.train, n) for n in order)] if attempt < TRIES else []
        member = Member(" ".join([*before, task.template]), words)
        try:
            return member, lm.logits(None, shots.train.texts, member.template, member.words)
        except QueryError:
            if not before:
                raise
    raise AssertionError("unreachable")


def single_tokens(lm: BlackBox, word: str) -> list[str]:
    """The word as it is, and its other spellings that are one token. Token ids are free."""
    space, plain = word[: len(word) - len(word.lstrip())], word.lstrip()
    others = dict.fromkeys((plain.lower(), plain.title(), plain.upper()))
    found = [space + each for each in others if each != plain]
    return [word, *(each for each, ids in zip(found, lm.word_ids(found), strict=True) if len(ids) == 1)]
