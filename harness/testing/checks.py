"""The checks of a black box of a task with classes; `harness.testing` says how they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox.projection import matrix
from harness.contract import Prompt, Subspace
from harness.errors import BudgetExhausted, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import BlackBox, FeatureKind, SoftPrompts, Task, Text

SEED = 20_220_628


class ConformanceError(AssertionError):
    """A black box does not keep the contract."""


@dataclass(frozen=True)
class Subject:
    """The black box under test."""

    make: Callable[[], BlackBox]
    """Gives a black box with its whole budget: at least ten calls of `texts`. Each check calls it once."""
    task: Task
    """The task whose template and label words the black box takes where none are given."""
    texts: Sequence[Text]
    """At least two texts, of different lengths."""
    tolerance: float = 1e-4
    """Largest difference of two logits that count as equal. It allows for rounding in the model's number format."""


def hold(held: object, wanted: str, found: object) -> None:
    """Raise `ConformanceError` unless it is held."""
    if not held:
        raise ConformanceError(f"{wanted}; found: {found}")


def small_space(lm: BlackBox) -> Subspace:
    """A subspace of three dimensions at the input."""
    return Subspace(3, (lm.info.hidden_std[0],), lm.info.prompt_tokens, seed=SEED)


def two_candidates(lm: BlackBox) -> SoftPrompts:
    """Two candidates."""
    z = np.random.default_rng(SEED).standard_normal((2, 1, 3))
    return small_space(lm).at(z)


def logits_have_one_row_per_candidate_and_text(subject: Subject) -> None:
    """Logits are float32 (candidates, texts, words), and finite."""
    lm, words = subject.make(), subject.task.words
    for prompts, candidates in ((None, 1), (two_candidates(lm), 2)):
        q = lm.logits(prompts, subject.texts)
        wanted = (candidates, len(subject.texts), len(words))
        hold(q.shape == wanted, f"logits of shape {wanted} are wanted", q.shape)
        hold(q.dtype == np.float32, "logits are float32", q.dtype)
        hold(np.isfinite(q).all(), "logits are finite", q)


def a_row_costs_a_row(subject: Subject) -> None:
    """A query costs candidates x texts rows, whatever it returns."""
    lm = subject.make()
    before, rows = lm.budget.rows_left, 2 * len(subject.texts)
    hold(before == lm.budget.rows_total, "a new black box has its whole budget", lm.budget)
    lm.logits(two_candidates(lm), subject.texts)
    hold(lm.budget.rows_left == before - rows, f"{before - rows} rows are left after a query of {rows}", lm.budget)
    lm.outputs(two_candidates(lm), subject.texts, features="mask")
    left = before - 2 * rows
    hold(lm.budget.rows_left == left, f"hidden states cost what logits cost: {left} rows are left", lm.budget)


def reading_is_free(subject: Subject) -> None:
    """Info, budget, word ids and the vocabulary cost nothing."""
    lm = subject.make()
    before = lm.budget
    lm.word_ids(subject.task.words)
    lm.vocabulary()
    hold(lm.info.layers == len(lm.info.hidden_std), "hidden_std has one width per layer", lm.info)
    hold(lm.budget == before, f"reading is free: {before}", lm.budget)


def a_query_beyond_the_budget_is_refused_and_costs_nothing(subject: Subject) -> None:
    """`BudgetExhausted` before anything is charged; what fits is still answered."""
    lm = subject.make()
    left = lm.budget.rows_left
    z = np.zeros((left // len(subject.texts) + 1, 1, 3))
    _refused(lm, BudgetExhausted, small_space(lm).at(z), subject.texts)
    hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)
    lm.logits(None, subject.texts)
    hold(lm.budget.rows_left == left - len(subject.texts), "what fits is answered and charged", lm.budget)


def a_malformed_query_is_refused_and_costs_nothing(subject: Subject) -> None:
    """`QueryError` for prompts or texts that are none, a word of several tokens, and a template without a mask."""
    lm = subject.make()
    left, width = lm.budget.rows_left, lm.info.width
    wrong = Prompt(np.zeros((1, 1, 1, width + 1), dtype=np.float32))
    _refused(lm, QueryError, wrong, subject.texts)
    _refused(lm, QueryError, [None], subject.texts)
    _refused(lm, QueryError, None, [None])
    _refused(lm, QueryError, None, subject.texts, words=["two words are no token"])
    _refused(lm, QueryError, None, subject.texts, template="no gap: {a}")
    _refused(lm, QueryError, None, ())
    hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)


