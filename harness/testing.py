"""The conformance suite for any `BlackBox`: the fake, the client of a worker, the HTTP client, and one of your own.

    import pytest
    from harness import testing

    @pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
    def test_my_black_box_keeps_the_contract(check):
        check(testing.Subject(make=lambda: MyBlackBox(calls=20), task=task, texts=shots.train.texts))

A black box of a text task has checks of its own, `TEXT_CHECKS`, each a function of a `TextSubject`.

Each check is a function of a `Subject`. It returns None, or raises `ConformanceError`, which says what the contract
wants and what the black box did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from harness.blackbox.projection import matrix
from harness.contract import Prompt, Subspace
from harness.errors import BudgetExhausted, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import (
        BlackBox,
        FeatureKind,
        Shots,
        SoftPrompts,
        Task,
        Text,
        TextBlackBox,
        TextTask,
    )

_SEED = 20_220_628


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


def _hold(held: object, wanted: str, found: object) -> None:
    if not held:
        raise ConformanceError(f"{wanted}; found: {found}")


def _space(lm: BlackBox) -> Subspace:
    return Subspace(3, (lm.info.hidden_std[0],), lm.info.prompt_tokens, seed=_SEED)


def _two(lm: BlackBox) -> SoftPrompts:
    z = np.random.default_rng(_SEED).standard_normal((2, 1, 3))
    return _space(lm).at(z)


def logits_have_one_row_per_candidate_and_text(subject: Subject) -> None:
    """Logits are float32 (candidates, texts, words), and finite."""
    lm, words = subject.make(), subject.task.words
    for prompts, candidates in ((None, 1), (_two(lm), 2)):
        q = lm.logits(prompts, subject.texts)
        wanted = (candidates, len(subject.texts), len(words))
        _hold(q.shape == wanted, f"logits of shape {wanted} are wanted", q.shape)
        _hold(q.dtype == np.float32, "logits are float32", q.dtype)
        _hold(np.isfinite(q).all(), "logits are finite", q)


def a_row_costs_a_row(subject: Subject) -> None:
    """A query costs candidates x texts rows, whatever it returns."""
    lm = subject.make()
    before, rows = lm.budget.rows_left, 2 * len(subject.texts)
    _hold(before == lm.budget.rows_total, "a new black box has its whole budget", lm.budget)
    lm.logits(_two(lm), subject.texts)
    _hold(lm.budget.rows_left == before - rows, f"{before - rows} rows are left after a query of {rows}", lm.budget)
    lm.outputs(_two(lm), subject.texts, features="mask")
    left = before - 2 * rows
    _hold(lm.budget.rows_left == left, f"hidden states cost what logits cost: {left} rows are left", lm.budget)


def reading_is_free(subject: Subject) -> None:
    """Info, budget, word ids and the vocabulary cost nothing."""
    lm = subject.make()
    before = lm.budget
    lm.word_ids(subject.task.words)
    lm.vocabulary()
    _hold(lm.info.layers == len(lm.info.hidden_std), "hidden_std has one width per layer", lm.info)
    _hold(lm.budget == before, f"reading is free: {before}", lm.budget)


def a_query_beyond_the_budget_is_refused_and_costs_nothing(subject: Subject) -> None:
    """`BudgetExhausted` before anything is charged; what fits is still answered."""
    lm = subject.make()
    left = lm.budget.rows_left
    z = np.zeros((left // len(subject.texts) + 1, 1, 3))
    _refused(lm, BudgetExhausted, _space(lm).at(z), subject.texts)
    _hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)
    lm.logits(None, subject.texts)
    _hold(lm.budget.rows_left == left - len(subject.texts), "what fits is answered and charged", lm.budget)


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
    _hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)


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
    space, z = _space(lm), np.random.default_rng(_SEED).standard_normal((2, 3)).astype(np.float32)
    values = (z @ matrix(space, 0, lm.info.width).T).reshape(2, 1, space.tokens, lm.info.width)
    near, far = lm.logits(Prompt(values), subject.texts), lm.logits(space.at(z), subject.texts)
    off = float(np.abs(near - far).max())
    _hold(off <= subject.tolerance, f"coordinates differ from their prompt by at most {subject.tolerance:g}", off)


def a_prompt_matters(subject: Subject) -> None:
    """Different candidates give different logits."""
    lm = subject.make()
    q = lm.logits(_two(lm), subject.texts)
    _hold(not np.array_equal(q[0], q[-1]), "two prompts give different logits", q)


def a_text_has_the_same_logits_in_any_company(subject: Subject) -> None:
    """Alone, in another order and with other candidates, up to the tolerance."""
    lm = subject.make()
    both = _two(lm)
    whole = lm.logits(both, subject.texts)
    turned = lm.logits(both, subject.texts[::-1])[:, ::-1]
    alone = lm.logits(both, subject.texts[:1])
    for other, part in ((turned, whole), (alone, whole[:, :1])):
        off = float(np.abs(other - part).max())
        _hold(off <= subject.tolerance, f"logits of one text differ by at most {subject.tolerance:g}", off)


def normalized_logits_are_log_probabilities(subject: Subject) -> None:
    """With `normalize`, logits keep their differences and are shares of the whole vocabulary."""
    lm = subject.make()
    q, p = lm.logits(None, subject.texts), lm.logits(None, subject.texts, normalize=True)
    shift = (p - q).max(axis=-1) - (p - q).min(axis=-1)
    _hold(shift.max() <= subject.tolerance, "normalize moves all words of a text alike", shift)
    _hold(np.exp(p.astype(np.float64)).sum(axis=-1).max() <= 1 + subject.tolerance, "probabilities sum to at most 1", p)


def hidden_states_have_the_model_s_width(subject: Subject) -> None:
    """(candidates, texts, width) at the mask and the first token; of all tokens with their lengths, 0 behind them."""
    lm = subject.make()
    width = lm.info.width
    kinds: tuple[FeatureKind, ...] = ("mask", "cls")
    for kind in kinds:
        shape = lm.outputs(_two(lm), subject.texts, features=kind).features.shape
        _hold(
            shape == (2, len(subject.texts), width), f"features {kind!r} are (2, {len(subject.texts)}, {width})", shape
        )
    out = lm.outputs(None, subject.texts, features="all")
    if out.lengths is None:
        raise ConformanceError("the features of all tokens come with the lengths of the texts; found: None")
    wanted = (1, len(subject.texts), int(out.lengths.max()), width)
    _hold(out.features.shape == wanted, f"features of all tokens are {wanted}", out.features.shape)
    for n, length in enumerate(out.lengths):
        _hold(
            not out.features[0, n, length:].any(),
            f"features of text {n} are 0 behind its {length} tokens",
            out.features,
        )


def label_words_are_single_tokens(subject: Subject) -> None:
    """Each label word has one id, and the vocabulary reads that id back as the word."""
    lm = subject.make()
    vocabulary = lm.vocabulary()
    for word, ids in zip(subject.task.words, lm.word_ids(subject.task.words), strict=True):
        _hold(len(ids) == 1, f"label word {word!r} is one token", ids)
        _hold(vocabulary[ids[0]].strip() == word.strip(), f"token {ids[0]} is {word!r}", vocabulary[ids[0]])


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


@dataclass(frozen=True)
class TextSubject:
    """The black box of a text task under test."""

    make: Callable[[], TextBlackBox]
    """Gives a black box with its whole budget: at least 20 calls of `shots.train`. Each check calls it once."""
    task: TextTask
    """The task whose template, stops and longest output the black box takes where none are given."""
    shots: Shots
    """Its few-shot examples; at least two texts for training, of different lengths."""
    tolerance: float = 1e-4
    """Largest difference of two log-likelihoods that count as equal."""

    @property
    def texts(self) -> tuple[Text, ...]:
        """The training texts."""
        return self.shots.train.texts

    @property
    def targets(self) -> tuple[str, ...]:
        """Their references, as the model would say them."""
        return self.task.targets(self.shots.train)


def likelihoods_have_one_row_per_candidate_and_text(subject: TextSubject) -> None:
    """Log-likelihoods are float32 (candidates, texts, tokens), finite, at most 0, and 0 behind a target's end."""
    lm = subject.make()
    for prompts, candidates in ((None, 1), (_two(lm), 2)):
        found = lm.score(prompts, subject.texts, subject.targets)
        _hold(found.lengths.shape == (len(subject.texts),), "there is a length of each target", found.lengths)
        _hold((found.lengths > 0).all(), "every target has a token", found.lengths)
        wanted = (candidates, len(subject.texts), int(found.lengths.max()))
        _hold(found.values.shape == wanted, f"log-likelihoods of shape {wanted} are wanted", found.values.shape)
        _hold(found.values.dtype == np.float32, "log-likelihoods are float32", found.values.dtype)
        _hold(np.isfinite(found.values).all() and found.values.max() <= 0, "they are finite, at most 0", found.values)
        for n, length in enumerate(found.lengths):
            _hold(not found.values[:, n, length:].any(), f"they are 0 behind target {n}", found.values[:, n])


