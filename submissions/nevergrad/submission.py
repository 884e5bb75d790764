"""Any optimiser of nevergrad, in BBT's subspace (Rapin & Teytaud, 2018, https://github.com/facebookresearch/nevergrad).

    z* = argmin over z in R^d of CE(lm(p0 + A z), y),  z asked from and told to `optimizer`

The first release of BBT's code used nevergrad's CMA this way. Optimisers that can be asked many times before they are
told are given whole populations, which the server forwards at once; the others go one by one, at the same price per
call and more seconds; those that fail either way are refused.

Not part of any paper: the widths of A, the looks at dev and the selection are those of this project's BBT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import nevergrad as ng
import numpy as np

from harness import Answer, BlackBox, Count, NonNegative, Shots, Subspace, Task
from harness.solving import Selection, cross_entropy

# Model-based optimisers whose cost per question grows with dim and history: they hang at hundreds of dimensions.
# nevergrad knows HyperOpt only where the package of that name is installed.
REFUSED = ("BO", "BOSplit", "BayesOptimBO", "PCABO", "PCABO80", "PCABO95DoE20", "AX", "HyperOpt", "SMAC3", "pysot")
TRY = "try NGOpt, DiagonalCMA or CMA"


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    optimizer: str = "NGOpt"  # a name in nevergrad.optimizers.registry; NGOpt chooses by dimension and budget
    dim: Count = 500  # d, length of z
    population: Count = 20  # candidates asked for at once, where that is allowed; at least 4 + 3 ln d, CMA-ES's least
    alpha: NonNegative = 1.0  # std of the prompts at z ~ N(0, I), in standard deviations of the first layer's input
    dev_every: Count = 100  # calls between two looks at dev, at 2 * len(dev) rows each
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties

    def __post_init__(self) -> None:
        """Refuse unknown optimisers, and those that would hang."""
        if self.optimizer in REFUSED:
            raise ValueError(f"optimizer {self.optimizer!r} fits a model that hangs at dim {self.dim}; {TRY}")
        if self.optimizer not in ng.optimizers.registry:
            raise ValueError(f"nevergrad has no optimizer {self.optimizer!r}; see nevergrad.optimizers.registry")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before.

    Numpy's global generator is seeded meanwhile (see `optimizer`); its state from before comes back at the end.
    """
    train, dev = shots.train, shots.dev
    std = config.alpha * lm.info.hidden_std[0]
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**62)))
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat

    before = np.random.get_state()  # noqa: NPY002 - the generator that nevergrad draws from
    try:
        search = optimizer(config, int(lm.budget.calls_left), rng)
        size, looked = search.num_workers, 0
        best_z, best_loss = np.zeros(config.dim), np.inf
        while True:
            asked = ask(search, size)
            zs = np.stack([candidate.value for candidate in asked])  # (population, d)
            losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
            for candidate, loss in zip(asked, losses.tolist(), strict=True):
                search.tell(candidate, loss)
            lm.log(loss=losses.min())
            if losses.min() < best_loss:
                best_z, best_loss = zs[losses.argmin()], float(losses.min())

            last = lm.budget.rows_left < size * len(train) + 2 * len(dev)
            if last or search.num_tell >= looked + config.dev_every:
                looked = search.num_tell
                looks = np.stack([search.provide_recommendation().value, best_z])  # (2, d)
                q = lm.logits(space.at(looks), dev.texts)
                for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
                    yield Answer.of(task, space.at(looks[k]), loss=best_loss, dev=metric)
    finally:
        np.random.set_state(before)  # noqa: NPY002


def optimizer(config: Config, calls: int, rng: np.random.Generator) -> Any:
    """The named optimiser at z = 0 with step 1; one question at a time if it takes no more. Chance is `rng`'s.

    Seeds numpy's global generator, too: nevergrad 1.0.12 draws its lognormal mutations, some crossovers, directions in
    its DS optimisers, and the scales of the optimisers in some portfolios from it, whatever the space's generator is.
    """
    kind = ng.optimizers.registry[config.optimizer]
    space = ng.p.Array(init=np.zeros(config.dim))
    seed = int(rng.integers(2**32))
    space.random_state = np.random.RandomState(seed)
    np.random.seed([seed, 1])  # noqa: NPY002 - nevergrad's choice; the 1 is for other numbers than the space's
    ahead = max(config.population, 4 + int(3 * np.log(config.dim)))
    problem: Exception | None = None
    for workers in [1] if kind.no_parallelization else [ahead, 1]:
        try:
            return kind(space, budget=max(calls, workers), num_workers=workers)
        except (ValueError, ZeroDivisionError, ImportError) as refusal:  # some find out late what they cannot do
            problem = refusal
    raise ValueError(f"nevergrad cannot set up {config.optimizer} at dim {config.dim}: {problem}; {TRY}") from problem


def ask(search: Any, size: int) -> list[Any]:
    """Up to `size` candidates: fewer where a CMA-ES must be told its generation before it can be asked again.

    Raises:
        ValueError: not even one; a package is missing, or the optimiser is not made for such a space.
    """
    asked: list[Any] = []
    try:
        while len(asked) < size:
            asked.append(search.ask())
    except (RuntimeError, TypeError, ImportError) as problem:
        # pycma's "Mean shift samples are expected but missing" is one of these; the candidates asked for are good
        if not asked:
            raise ValueError(f"nevergrad's {search.name} cannot be asked for one: {problem}; {TRY}") from problem
    return asked
