"""Projection-free ES: an evolution strategy on the prompt itself, its rates set by the intrinsic dimension.

    min over P of CE(lm(p0 + P), y) - tau * mean log sum_k p_V(word k | text),    P = scale * x,    x in R^D

No random projection stands between the search and the prompt: x holds all D = tokens * width values, at the input or
at every layer, and p_V is the model's softmax over its whole vocabulary. CMA-ES's rates are functions of a dimension;
here that is d = `dim`, the number of directions which are believed to matter, not D. The second term keeps the model
saying label words at all, which the loss among label words cannot tell.

After arXiv 2603.13786, of which **only the abstract was read**: search in the full prompt space, rates by the intrinsic
dimension, confidence regulariser on the label words. All else is reconstructed: the two covariance models
(separable CMA-ES, Ros & Hansen 2008; LM-MA-ES, Loshchilov, Glasmachers & Beyer 2017, arXiv 1705.06693), the form of the
regulariser, tau, sigma, mirrored samples. Looks at dev are paid for and the bare template is the first incumbent, as in
`bbt`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from strategy import Search

from harness import Answer, BlackBox, Count, Examples, ModelInfo, NonNegative, Positive, Prompt, Shots, Task
from harness.solving import Selection, cross_entropy

Floats: TypeAlias = NDArray[np.float64]
Place: TypeAlias = Callable[[Floats], Prompt]  # candidates x (candidates, D) as prompts
QUERY_BYTES = 32 << 20  # of prompts in one query: 20 candidates for all layers of a large model do not fit into a frame


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. All are reconstructions or house choices; the README says which."""

    dim: Count = 500  # d, the intrinsic dimension, which sets all rates of adaptation; at most D
    population: int = 20  # lambda, candidates per generation; even, and at least 4
    # First step size, in units of x: width of the first prompts in standard deviations of their layer's input.
    sigma: Positive = 1.0
    alpha_deep: NonNegative = 0.2  # width of the prompts of layers 1 and above, as a multiple of the input's
    layers: Literal["input", "all"] = "input"  # where prompts are
    covariance: Literal["diagonal", "low-rank"] = "diagonal"  # separable CMA-ES, or LM-MA-ES
    rank: Count = 10  # m, the directions that are remembered; only for `low-rank`
    mirrored: bool = True  # draw steps in pairs z and -z; the better one of each takes part in recombination
    tau: NonNegative = 0.1  # weight of the regulariser, the log-probability of saying any label word
    dev_every: Count = 5  # generations between two looks at dev, at 2 * len(dev) rows each
    select: Literal["metric", "loss"] = "metric"  # what dev decides by; the other one breaks ties

    def __post_init__(self) -> None:
        """Refuse a population without pairs."""
        if self.population < 4 or self.population % 2:  # noqa: PLR2004 - two parents, for mu_eff > 1
            raise ValueError(f"population {self.population}; an even number of at least 4 is needed")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    size, place = search_space(lm.info, config)
    selection = Selection(task, dev, config.select)
    yield Answer.of(task)
    q = lm.logits(None, dev.texts)
    selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat

    search = Search(
        size, rng, config.dim, config.population, config.sigma, config.covariance, config.rank, config.mirrored
    )
    best_x, best_loss = search.mean, np.inf  # of all samples
    generation_rows, look_rows = config.population * len(train), 2 * len(dev)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        xs = search.ask()  # (population, D)
        losses = fitness(log_probabilities(lm, place(xs), train), train, config.tau)  # (population,)
        search.tell(losses)
        lm.log(loss=losses.min(), sigma=search.sigma)
        if losses.min() < best_loss:
            best_x, best_loss = xs[losses.argmin()], float(losses.min())

        last = lm.budget.rows_left < generation_rows + look_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([search.mean, best_x])  # (2, D): the mean, the best sample
            log_p = log_probabilities(lm, place(looks), dev)
            dev_losses = cross_entropy(log_p, dev.labels)  # (2,)
            for k, metric in selection.better(log_p, dev_losses):
                note = {"loss": best_loss, "dev": metric, "dev_loss": float(dev_losses[k])}
                yield Answer.of(task, place(looks[k : k + 1]), **note)


def search_space(info: ModelInfo, config: Config) -> tuple[int, Place]:
    """D, and how x becomes a prompt: x ~ N(0, I) is as wide as the input of its layer, above the input `alpha_deep`."""
    layers = info.layers if config.layers == "all" else 1
    alphas = np.array([1.0] + [config.alpha_deep] * (layers - 1))
    scale = (alphas * info.hidden_std[:layers])[:, None, None]
    shape = (layers, info.prompt_tokens, info.width)
    return int(np.prod(shape)), lambda x: Prompt((scale * x.reshape(-1, *shape)).astype(np.float32))


def log_probabilities(lm: BlackBox, prompt: Prompt, examples: Examples) -> NDArray[np.floating]:
    """Of the label words in the whole vocabulary: (candidates, texts, words)."""
    parts = np.array_split(prompt.values, -(-prompt.values.nbytes // QUERY_BYTES))
    return np.concatenate([lm.logits(Prompt(part), examples.texts, normalize=True) for part in parts])


def fitness(log_p: NDArray[np.floating], examples: Examples, tau: float) -> Floats:
    """CE - tau * mean over texts of log sum_k p_V(word k): (candidates, texts, words) -> (candidates,)."""
    mass = np.logaddexp.reduce(log_p.astype(np.float64), axis=-1)  # (candidates, texts), log of a probability
    return np.asarray(cross_entropy(log_p, examples.labels) - tau * mass.mean(axis=-1), dtype=np.float64)