def a_text_has_the_same_likelihood_in_any_company(subject: TextSubject) -> None:
    """Alone, in another order and with other candidates, up to the tolerance."""
    lm = subject.make()
    both, n = _two(lm), len(subject.texts)
    whole = lm.score(both, subject.texts, subject.targets).totals
    turned = lm.score(both, subject.texts[::-1], subject.targets[::-1]).totals[:, ::-1]
    alone = lm.score(both, subject.texts[:1], subject.targets[:1]).totals
    for other, part in ((turned, whole), (alone, whole[:, :1])):
        off = float(np.abs(other - part).max())
        _hold(off <= n * subject.tolerance, f"likelihoods of one text differ by at most {subject.tolerance:g}", off)
    _hold(not np.array_equal(whole[0], whole[1]), "two prompts give different likelihoods", whole)


def logits_of_a_text_task_are_its_likelihoods(subject: TextSubject) -> None:
    """A text of train or dev has two classes: the reference is said, or not."""
    lm = subject.make()
    q = lm.logits(None, subject.texts)
    means = lm.score(None, subject.texts, subject.targets).means
    _hold(q.shape == (1, len(subject.texts), 2), "logits have two classes", q.shape)
    off = float(np.abs(q[..., 0] - means).max())
    _hold(off <= subject.tolerance, "the first one is the mean log-likelihood of the reference", off)


