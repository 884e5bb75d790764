"""`harness new`: a small working solver to start from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_SUBMISSION = '''"""{name}: a (1+1) evolution strategy on a soft prompt. Put your method, paper and formula here.

The model is shown A @ z added to a few prompt tokens; one coordinate vector z is mutated, the better one is kept.

It may import harness, the standard library, numpy, scipy, cma, nevergrad, sklearn, torch and what these need, what the
track allows in addition (`harness check --track` lists it), and other files of this folder: `import helper`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Answer, BlackBox, Count, Positive, Shots, Subspace, Task, cross_entropy


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; each can be set with `--config name=value`."""

    dim: Count = 100  # length of z
    step: Positive = 0.3  # standard deviation of a mutation
    population: Count = 10  # mutants per query; fewer where the budget has not so many calls left


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield better and better answers; when the budget ends, the last one is scored on hidden test texts."""
    std = lm.info.hidden_std[0]  # prompts as wide as the hidden states they are added to
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**32)))
    best, best_loss = np.zeros(config.dim), np.inf
    yield Answer.of(task)  # the manual prompt: something that counts, whatever happens
    # One mutant on the training texts is one call. A query that does not fit into the budget raises BudgetExhausted.
    while fits := min(config.population, int(lm.budget.calls_left)):
        zs = best + config.step * rng.standard_normal((fits, config.dim))
        zs[0] = best if best_loss == np.inf else zs[0]  # the first query also looks at the start
        logits = lm.logits(space.at(zs), shots.train.texts)  # (fits, texts, words): as many calls
        losses = cross_entropy(logits, shots.train.labels)  # (fits,)
        if losses.min() < best_loss:
            best, best_loss = zs[losses.argmin()], float(losses.min())
            yield Answer.of(task, space.at(best), loss=best_loss)
'''

_README = """# {name}

What the method does, in a paragraph; its equation; its paper.

Deviations from the paper: none yet.
"""


def create(name: str, directory: Path) -> Path:
    """Make ``directory/name`` with a submission and a README.

    Raises:
        InputError: the name cannot be used, or the folder exists.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise InputError(
            f"{name!r} cannot be a submission's name; a letter, then letters, digits, '-' and '_', up to 64"
        )
    folder = directory / name
    try:
        folder.mkdir(parents=True)
        (folder / "submission.py").write_text(_SUBMISSION.replace("{name}", name), encoding="utf-8")
        (folder / "README.md").write_text(_README.replace("{name}", name), encoding="utf-8")
    except FileExistsError:
        raise InputError(f"{folder} exists already; choose another name") from None
    except OSError as problem:
        raise InputError(f"{folder} cannot be made: {problem}") from problem
    return folder
