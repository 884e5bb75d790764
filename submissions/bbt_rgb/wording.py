"""B, the text before the input, and G, several label words per class: both chosen at z = 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product

import numpy as np
from prompts import Floats, Integers, Prompted

from harness import BlackBox, Examples, Task
from harness.solving import Selection, cross_entropy, demonstration, without_braces

LONGEST_DEMONSTRATION, LONGEST_WORD = 1000, 250  # characters
COMBINATIONS, AT_ONCE = 1 << 16, 4096  # of label words: most that are scored, in all and at once; pools shrink to fit
REPLY_BYTES = 48 << 20  # of one query; the service allows 64 MiB


def choose_text(model: Prompted, most: int, longest: int, rng: np.random.Generator) -> Prompted:
    """Begin the template with what has the least training loss: nothing, the instruction, or a demonstration, too."""
    task, train, longest = model.task, model.shots.train, min(longest, model.lm.info.max_tokens // 4)
    demos = (demonstration(task, train, n) for n in rng.permutation(len(train)).tolist())
    short = islice((demo for demo in demos if tokens(model.lm, demo) <= longest), most)
    start = instruction(task)
    texts = ["", f"{start} ", *(f"{start} For example , {demo} " for demo in short)]
    models = [replace(model, cloze=replace(model.cloze, template=text + task.template)) for text in texts]
    return models[int(np.argmin([one.ask(one.zero[None], train)[1][0] for one in models]))]  # a call each


def instruction(task: Task) -> str:
    """Say what the task is, in its own label words."""
    *others, last = (without_braces(word).strip() for word in task.words)
    texts = "text" if task.fields == 1 else "two texts"
    return f"Read the {texts} and choose the word that fits : {' , '.join(others)} or {last} ."


def tokens(lm: BlackBox, text: str) -> float:
    """Tokens of a text, summed over its words, which is free; infinite if it is long in characters."""
    words, long = [f" {word}" for word in text.split()], len(text) > LONGEST_DEMONSTRATION
    return np.inf if long or max(map(len, words)) > LONGEST_WORD else sum(map(len, lm.word_ids(words)))


def choose_words(model: Prompted, on_dev: Selection, most: int, pool: int, likely: int) -> tuple[Prompted, Floats]:
    """Search label words, at one call and len(dev) rows: the model that uses them, its dev logits (1, texts, classes).

    Dev chooses among the task's own and the best 1, 2, .. `most` combinations, whose words a class all takes.
    """
    train, dev = model.shots.train, model.shots.dev
    names, own = candidate_words(model.lm, model.task)
    logp, logp_dev = (log_probabilities(model, part, names) for part in (train, dev))
    size = min(pool, int(COMBINATIONS ** (1 / len(own)) + 1e-9))  # so that all combinations can be scored
    ranked = rank(logp, train.labels, pools(logp, train.labels, own, size, likely))
    options = [np.array([own]), *(ranked[:m] for m in range(1, min(most, len(ranked)) + 1))]
    q = np.stack([logp_dev[:, option].mean(axis=1) for option in options])  # (options, texts, classes)
    k, _ = on_dev.better(q, cross_entropy(q, dev.labels))[-1]  # of equals the first, with fewer words
    words = tuple(names[i] for i in options[k].T.ravel())  # class by class
    return replace(model, cloze=replace(model.cloze, words=words)), q[k : k + 1]


def candidate_words(lm: BlackBox, task: Task) -> tuple[list[str], list[int]]:
    """Whole words of the vocabulary that begin as the label words do, and where the task's own are among them."""
    vocabulary, own = lm.vocabulary(), [ids[0] for ids in lm.word_ids(task.words)]
    spaced = vocabulary[own[0]].startswith(" ")  # some models have each word twice, with and without
    alike = (word.strip().isalpha() and word.startswith(" ") == spaced for word in vocabulary)
    kept = [i for i, fits in enumerate(alike) if fits or i in own]
    written = dict(zip(own, task.words, strict=True))
    return [written.get(i, vocabulary[i]) for i in kept], [kept.index(i) for i in own]


def log_probabilities(model: Prompted, examples: Examples, words: Sequence[str]) -> Floats:
    """Log-probability of each word at the mask (texts, words), in pieces that fit a reply; costs len(texts) rows."""
    step, ask, prompt = max(1, REPLY_BYTES // (4 * len(words))), model.lm.logits, model.space.at(model.zero[None])
    parts = [examples.texts[i : i + step] for i in range(0, len(examples), step)]
    return np.concatenate([ask(prompt, part, model.cloze.template, words, normalize=True)[0] for part in parts])


def pools(logp: Floats, labels: Integers, own: Sequence[int], size: int, most: int) -> list[list[int]]:
    """Candidates of each class: its own word, then those that its texts raise most over those of the other classes.

    score_k(w) = mean over texts of class k of log p(w) - mean over all others of log p(w), among the `most` likely w
    """
    likely = np.argsort(-logp.mean(axis=0), kind="stable")[:most]
    found = []
    for k, word in enumerate(own):
        score = logp[labels == k].mean(axis=0) - logp[labels != k].mean(axis=0)
        order = likely[np.argsort(-score[likely], kind="stable")][: size + 1].tolist()
        found.append([word, *(i for i in order if i != word)][:size])
    return found


def rank(logp: Floats, labels: Integers, words: Sequence[Sequence[int]]) -> Integers:
    """All combinations of one word per class (combinations, classes), by training accuracy, then by loss."""
    combinations = np.array(list(product(*words)), dtype=np.int64)
    parts = [combinations[start : start + AT_ONCE] for start in range(0, len(combinations), AT_ONCE)]
    scores = (np.moveaxis(logp[:, part], 0, 1) for part in parts)  # (some, texts, classes)
    found = [((q.argmax(axis=-1) != labels).sum(axis=-1), cross_entropy(q, labels)) for q in scores]
    errors, losses = (np.concatenate(column) for column in zip(*found, strict=True))
    return combinations[np.lexsort((losses, errors))]  # the last key decides first