def a_text_is_charged_by_its_tokens(subject: TextSubject) -> None:
    """Each candidate costs the same, at least a row for each text; a longer output costs no less than a shorter one."""
    lm = subject.make()
    left = lm.budget.rows_left
    _hold(left == lm.budget.rows_total, "a new black box has its whole budget", lm.budget)
    costs = []
    for ask in (
        lambda: lm.score(None, subject.texts, subject.targets),
        lambda: lm.score(_two(lm), subject.texts, subject.targets),
        lambda: lm.generate(None, subject.texts, most_tokens=1, stop=()),
        lambda: lm.generate(None, subject.texts, most_tokens=6, stop=()),
    ):
        ask()
        costs.append(left - lm.budget.rows_left)
        left = lm.budget.rows_left
    _hold(min(costs) >= len(subject.texts), "a text costs at least a row", costs)
    _hold(costs[1] == 2 * costs[0], "two candidates cost twice what one costs", costs)
    _hold(costs[3] >= costs[2], "more tokens cost no less", costs)


def what_is_written_ends_as_it_was_asked(subject: TextSubject) -> None:
    """At a stop or at the limit; the same query gives the same texts, drawn ones included, and no output is empty."""
    lm, task = subject.make(), subject.task
    written, again = (lm.generate(None, subject.texts) for _ in range(2))
    _hold(written.texts == again.texts, "the same query gives the same texts", (written.texts, again.texts))
    shape = (1, len(subject.texts))
    _hold(written.tokens.shape == shape, f"tokens are counted by candidate and text: {shape}", written.tokens.shape)
    _hold(not written.cut, "what fits into the budget is not cut", written)
    sound = (written.tokens >= 1).all() and (written.tokens <= task.most_tokens).all()
    _hold(sound, f"outputs have 1 to {task.most_tokens} tokens", written.tokens)
    free = lm.generate(None, subject.texts[:1], stop=())
    first = free.texts[0][0][:1]
    if first:
        ended = lm.generate(None, subject.texts[:1], stop=(first,))
        _hold(ended.tokens.tolist() == [[1]], f"the stop {first!r} ends the output that begins with it", ended)
    drawn = [lm.generate(None, subject.texts[:1], temperature=1.0, seed=seed).texts for seed in (1, 1)]
    _hold(drawn[0] == drawn[1], "one seed gives one text", drawn)


