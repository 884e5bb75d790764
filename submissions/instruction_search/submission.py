"""Instruction search: the model proposes instructions, edits change them, and the loss on train chooses.

    t* = argmin over t of CE(lm(t, template, x), y)
    proposals     t ~ lm( . | demonstrations), and t ~ lm( . | the best t so far)         APE, on text tasks alone
    edits         of the best t: delete a phrase, swap two, or add one of another t       GrIPS

APE (Zhou et al., ICLR 2023) lets a large model propose and resample instructions; GrIPS (Prasad et al., EACL 2023)
edits one. Here the model that is tuned proposes, by `generate`, so it needs a task whose answer is text; on a task with
classes there are the edits alone. What is written is paid for like everything else.

Differs from APE: one model does both parts, its score is the likelihood of train, and edits are added. Differs from
GrIPS: the loss is the score, phrases of other instructions are added and not only deleted ones, there is no paraphraser
and no parser, and the search ends with the budget. Looks at dev are paid for; the bare template is the first incumbent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import cast

import numpy as np

from harness import Answer, BlackBox, Count, Member, NonNegative, Positive, Shots, Task, TextBlackBox, TextTask
from harness.solving import Selection, cross_entropy, without_braces

BEFORE = re.compile(r"\s+(?=(?:and|but|by|for|from|if|in|of|on|or|so|that|the|to|when|which|with)\b)|(?<=[.,:;!?])\s+")
"""Where phrases are cut: before a function word, and after punctuation."""
PROPOSE = (
    "I gave a friend an instruction. The friend read it and wrote an output for every input. Here are the input-output "
    "pairs:\n\n{a}\n\nThe instruction was to"
)
VARY = "Generate a variation of the following instruction while keeping the semantic meaning.\n\nInput: {a}\nOutput:"
"""Both are APE's templates (its appendix), the first one shortened."""
TRIES = 10
"""Edits that are drawn until one is new."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; ours unless a source is named."""

    proposals: Count = 8  # instructions that the model proposes at first (APE: 50)
    shown: Count = 4  # demonstrations that it proposes from (APE: 5)
    variations: NonNegative = 2  # instructions that it resamples from the best one in a round
    edits: Count = 4  # edited copies of the best one in a round (GrIPS: 5)
    temperature: Positive = 0.9  # of proposals and variations (APE)
    longest: Count = 32  # tokens of an instruction that is written
    dev_every: Count = 2  # rounds between two looks at dev, at len(dev) rows each


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every instruction that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    selection = Selection(task, dev)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the template to beat

    losses: dict[str, float] = {}  # of each instruction, on train
    new, looked = ["", started(task), *proposed(lm, task, shots, rng, config)], ""
    for number in count(1):
        for each in dict.fromkeys(new):
            q = lm.logits(None, train.texts, instructed(task, each))
            losses[each] = float(cross_entropy(q, train.labels)[0])
        best = min(losses, key=lambda each: losses[each])
        lm.log(loss=losses[best])
        last = lm.budget.rows_left < len(new) * len(train) + 2 * len(dev)
        if best != looked and (last or number % config.dev_every == 0):
            looked, q = best, lm.logits(None, dev.texts, instructed(task, best))
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                member = Member(instructed(task, best), task.words)
                yield Answer((member,), {"loss": losses[best], "dev": metric})
        copies = (edited(best, losses, rng) for _ in range(config.edits))
        new = [each for each in (*copies, *varied(lm, task, best, rng, config)) if each not in losses]
        if not new:
            return


def instructed(task: Task, instruction: str) -> str:
    """The task's template after an instruction; none is the bare template."""
    return f"{instruction}\n{task.template}" if instruction else task.template


def started(task: Task) -> str:
    """The task-agnostic instruction of GrIPS; with classes it names their words."""
    words = " or ".join(f"'{without_braces(word).strip()}'" for word in task.words)
    return f"You will be given a task. Read and understand the task carefully, and appropriately answer {words}".strip()


# ── what the model writes ────────────────────────────────────────────────────────────────────────────────────


def proposed(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> list[str]:
    """Instructions that the model proposes, each from its own demonstrations."""
    train, asked = shots.train, []
    for _ in range(config.proposals if isinstance(task, TextTask) else 0):
        chosen = rng.permutation(len(train))[: config.shown].tolist()
        pairs = [f"Input: {' '.join(train.texts[n])}\nOutput: {train.references[n][0]}" for n in chosen]
        asked.append("\n".join(pairs))
    return written(lm, task, asked, PROPOSE, rng, config)


def varied(lm: BlackBox, task: Task, best: str, rng: np.random.Generator, config: Config) -> list[str]:
    """Variations of the best instruction by the model."""
    asked = [best] * int(config.variations) if best and isinstance(task, TextTask) else []
    return written(lm, task, asked, VARY, rng, config)


def written(
    lm: BlackBox, task: Task, asked: list[str], template: str, rng: np.random.Generator, config: Config
) -> list[str]:
    """What the model writes after each question: its first line, as an instruction."""
    if not asked:
        return []
    template = template if task.fields == 1 else template + "{b}"  # a pair has a second field, which stays empty
    texts = [(each, *[""] * (task.fields - 1)) for each in asked]
    seed, model = int(rng.integers(2**62)), cast("TextBlackBox", lm)
    found = model.generate(None, texts, template, config.longest, ("\n",), config.temperature, seed)
    lines = (without_braces(each).strip().partition("\n")[0].strip(" \"'") for each in found.texts[0])
    return [line[0].upper() + line[1:] for line in lines if len(line.split()) > 1]


# ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────


def phrases(instruction: str) -> list[str]:
    """An instruction cut into phrases."""
    return [each for each in BEFORE.split(instruction) if each]


def edited(best: str, known: dict[str, float], rng: np.random.Generator) -> str:
    """A new copy of the best instruction after one edit, or else of another one; the best one itself if none is new."""
    others = sorted({phrase for each in known if each != best for phrase in phrases(each)})
    for attempt in range(TRIES):
        copy = phrases(best if attempt < TRIES // 2 else list(known)[int(rng.integers(len(known)))])
        possible = ["delete"] * bool(copy) + ["swap"] * (len(copy) > 1) + ["add"] * bool(others)
        edit = possible[int(rng.integers(len(possible)))] if possible else ""
        if edit == "delete":
            copy.pop(int(rng.integers(len(copy))))
        elif edit == "swap":
            i, j = rng.choice(len(copy), size=2, replace=False).tolist()
            copy[i], copy[j] = copy[j], copy[i]
        elif edit == "add":
            copy.insert(int(rng.integers(len(copy) + 1)), others[int(rng.integers(len(others)))])
        if (found := " ".join(copy)) not in known:
            return found
    return best
