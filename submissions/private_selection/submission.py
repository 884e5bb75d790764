"""Private selection: an answer that is chosen by the exponential mechanism, so that it hides each labelled example.

Round t chooses one of the candidates c of a fixed list with probability (McSherry and Talwar, FOCS 2007, section 3)

    Pr[c] ~ exp(epsilon_t u(c) / 2),    u(c) = number of labelled texts that c classifies right

The candidates are made without a look at the examples: in the first round prompts, the bare template and random ones;
then, class by class, shifts of the class's logit. Nothing else of the examples enters the answer: no text, no score, no
state. If one labelled example is replaced by another, each u(c) changes by at most 1. So a round is epsilon_t-
differentially private, and the answer is so with the sum over rounds, epsilon. README.md has the account and the price.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Answer, BlackBox, Count, Member, NonNegative, Positive, Prompts, Several, Shots, Subspace, Task


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. All are choices of ours."""

    epsilon: Positive = 2.0  # of the whole answer; every round has the same part of it
    prompts: Count = 8  # candidates of the first round, the bare template among them
    alpha: NonNegative = 0.2  # std of the random prompts, in stds of the word embeddings
    dim: Count = 100  # d, length of a prompt's coordinates
    shifts: Several = 13  # candidates of each class's shift, evenly from -reach to reach
    reach: Positive = 3.0  # largest shift, in logits


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, which says nothing of the examples, and in the end what the rounds have chosen."""
    yield Answer.of(task)
    texts = (*shots.train.texts, *shots.dev.texts)
    labels = np.concatenate([shots.train.labels, shots.dev.labels])
    classes = len(task.classes)
    each = config.epsilon / classes  # one round for the prompt, and one for each class but the first

    # `lm.info.hidden_std` is measured on the training texts and would give them away; the embeddings' std is not.
    space = Subspace(
        config.dim, (config.alpha * lm.info.embedding_std,), lm.info.prompt_tokens, int(rng.integers(2**62))
    )
    prompts: list[Prompts | None] = [
        None,
        *(space.at(rng.standard_normal(config.dim)) for _ in range(config.prompts - 1)),
    ]
    seen = [lm.logits(prompt, texts)[0].astype(np.float64) for prompt in prompts]  # (texts, classes) each
    chosen = exponential([right(q, labels) for q in seen], each, rng)
    q, shift = seen[chosen], np.zeros(classes)
    for k in range(1, classes):  # softmax does not change if all classes are shifted alike
        grid = np.linspace(-config.reach, config.reach, config.shifts)
        moved = [shift + value * (np.arange(classes) == k) for value in grid]
        shift = moved[exponential([right(q + each_shift, labels) for each_shift in moved], each, rng)]
    yield Answer((Member(task.template, task.words, prompts[chosen], shift=tuple(shift.tolist())),))


def right(q: np.ndarray, labels: np.ndarray) -> int:
    """u: texts that are classified right. One example more or less changes it by 1."""
    return int((q.argmax(axis=1) == labels).sum())


def exponential(utilities: list[int], epsilon: float, rng: np.random.Generator) -> int:
    """The exponential mechanism for utilities of sensitivity 1, drawn by the Gumbel-max trick."""
    return int((epsilon / 2 * np.array(utilities) + rng.gumbel(size=len(utilities))).argmax())
