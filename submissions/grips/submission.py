"""GrIPS: gradient-free, edit-based search for an instruction (Prasad et al., EACL 2023).

    score(t) = 100 BalancedAccuracy(t) + alpha H(shares of the predicted classes)      on the search set
    t <- best of m edited copies of t, if its score is above that of t; else patience goes down

An edit deletes a phrase, swaps two, or adds one again that was deleted. Search and stopping are the authors' code's:
https://github.com/archiki/GrIPS, run_search.py.

Differs from the paper: the instruction stands before the task's own template; phrases are cut at punctuation and before
function words, not by a constituency parser; there is no paraphrase (it needs a second model); the search set is train
and dev together (the paper: 100 examples), so dev is not left to select on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Answer, BlackBox, Count, Examples, Member, NonNegative, Shots, Task
from harness.solving import without_braces

FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "answer",
        "as",
        "at",
        "but",
        "by",
        "for",
        "from",
        "if",
        "in",
        "into",
        "is",
        "of",
        "on",
        "or",
        "that",
        "the",
        "to",
        "when",
        "which",
        "will",
        "with",
    ]
)
Phrases = tuple[str, ...]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    candidates: Count = 5  # m, edited copies in one iteration
    iterations: Count = 10  # n, most iterations
    patience: Count = 2  # P, iterations in a row without a better copy that end the search
    edits: Count = 1  # l, edits of one copy
    alpha: NonNegative = 10.0  # weight of the entropy, in points per nat
    agnostic: bool = True  # the paper's task-agnostic instruction; else one that names the classes


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, the instruction, and each edited instruction with a better score."""
    yield Answer.of(task)
    search_set = Examples(shots.train.texts + shots.dev.texts, np.concatenate([shots.train.labels, shots.dev.labels]))
    base = phrases(instruction(task, config.agnostic))
    best = score(lm, task, search_set, base, config.alpha)
    yield answer(task, base, best)
    deleted: list[str] = []
    failures = 0
    for _ in range(config.iterations):
        copies = [edited(base, deleted, config.edits, rng) for _ in range(config.candidates)]
        scores = [score(lm, task, search_set, copy, config.alpha) for copy, _, _ in copies]
        lm.log(loss=-max(scores))
        if max(scores) <= best:
            failures += 1
            if failures == config.patience:
                return
            continue
        best, failures = max(scores), 0
        base, gone, back = copies[int(np.argmax(scores))]
        deleted = [phrase for phrase in deleted if phrase not in back] + gone
        yield answer(task, base, best)


def answer(task: Task, instructed: Phrases, best: float) -> Answer:
    """An answer with an instruction before the task's template."""
    return Answer((Member(template_of(task, instructed), task.words),), {"score": best, "phrases": len(instructed)})


def template_of(task: Task, instructed: Phrases) -> str:
    """The task's template after the phrases."""
    return " ".join([*instructed, task.template])


def instruction(task: Task, agnostic: bool) -> str:
    """What the search starts from."""
    named = [without_braces(word).strip() for word in (task.words if agnostic else task.classes)]
    listed = " or ".join([", ".join(f"'{each}'" for each in named[:-1]), f"'{named[-1]}'"])
    if agnostic:
        task_is = "You will be given a task. Read and understand the task carefully, and appropriately answer"
        return f"{task_is} {listed}."
    return f"Read the text carefully, and decide which class it belongs to: {listed}."


def score(lm: BlackBox, task: Task, search_set: Examples, instructed: Phrases, alpha: float) -> float:
    """Balanced accuracy in points, plus the entropy of the predictions: one that always says the same is no use."""
    predicted = lm.logits(None, search_set.texts, template_of(task, instructed))[0].argmax(axis=1)  # (texts,)
    labels = search_set.labels
    recalls = [float((predicted[labels == k] == k).mean()) for k in np.unique(labels)]
    shares = np.bincount(predicted, minlength=len(task.classes)) / len(predicted)
    entropy = -float(np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
    return round(100 * float(np.mean(recalls)), 2) + alpha * entropy


# ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────


def phrases(text: str) -> Phrases:
    """Cut a text after punctuation and before function words; a function word stays with what follows it."""
    found: list[list[str]] = [[]]
    for word in text.split():
        begun = [each for each in found[-1] if each.lower() not in FUNCTION_WORDS]
        if begun and (word.lower() in FUNCTION_WORDS or re.search(r"[.,:;!?]$", found[-1][-1])):
            found.append([])
        found[-1].append(word)
    return tuple(" ".join(each) for each in found if each)


def edited(
    base: Phrases, deleted: list[str], edits: int, rng: np.random.Generator
) -> tuple[Phrases, list[str], list[str]]:
    """A copy after random edits, the phrases that it lost, and those deleted before that it has again."""
    copy, gone, back = list(base), list[str](), list[str]()
    for _ in range(edits):
        possible = [*(["delete", "swap"] if copy else []), *(["add"] if deleted else [])]
        if not possible:
            break
        edit = possible[int(rng.integers(len(possible)))]
        if edit == "delete":
            gone.append(copy.pop(int(rng.integers(len(copy)))))
        elif edit == "swap":
            i, j = rng.choice(len(copy), size=2, replace=len(copy) == 1).tolist()
            copy[i], copy[j] = copy[j], copy[i]
        else:
            back.append(deleted[int(rng.integers(len(deleted)))])
            copy.insert(int(rng.integers(len(copy) + 1)), back[-1])
    return tuple(copy), gone, back
