"""ICL: in-context learning with training examples as text before the input (Brown et al., NeurIPS 2020).

    p(y | x) = softmax over label words of the logits at [MASK] in demo_1 .. demo_m template(x)

A demonstration is the task's template filled with a training text and its label word. Up to 32 of them stand before the
input in a random order, as many as the model's length holds ("In-Context Learning" in Sun et al., ICML 2022, Table 3).
Nothing is trained. Works for masked models as for causal ones: only the input's own [MASK] is read.

Differs from the paper: where 32 do not fit, what still fits is taken in the random order; room is kept for the longest
text seen, up to half of what there is; one row is paid to see that the service takes the demonstrations. Choosing among
several sets of demonstrations on dev is an option (`sets`), and is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness import Answer, BlackBox, Count, Member, QueryError, Shots, Task
from harness.solving import Selection, cross_entropy, demonstration, without_braces

LONGEST_TEMPLATE = 4096
"""Characters that the service takes in a template."""
LONGEST_WORD = 250
WORDS_AT_ONCE = 1000
SPECIAL_TOKENS = 4
"""Kept free for start and end tokens, and for what tokenising word by word misses."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    demonstrations: Count = 32  # most training examples in the text
    sets: Count = 1  # random sets of demonstrations to choose from on dev, at len(dev) rows each (published: 1)
    separator: str = " "  # what stands between two demonstrations, and before the input; without braces


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then the demonstrations; with several sets, each that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    yield Answer.of(task)

    demos = [demonstration(task, train, n) + without_braces(config.separator) for n in range(len(train))]
    lines = config.separator.count("\n")  # to some models a token each
    tokens = [count + lines for count in token_counts(lm, demos)]
    room = room_for_demonstrations(lm, task, shots)
    selection = Selection(task, dev)
    for _ in range(config.sets):
        order = rng.permutation(len(train)).tolist()
        chosen = fill(order, tokens, [len(demo) for demo in demos], room, config.demonstrations, task.template)
        if config.sets == 1:
            template, _ = ask(lm, [demos[n] for n in chosen], task.template, train.texts[:1])  # is it accepted?
            yield answer(task, template, demonstrations=len(chosen))
            return
        template, q = ask(lm, [demos[n] for n in chosen], task.template, dev.texts)
        for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
            yield answer(task, template, dev=metric, demonstrations=len(chosen))


def answer(task: Task, template: str, **note: float) -> Answer:
    """Read label words at the mask of `template`."""
    return Answer((Member(template, task.words),), note)


def ask(
    lm: BlackBox, demos: Sequence[str], template: str, texts: Sequence[tuple[str, ...]]
) -> tuple[str, NDArray[np.floating]]:
    """Logits (1, texts, words) after as many demonstrations as the service takes: a refusal is free, the last one goes.

    Raises:
        QueryError: not even the bare template is taken.
    """
    for kept in range(len(demos), 0, -1):
        try:
            return "".join(demos[:kept]) + template, lm.logits(None, texts, "".join(demos[:kept]) + template)
        except QueryError:
            continue  # lengths were estimated word by word
    return template, lm.logits(None, texts, template)


# ── the text ─────────────────────────────────────────────────────────────────────────────────────────────────


def fill(
    order: Sequence[int], tokens: Sequence[int], characters: Sequence[int], room: int, most: int, template: str
) -> list[int]:
    """Go through `order` and take each demonstration that still fits, up to `most`."""
    chosen: list[int] = []
    letters = LONGEST_TEMPLATE - len(template)
    for n in order:
        if len(chosen) < most and tokens[n] <= room and characters[n] <= letters:
            chosen.append(n)
            room -= tokens[n]
            letters -= characters[n]
    return chosen


# ── lengths ──────────────────────────────────────────────────────────────────────────────────────────────────


def room_for_demonstrations(lm: BlackBox, task: Task, shots: Shots) -> int:
    """Tokens left beside the template and the longest text of train and dev, but at least half of those left."""
    template = task.template.replace("{a}", "").replace("{b}", "").replace("{mask}", "")
    texts = [" ".join(text) for text in shots.train.texts + shots.dev.texts]
    fixed, *own = token_counts(lm, [template, *texts])
    room = lm.info.max_tokens - SPECIAL_TOKENS - fixed - 1  # 1 is the mask; there is no prompt
    return room - min(max(own), room // 2)


def token_counts(lm: BlackBox, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, summed over its words. Token ids are free."""
    split = [
        [f" {word[i : i + LONGEST_WORD]}" for word in text.split() for i in range(0, len(word), LONGEST_WORD)]
        for text in texts
    ]
    words = sorted({word for text in split for word in text})
    counts: dict[str, int] = {}
    for start in range(0, len(words), WORDS_AT_ONCE):
        batch = words[start : start + WORDS_AT_ONCE]
        counts.update(zip(batch, map(len, lm.word_ids(batch)), strict=True))
    return [sum(counts[word] for word in text) for text in split]
