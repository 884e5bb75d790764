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

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    ModelInfo,
    NonNegative,
    Positive,
    Prompt,
    Shots,
    Task,
    accuracy,
    cross_entropy,
    macro_f1,
)

Floats: TypeAlias = NDArray[np.float64]
Place: TypeAlias = Callable[[Floats], Prompt]
"""Candidates x (candidates, D) as prompts."""
QUERY_BYTES = 32 << 20
"""Most bytes of prompts in one query: 20 candidates for all layers of a large model do not fit into a frame."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. All are reconstructions or house choices; the README says which."""

    dim: Count = 500
    """d, the intrinsic dimension, which sets all rates of adaptation; at most D."""
    population: int = 20
    """Candidates per generation, lambda; even."""
    sigma: Positive = 1.0
    """First step size, in units of x: width of the first prompts in standard deviations of their layer's input."""
    alpha_deep: NonNegative = 0.2
    """Width of the prompts of layers 1 and above, as a multiple of the input's; only for ``all``."""
    layers: Literal["input", "all"] = "input"
    """Where prompts are: at the ``input``, or at ``all`` layers."""
    covariance: Literal["diagonal", "low-rank"] = "diagonal"
    """Shape of the search distribution: separable CMA-ES, or LM-MA-ES."""
    rank: Count = 10
    """m, the directions that are remembered; only for ``low-rank``."""
    mirrored: bool = True
    """Draw steps in pairs z and -z; the better one of each pair takes part in recombination."""
    tau: NonNegative = 0.1
    """Weight of the regulariser, the log-probability of saying any label word."""
    dev_every: Count = 5
    """Generations between two looks at dev, as in `bbt`, at 2 * len(dev) rows each."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss, or the ``loss``, ties by metric, as in `bbt`."""

    def __post_init__(self) -> None:
        """Refuse a population without pairs."""
        if self.population < 4 or self.population % 2:  # noqa: PLR2004 - two parents, for mu_eff > 1
            raise ValueError(f"population {self.population}; an even number of at least 4 is needed")


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every prompt that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    size, place = search_space(lm.info, config)

    yield Answer.of(task)
    ((selected, _),) = judge(task, lm.logits(None, dev.texts), dev, config.select)  # the score to beat

    search = Search(size, config, rng)
    best_x, best_loss = search.mean, np.inf  # of all samples
    generation_rows, look_rows = config.population * len(train), 2 * len(dev)
    for generation in count(1):
        if lm.budget.rows_left < generation_rows + look_rows:
            return
        xs = search.ask()  # (population, D)
        losses = fitness(log_probabilities(lm, place(xs), train), train, config.tau)  # (population,)
        search.tell(losses)
        if losses.min() < best_loss:
            best_x, best_loss = xs[losses.argmin()], float(losses.min())

        last = lm.budget.rows_left < generation_rows + look_rows
        if last or generation % config.dev_every == 0:
            looks = np.stack([search.mean, best_x])  # (2, D): the mean, the best sample
            scores = judge(task, log_probabilities(lm, place(looks), dev), dev, config.select)
            for look, (score, note) in zip(looks, scores, strict=True):
                if score > selected:
                    selected = score
                    yield Answer.of(task, place(look[None]), loss=best_loss, **note)


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


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rates:
    """Rates of CMA-ES for a dimension d (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772v1)."""

    sigma: float
    """c_sigma of the path that moves the step size."""
    damping: float
    """d_sigma."""
    path: float
    """c_c of the path that moves the covariance."""
    one: float
    """c_1 of the rank-one update, times (d + 2) / 3 for a diagonal (Ros & Hansen 2008)."""
    mu: float
    """c_mu of the rank-mu update, times (d + 2) / 3 for a diagonal."""

    @classmethod
    def of(cls, d: int, mu_eff: float) -> Rates:
        """Table 1 of the tutorial with alpha_cov = 2, for a diagonal covariance."""
        sigma = (mu_eff + 2) / (d + mu_eff + 5)
        diagonal = (d + 2) / 3
        one = min(1.0, diagonal * 2 / ((d + 1.3) ** 2 + mu_eff))
        return cls(
            sigma=sigma,
            damping=1 + 2 * max(0.0, ((mu_eff - 1) / (d + 1)) ** 0.5 - 1) + sigma,
            path=(4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d),
            one=one,
            mu=min(1 - one, diagonal * 2 * (mu_eff - 2 + 1 / mu_eff) / ((d + 2) ** 2 + mu_eff)),
        )


def weights(parents: int) -> Floats:
    """Recombination weights ln(mu + 1/2) - ln i of the best mu, normalised: the tutorial's defaults."""
    raw = np.log(parents + 0.5) - np.log(np.arange(1, parents + 1))
    return np.asarray(raw / raw.sum(), dtype=np.float64)