def _refused(lm: BlackBox, kind: type[Exception], prompts: Any, texts: Sequence[Any], **more: Any) -> None:
    try:
        lm.logits(prompts, texts, **more)
    except kind:
        return
    except Exception as problem:
        raise ConformanceError(f"{kind.__name__} is wanted for {more or prompts!r}; found: {problem!r}") from problem
    raise ConformanceError(f"{kind.__name__} is wanted for {more or prompts!r}; the query was answered")


def coordinates_are_projected_prompts(subject: Subject) -> None:
    """`Subspace.at(z)` gives what the prompt A z gives, with A made from the seed."""
    lm = subject.make()
    space, z = small_space(lm), np.random.default_rng(SEED).standard_normal((2, 3)).astype(np.float32)
    values = (z @ matrix(space, 0, lm.info.width).T).reshape(2, 1, space.tokens, lm.info.width)
    near, far = lm.logits(Prompt(values), subject.texts), lm.logits(space.at(z), subject.texts)
    off = float(np.abs(near - far).max())
    hold(off <= subject.tolerance, f"coordinates differ from their prompt by at most {subject.tolerance:g}", off)


def a_prompt_matters(subject: Subject) -> None:
    """Different candidates give different logits."""
    lm = subject.make()
    q = lm.logits(two_candidates(lm), subject.texts)
    hold(not np.array_equal(q[0], q[-1]), "two prompts give different logits", q)


def a_text_has_the_same_logits_in_any_company(subject: Subject) -> None:
    """Alone, in another order and with other candidates, up to the tolerance."""
    lm = subject.make()
    both = two_candidates(lm)
    whole = lm.logits(both, subject.texts)
    turned = lm.logits(both, subject.texts[::-1])[:, ::-1]
    alone = lm.logits(both, subject.texts[:1])
    for other, part in ((turned, whole), (alone, whole[:, :1])):
        off = float(np.abs(other - part).max())
        hold(off <= subject.tolerance, f"logits of one text differ by at most {subject.tolerance:g}", off)


def normalized_logits_are_log_probabilities(subject: Subject) -> None:
    """With `normalize`, logits keep their differences and are shares of the whole vocabulary."""
    lm = subject.make()
    q, p = lm.logits(None, subject.texts), lm.logits(None, subject.texts, normalize=True)
    shift = (p - q).max(axis=-1) - (p - q).min(axis=-1)
    hold(shift.max() <= subject.tolerance, "normalize moves all words of a text alike", shift)
    hold(np.exp(p.astype(np.float64)).sum(axis=-1).max() <= 1 + subject.tolerance, "probabilities sum to at most 1", p)


def hidden_states_have_the_model_s_width(subject: Subject) -> None:
    """(candidates, texts, width) at the mask and the first token; of all tokens with their lengths, 0 behind them."""
    lm = subject.make()
    width = lm.info.width
    kinds: tuple[FeatureKind, ...] = ("mask", "cls")
    for kind in kinds:
        shape = lm.outputs(two_candidates(lm), subject.texts, features=kind).features.shape
        hold(
            shape == (2, len(subject.texts), width), f"features {kind!r} are (2, {len(subject.texts)}, {width})", shape
        )
    out = lm.outputs(None, subject.texts, features="all")
    if out.lengths is None:
        raise ConformanceError("the features of all tokens come with the lengths of the texts; found: None")
    wanted = (1, len(subject.texts), int(out.lengths.max()), width)
    hold(out.features.shape == wanted, f"features of all tokens are {wanted}", out.features.shape)
    for n, length in enumerate(out.lengths):
        hold(
            not out.features[0, n, length:].any(),
            f"features of text {n} are 0 behind its {length} tokens",
            out.features,
        )


def label_words_are_single_tokens(subject: Subject) -> None:
    """Each label word has one id, and the vocabulary reads that id back as the word."""
    lm = subject.make()
    vocabulary = lm.vocabulary()
    for word, ids in zip(subject.task.words, lm.word_ids(subject.task.words), strict=True):
        hold(len(ids) == 1, f"label word {word!r} is one token", ids)
        hold(vocabulary[ids[0]].strip() == word.strip(), f"token {ids[0]} is {word!r}", vocabulary[ids[0]])


CHECKS: tuple[Callable[[Subject], None], ...] = (
    logits_have_one_row_per_candidate_and_text,
    a_row_costs_a_row,
    reading_is_free,
    a_query_beyond_the_budget_is_refused_and_costs_nothing,
    a_malformed_query_is_refused_and_costs_nothing,
    coordinates_are_projected_prompts,
    a_prompt_matters,
    a_text_has_the_same_logits_in_any_company,
    normalized_logits_are_log_probabilities,
    hidden_states_have_the_model_s_width,
    label_words_are_single_tokens,
)
"""Every check there is."""
