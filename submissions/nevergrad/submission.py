"""Any optimiser of nevergrad, in BBT's subspace (Rapin & Teytaud, 2018, https://github.com/facebookresearch/nevergrad).

    z* = argmin over z in R^d of CE(lm(p0 + A z), y),  z asked from and told to `optimizer`

The first release of BBT's code used nevergrad's CMA this way. Optimisers that can be asked many times before they are
told are given whole populations, which the server forwards at once; the others go one by one, at the same price per
call and more seconds; those that fail either way are refused.

Not part of any paper: the widths of A, the looks at dev and the selection are those of this project's BBT.

Numpy's global generator is seeded while `tune` runs: some of nevergrad's optimisers draw from it, and not only from the
generator of the space they are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import nevergrad as ng
import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    NonNegative,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    macro_f1,
)

REFUSED = ("BO", "BOSplit", "BayesOptimBO", "PCABO", "PCABO80", "PCABO95DoE20", "AX", "HyperOpt", "SMAC3", "pysot")
"""Model-based optimisers whose cost per question grows with dim and history: they hang at hundreds of dimensions.

nevergrad knows `HyperOpt` only where the package of that name is installed."""
TRY = "try NGOpt, DiagonalCMA or CMA"
Standing: TypeAlias = tuple[float, float]
"""What dev thinks of a candidate, metric and minus loss, the deciding one first; the greater wins."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    optimizer: str = ""
    """A name in `nevergrad.optimizers.registry`. There is no default, so that the leaderboard's names carry it."""
    dim: Count = 500
    """d, length of z."""
    population: Count = 20
    """Candidates asked for at once, where the optimiser allows it; at least 4 + 3 ln d, as nevergrad's CMA-ES works
    in generations of that size or more."""
    alpha: NonNegative = 1.0
    """Standard deviation of the prompts at z ~ N(0, I), in standard deviations of the first layer's input."""
    dev_every: Count = 100
    """Calls between two looks at dev, at 2 * len(dev) rows each."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published: the earliest stays), or the ``loss``, ties
    by metric (as in the code of early 2022; steadier on few texts)."""

    def __post_init__(self) -> None:
        """Refuse unknown optimisers, and those that would hang."""
        if not self.optimizer:
            raise ValueError(
                "which optimizer? Say it with --config optimizer=NGOpt, or DiagonalCMA, CMA, PSO, TBPSA, ..."
            )
        if self.optimizer in REFUSED:
            raise ValueError(f"optimizer {self.optimizer!r} fits a model that hangs at dim {self.dim}; {TRY}")
        if self.optimizer not in ng.optimizers.registry:
            raise ValueError(f"nevergrad has no optimizer {self.optimizer!r}; see nevergrad.optimizers.registry")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before.

    Numpy's global generator is seeded meanwhile (see `optimizer`); its state from before comes back at the end.
    """
    before = np.random.get_state()  # noqa: NPY002 - the generator that nevergrad draws from
    try:
        yield from improved(lm, task, shots, rng, config)
    finally:
        np.random.set_state(before)  # noqa: NPY002


def improved(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Ask and tell the optimiser until the budget ends; the answers of `tune`."""
    train, dev = shots.train, shots.dev
    std = config.alpha * lm.info.hidden_std[0]
    space = Subspace(config.dim, (std,), lm.info.prompt_tokens, seed=int(rng.integers(2**62)))

    yield Answer.of(task)
    ((selected, _),) = judge(task, lm.logits(None, dev.texts), dev, config.select)  # the prompt to beat

    search = optimizer(config, int(lm.budget.calls_left), rng)
    size = search.num_workers
    best_z, best_loss = np.zeros(config.dim), np.inf
    round_rows = size * len(train) + 2 * len(dev)
    looked = 0
    while True:
        asked = ask(search, size)
        zs = np.stack([candidate.value for candidate in asked])  # (population, d)
        losses = cross_entropy(lm.logits(space.at(zs), train.texts), train.labels)  # (population,)
        for candidate, loss in zip(asked, losses.tolist(), strict=True):
            search.tell(candidate, loss)
        if losses.min() < best_loss:
            best_z, best_loss = zs[losses.argmin()], float(losses.min())

        last = lm.budget.rows_left < round_rows
        if last or search.num_tell >= looked + config.dev_every:
            looked = search.num_tell
            looks = np.stack([search.provide_recommendation().value, best_z])  # (2, d)
            scores = judge(task, lm.logits(space.at(looks), dev.texts), dev, config.select)
            for z, (score, metric) in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield Answer.of(task, space.at(z), loss=best_loss, dev=metric)


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
            raise ValueError(
                f"nevergrad's {search.name} cannot be asked for a candidate: {problem}; {TRY}"
            ) from problem
    return asked


def judge(task: Task, logits: NDArray[np.floating], dev: Examples, select: str) -> list[tuple[Standing, float]]:
    """Standing and metric of each candidate, from its dev logits (candidates, texts, words)."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    pairs = zip(metric.tolist(), (-cross_entropy(logits, labels)).tolist(), strict=True)
    return [(pair if select == "metric" else pair[::-1], pair[0]) for pair in pairs]