class Search:
    """An evolution strategy in R^D with ask and tell; it starts at x = 0 with covariance sigma^2 I."""

    def __init__(self, size: int, config: Config, rng: np.random.Generator) -> None:
        """Start in `size` dimensions."""
        d = min(config.dim, size)
        self.size, self.config, self.rng = size, config, rng
        self.w = weights(config.population // 2)
        self.mu_eff = float(1 / (self.w**2).sum())
        self.rates = Rates.of(d, self.mu_eff)
        self.shape = Diagonal(size, self.rates) if config.covariance == "diagonal" else LowRank(size, d, config)
        self.mean, self.sigma, self.path = np.zeros(size), config.sigma, np.zeros(size)
        self.z = self.y = np.zeros((config.population, size))

    def ask(self) -> Floats:
        """Candidates m + sigma y, y ~ N(0, C): (population, D)."""
        draws = self.config.population // 2 if self.config.mirrored else self.config.population
        z = self.rng.standard_normal((draws, self.size))
        self.z = np.concatenate([z, -z]) if self.config.mirrored else z
        self.y = self.shape.transform(self.z)
        return np.asarray(self.mean + self.sigma * self.y, dtype=np.float64)

    def tell(self, losses: Floats) -> None:
        """Move mean, covariance and step size.

        The step size follows the tutorial's rule with the squared norm, as in LM-MA-ES::

            p <- (1 - c_s) p + sqrt(c_s (2 - c_s) mu_eff) z_w,   sigma <- sigma exp(c_s / (2 d_s) (|p|^2 / D - 1))

        D is the true size there: it is what |p|^2 is when selection is random.
        """
        parents = self.parents(losses)
        z, y, rates = self.z[parents], self.y[parents], self.rates  # (mu, D)
        self.mean = self.mean + self.sigma * (self.w @ y)
        self.path = follow(self.path, rates.sigma, self.mu_eff, self.w @ z)
        self.shape.update(self.w, self.mu_eff, z, y)
        self.sigma *= float(np.exp(rates.sigma / (2 * rates.damping) * (self.path @ self.path / self.size - 1)))

    def parents(self, losses: Floats) -> NDArray[np.int64]:
        """Indices of the best half, best first. Of mirrored pairs, the better one of each.

        A pair that took part as a whole would cancel out, and shorten the path (Auger, Brockhoff & Hansen 2011).
        """
        if not self.config.mirrored:
            return losses.argsort(kind="stable")[: len(self.w)]
        pairs = losses.reshape(2, -1)  # (sign, pair)
        better = np.asarray(pairs.argmin(axis=0) * len(self.w) + np.arange(len(self.w)), dtype=np.int64)
        return better[losses[better].argsort(kind="stable")]


def follow(path: Floats, rate: float | Floats, mu_eff: float, step: Floats) -> Floats:
    """Evolution path (1 - c) p + sqrt(c (2 - c) mu_eff) step: N(0, I) stays N(0, I) when selection is random."""
    return np.asarray((1 - rate) * path + np.sqrt(rate * (2 - rate) * mu_eff) * step, dtype=np.float64)


class Diagonal:
    """Separable CMA-ES (Ros & Hansen 2008): C = diag(c), y = sqrt(c) z."""

    def __init__(self, size: int, rates: Rates) -> None:
        """Start with C = I."""
        self.c, self.path, self.rates = np.ones(size), np.zeros(size), rates

    def transform(self, z: Floats) -> Floats:
        """Steps y of N(0, C) from z of N(0, I): (candidates, D)."""
        return np.asarray(np.sqrt(self.c) * z, dtype=np.float64)

    def update(self, w: Floats, mu_eff: float, z: Floats, y: Floats) -> None:  # noqa: ARG002 - z is for the other
        """Covariance: c <- (1 - c_1 - c_mu) c + c_1 p^2 + c_mu sum_i w_i y_i^2."""
        rates = self.rates
        self.path = follow(self.path, rates.path, mu_eff, w @ y)
        self.c = (1 - rates.one - rates.mu) * self.c + rates.one * self.path**2 + rates.mu * (w @ y**2)


class LowRank:
    """LM-MA-ES (Loshchilov et al. 2017, Algorithm 1): m paths p_i of growing memory, each of which stretches the steps.

        y <- (1 - c_i) y + c_i q_i (q_i y),   c_i = 1 / (1.5^(i-1) d),   q_i = sqrt(d / D) p_i

    and the path p_i follows at the rate lambda / (4^(i-1) d). A path is about sqrt(D) long when selection is random;
    q_i is as long as it would be in d dimensions. With p_i in its place a step would grow (1 + D/d)-fold along it.
    """

    def __init__(self, size: int, d: int, config: Config) -> None:
        """Start with no paths, y = z."""
        i = np.arange(config.rank)
        self.paths = np.zeros((config.rank, size))
        self.shrink, self.stretch = 1 / (1.5**i * d), 1 / (1.5**i * size)  # c_i, c_i d / D
        self.rates = np.minimum(config.population / (4.0**i * d), 1.0)[:, None]  # made for d far above lambda
        self.generations = 0

    def transform(self, z: Floats) -> Floats:
        """Steps y from z: (candidates, D). Paths take part one after the other, one more each generation."""
        y = z
        for path, shrink, stretch in list(zip(self.paths, self.shrink, self.stretch, strict=True))[: self.generations]:
            y = (1 - shrink) * y + stretch * (y @ path)[:, None] * path
        return y

    def update(self, w: Floats, mu_eff: float, z: Floats, y: Floats) -> None:  # noqa: ARG002 - y is for the other
        """Let each path follow the same step with a memory of its own."""
        self.paths = follow(self.paths, self.rates, mu_eff, w @ z)
        self.generations += 1


def judge(
    task: Task, logits: NDArray[np.floating], dev: Examples, select: Literal["metric", "loss"]
) -> list[tuple[tuple[float, float], dict[str, float]]]:
    """Score and note of each candidate (candidates, texts, words): metric and minus loss, the deciding one first."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    pairs = zip(metric.tolist(), cross_entropy(logits, labels).tolist(), strict=True)
    return [((m, -x) if select == "metric" else (-x, m), {"dev": m, "dev_loss": x}) for m, x in pairs]