def the_budget_ends_an_output(subject: TextSubject) -> None:
    """What was written until then is charged and given, with `cut`; where not even reading fits, nothing is charged."""
    lm = subject.make()
    whole = lm.generate(None, subject.texts, most_tokens=6, stop=())
    for _ in range(lm.budget.rows_total + 1):
        left = lm.budget.rows_left
        try:
            found = lm.generate(None, subject.texts, most_tokens=6, stop=())
        except BudgetExhausted:
            _hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)
            return
        _hold(0 <= lm.budget.rows_left < left, "what is written is charged, and no more than is left", lm.budget)
        for part, text in zip(found.texts[0], whole.texts[0], strict=True):
            _hold(text.startswith(part), "an output that is cut is the beginning of the whole one", (part, text))
        short = found.tokens.sum() < whole.tokens.sum()
        _hold(found.cut == short, "cut says whether the budget ended the writing", found)
        if found.cut:
            return
    raise ConformanceError("a budget ends; found: it did not")


def a_malformed_text_query_is_refused_and_costs_nothing(subject: TextSubject) -> None:
    """`QueryError` for targets, stops, limits, temperatures or templates that are none; also beyond the budget."""
    lm = subject.make()
    left, texts, one = lm.budget.rows_left, subject.texts, subject.texts[:1]
    wrong: tuple[Callable[[], object], ...] = (
        lambda: lm.score(None, texts, subject.targets[:-1]),
        lambda: lm.score(None, one, ("",)),
        lambda: lm.score(None, one, cast("Any", (3,))),
        lambda: lm.score(None, one, subject.targets[:1], template="{a} {mask}"),
        lambda: lm.generate(None, ()),
        lambda: lm.generate(None, one, most_tokens=0),
        lambda: lm.generate(None, one, most_tokens=1 << 16),
        lambda: lm.generate(None, one, stop=("",)),
        lambda: lm.generate(None, one, stop=("x",) * 17),
        lambda: lm.generate(None, one, temperature=-1.0),
        lambda: lm.generate(None, one, temperature=float("nan")),
        lambda: lm.generate(None, one, seed=-1),
        lambda: lm.generate(Prompt(np.zeros((1, 1, 1, lm.info.width + 1), dtype=np.float32)), one),
    )
    for n, ask in enumerate(wrong):
        _raises(QueryError, ask, f"malformed query {n}")
    z = np.zeros((left // len(texts) + 1, 1, 3))
    _raises(BudgetExhausted, lambda: lm.score(_space(lm).at(z), texts, subject.targets), "a query beyond the budget")
    _hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)


def _raises(kind: type[Exception], ask: Callable[[], object], what: str) -> None:
    try:
        ask()
    except kind:
        return
    except Exception as problem:
        raise ConformanceError(f"{kind.__name__} is wanted for {what}; found: {problem!r}") from problem
    raise ConformanceError(f"{kind.__name__} is wanted for {what}; the query was answered")


TEXT_CHECKS: tuple[Callable[[TextSubject], None], ...] = (
    likelihoods_have_one_row_per_candidate_and_text,
    a_text_has_the_same_likelihood_in_any_company,
    logits_of_a_text_task_are_its_likelihoods,
    a_text_is_charged_by_its_tokens,
    what_is_written_ends_as_it_was_asked,
    the_budget_ends_an_output,
    a_malformed_text_query_is_refused_and_costs_nothing,
)
"""Every check of a black box of a text task; those of `CHECKS` are for tasks with classes."""
