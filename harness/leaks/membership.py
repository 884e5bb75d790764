"""Whether a text was among the labelled examples, told from an answer: membership inference by shadow answers.

An answer gives p, the probability of a text's true class. Members get a higher one than they would if they were none.
Shadow answers, tuned on other splits of the same pool, say what is usual for a text:

- LiRA (Carlini et al., *Membership Inference Attacks From First Principles*, IEEE S&P 2022, equation 4): with
  phi = log p/(1 - p), the ratio N(phi; mu_in, s_in^2) / N(phi; mu_out, s_out^2), from shadows with and without the
  text (online); or 1 - Pr[N(mu_out, s_out^2) > phi] from those without (offline, section VI).
- RMIA (Zarifzadeh et al., *Low-Cost High-Power Membership Inference Attacks*, ICML 2024, equations 2 and 4): the share
  of population texts z with (p(x)/mean p(x)) / (p(z)/mean p(z)) >= gamma, with gamma = 2 and few shadows; means over
  shadows without the text (offline).

What counts is the share of members that are found while few others are accused, not accuracy (Carlini et al., section
III). Differences to the papers: every answer is the target once and a shadow of all others. Variances are global, which
the paper takes for few shadows. A text in a shadow's dev set counts as neither in nor out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.errors import InputError
from harness.results.membership import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FloatArray, IntArray

Attack = Literal["lira", "lira offline", "rmia", "confidence"]
Part = Literal["train", "dev"]
OUT, TRAIN, DEV = 0, 1, 2
_MEMBERS: dict[Part, int] = {"train": TRAIN, "dev": DEV}
FALSE_POSITIVES = (0.01, 0.05, 0.1)
FEW_SHADOWS = 8
"""Shadows without the text that RMIA uses."""
GAMMA = 2.0
RESAMPLES = 500
FEWEST = 8
_LEAST_P = 1e-6


@dataclass(frozen=True)
class Shadows:
    """Answers on splits of one pool, and what each says of every text."""

    p: FloatArray
    """(answers, texts): probability of the text's true class"""
    part: IntArray
    """(answers, texts): `OUT`, `TRAIN` or `DEV`: where the text is in the split of the answer"""
    population: FloatArray
    """(answers, others): the same as `p` for texts that are in no split"""


@dataclass(frozen=True)
class Found:
    """How well an attack tells members from others."""

    attack: Attack
    members: Part
    """Which members: texts of train, or of dev."""
    false_positives: float
    """Share of the others that are accused."""
    found: float
    """Share of the members that are found then."""
    low: float
    high: float
    auc: float
    """Probability that a member has a higher score than another text; 0.5 is chance."""
    auc_low: float
    auc_high: float
    answers: int
    member_texts: int
    other_texts: int


def attacked(shadows: Shadows, seed: int = 0) -> list[Found]:
    """Attack every answer with the others as shadows.

    Args:
        shadows: at least `FEWEST` answers.
        seed: of the bootstrap over answers, and of the choice of few shadows.

    Returns:
        For each attack, kind of members and share of false positives, with 95 % intervals over answers.

    Raises:
        InputError: too few answers, or no text is outside of some splits.
    """
    count = len(shadows.p)
    if count < FEWEST:
        raise InputError(f"{count} shadow answers; at least {FEWEST} are needed to know what is usual for a text")
    scores: dict[Attack, FloatArray] = {
        "lira": _lira(shadows, online=True),
        "lira offline": _lira(shadows, online=False),
        "rmia": _rmia(shadows, np.random.default_rng([seed, 1])),
        "confidence": _phi(shadows.p),
    }
    found = []
    for attack, values in scores.items():
        for name, part in _MEMBERS.items():
            found += _judged(attack, name, _pairs(values, shadows, part), seed)
    return found


def told_by_few(tasks: Sequence[Shadows], seed: int = 0) -> list[Found]:
    """Attack each answer of an entry by RMIA, with its answers on the same task's other splits as shadows.

    Two or three shadows are few: no variance can be known from them, and RMIA needs none.

    Args:
        tasks: the answers of each task, at least three.
        seed: of the bootstrap over answers.

    Returns:
        For each kind of members and share of false positives, all tasks together.

    Raises:
        InputError: no text is outside of the splits of two answers.
    """
    scores = [_rmia(each, np.random.default_rng([seed, 1])) for each in tasks]
    found = []
    for name, part in _MEMBERS.items():
        pairs = [pair for values, each in zip(scores, tasks, strict=True) for pair in _pairs(values, each, part)]
        found += _judged("rmia", name, pairs, seed)
    return found


def kept(found: Sequence[Found], run: str, answers: tuple[str, ...], seed: int, made: float) -> Told:
    """The fact about an entry's members of train that is kept with its results.

    Args:
        found: of `told_by_few`.
        run: the entry's.
        answers: SHA-256 of the attacked answers.
        seed: with which they were attacked.
        made: Unix seconds.
    """
    one = next(each for each in found if (each.members, each.false_positives) == ("train", FALSE_POSITIVES[-1]))
    return Told(
        run, answers, one.attack, one.found, one.low, one.high, one.auc, one.auc_low, one.auc_high,
        one.member_texts, one.other_texts, seed, made,
    )  # fmt: skip


def _pairs(scores: FloatArray, shadows: Shadows, part: int) -> list[tuple[FloatArray, FloatArray]]:
    """The scores of members and of others for each answer that has both."""
    known = np.isfinite(scores)
    members, others = (shadows.part == part) & known, (shadows.part == OUT) & known
    pairs = [(row[a], row[b]) for row, a, b in zip(scores, members, others, strict=True)]
    return [(a, b) for a, b in pairs if a.size and b.size]


def _phi(p: FloatArray) -> FloatArray:
    """The logit of p, log p/(1 - p): Carlini et al., section IV-C."""
    safe = np.clip(p, _LEAST_P, 1 - _LEAST_P)
    return np.asarray(np.log(safe) - np.log1p(-safe))


def _lira(shadows: Shadows, *, online: bool) -> FloatArray:
    """(answers, texts): the logarithm of the likelihood ratio, each answer judged by all others."""
    phi, inside, outside = _phi(shadows.p), shadows.part == TRAIN, shadows.part == OUT
    scores = np.full(phi.shape, np.nan)
    for target in range(len(phi)):
        others = np.arange(len(phi)) != target
        mean_out, spread_out = _moments(phi[others], outside[others])
        far = (phi[target] - mean_out) / spread_out
        if online:
            mean_in, spread_in = _moments(phi[others], inside[others])
            near = (phi[target] - mean_in) / spread_in
            scores[target] = -0.5 * near**2 - np.log(spread_in) + 0.5 * far**2 + np.log(spread_out)
        else:
            scores[target] = far
    return scores


def _moments(phi: FloatArray, where: FloatArray) -> tuple[FloatArray, float]:
    """Mean of each text over the shadows where it is, NaN where it is in none; and the global deviation from it."""
    count = where.sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean = np.where(where, phi, 0.0).sum(axis=0) / np.where(count, count, np.nan)
    away = np.where(where, phi - mean, 0.0)
    freedom = max(1, int(count.sum() - (count > 0).sum()))
    return mean, max(float(np.sqrt(np.nansum(away**2) / freedom)), 1e-6)


def _rmia(shadows: Shadows, rng: np.random.Generator) -> FloatArray:
    """(answers, texts): the share of population texts that the text's ratio beats by gamma."""
    p, z = np.maximum(shadows.p, _LEAST_P), np.maximum(shadows.population, _LEAST_P)
    scores = np.full(p.shape, np.nan)
    for target in range(len(p) if len(p) > 1 else 0):  # without a shadow, nothing is known
        ratios = z[target] / np.delete(z, target, axis=0).mean(axis=0)
        for text in range(p.shape[1]):
            outside = np.flatnonzero(shadows.part[:, text] == OUT)
            outside = outside[outside != target]
            if not outside.size:
                continue
            few = rng.permutation(outside)[:FEW_SHADOWS]
            own = p[target, text] / p[few, text].mean()
            scores[target, text] = float((own >= GAMMA * ratios).mean()) + 1e-6 * own  # ties by the ratio itself
    return scores


def _judged(attack: Attack, name: Part, pairs: list[tuple[FloatArray, FloatArray]], seed: int) -> list[Found]:
    if not pairs:
        raise InputError("no text is outside of any shadow's split, so members cannot be told from others")
    whole = _rates(pairs)
    rng = np.random.default_rng([seed, 3])
    again = np.array([_rates([pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]) for _ in range(RESAMPLES)])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    inside, outside = sum(a.size for a, _ in pairs), sum(b.size for _, b in pairs)
    last = len(FALSE_POSITIVES)
    return [
        Found(
            attack, name, rate, whole[k], float(low[k]), float(high[k]), whole[last], float(low[last]),
            float(high[last]), len(pairs), inside, outside,
        )
        for k, rate in enumerate(FALSE_POSITIVES)
    ]  # fmt: skip


def _rates(pairs: list[tuple[FloatArray, FloatArray]]) -> list[float]:
    """Members found at each share of false positives, and the area under the curve, over all answers together."""
    inside, outside = np.concatenate([a for a, _ in pairs]), np.sort(np.concatenate([b for _, b in pairs]))
    found = []
    for rate in FALSE_POSITIVES:
        accused = int(np.floor(rate * len(outside)))
        found.append(float((inside > outside[len(outside) - 1 - accused]).mean()))
    below, upto = np.searchsorted(outside, inside, "left"), np.searchsorted(outside, inside, "right")
    return [*found, float((below + upto).mean() / 2 / len(outside))]
