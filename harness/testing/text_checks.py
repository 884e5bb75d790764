"""The checks of a black box of a task whose answer is text; `harness.testing` says how they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from harness.contract import Prompt
from harness.errors import BudgetExhausted, QueryError
from harness.testing.checks import ConformanceError, hold, small_space, two_candidates

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract import Shots, Text, TextBlackBox, TextTask


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
    for prompts, candidates in ((None, 1), (two_candidates(lm), 2)):
        found = lm.score(prompts, subject.texts, subject.targets)
        hold(found.lengths.shape == (len(subject.texts),), "there is a length of each target", found.lengths)
        hold((found.lengths > 0).all(), "every target has a token", found.lengths)
        wanted = (candidates, len(subject.texts), int(found.lengths.max()))
        hold(found.values.shape == wanted, f"log-likelihoods of shape {wanted} are wanted", found.values.shape)
        hold(found.values.dtype == np.float32, "log-likelihoods are float32", found.values.dtype)
        hold(np.isfinite(found.values).all() and found.values.max() <= 0, "they are finite, at most 0", found.values)
        for n, length in enumerate(found.lengths):
            hold(not found.values[:, n, length:].any(), f"they are 0 behind target {n}", found.values[:, n])


def a_text_has_the_same_likelihood_in_any_company(subject: TextSubject) -> None:
    """Alone, in another order and with other candidates, up to the tolerance."""
    lm = subject.make()
    both, n = two_candidates(lm), len(subject.texts)
    whole = lm.score(both, subject.texts, subject.targets).totals
    turned = lm.score(both, subject.texts[::-1], subject.targets[::-1]).totals[:, ::-1]
    alone = lm.score(both, subject.texts[:1], subject.targets[:1]).totals
    for other, part in ((turned, whole), (alone, whole[:, :1])):
        off = float(np.abs(other - part).max())
        hold(off <= n * subject.tolerance, f"likelihoods of one text differ by at most {subject.tolerance:g}", off)
    hold(not np.array_equal(whole[0], whole[1]), "two prompts give different likelihoods", whole)


def logits_of_a_text_task_are_its_likelihoods(subject: TextSubject) -> None:
    """A text of train or dev has two classes: the reference is said, or not."""
    lm = subject.make()
    q = lm.logits(None, subject.texts)
    means = lm.score(None, subject.texts, subject.targets).means
    hold(q.shape == (1, len(subject.texts), 2), "logits have two classes", q.shape)
    off = float(np.abs(q[..., 0] - means).max())
    hold(off <= subject.tolerance, "the first one is the mean log-likelihood of the reference", off)


def a_text_is_charged_by_its_tokens(subject: TextSubject) -> None:
    """Each candidate costs the same, at least a row for each text; a longer output costs no less than a shorter one."""
    lm = subject.make()
    left = lm.budget.rows_left
    hold(left == lm.budget.rows_total, "a new black box has its whole budget", lm.budget)
    costs = []
    for ask in (
        lambda: lm.score(None, subject.texts, subject.targets),
        lambda: lm.score(two_candidates(lm), subject.texts, subject.targets),
        lambda: lm.generate(None, subject.texts, most_tokens=1, stop=()),
        lambda: lm.generate(None, subject.texts, most_tokens=6, stop=()),
    ):
        ask()
        costs.append(left - lm.budget.rows_left)
        left = lm.budget.rows_left
    hold(min(costs) >= len(subject.texts), "a text costs at least a row", costs)
    hold(costs[1] == 2 * costs[0], "two candidates cost twice what one costs", costs)
    hold(costs[3] >= costs[2], "more tokens cost no less", costs)


def what_is_written_ends_as_it_was_asked(subject: TextSubject) -> None:
    """At a stop or at the limit; the same query gives the same texts, drawn ones included, and no output is empty."""
    lm, task = subject.make(), subject.task
    written, again = (lm.generate(None, subject.texts) for _ in range(2))
    hold(written.texts == again.texts, "the same query gives the same texts", (written.texts, again.texts))
    shape = (1, len(subject.texts))
    hold(written.tokens.shape == shape, f"tokens are counted by candidate and text: {shape}", written.tokens.shape)
    hold(not written.cut, "what fits into the budget is not cut", written)
    sound = (written.tokens >= 1).all() and (written.tokens <= task.most_tokens).all()
    hold(sound, f"outputs have 1 to {task.most_tokens} tokens", written.tokens)
    free = lm.generate(None, subject.texts[:1], stop=())
    first = free.texts[0][0][:1]
    if first:
        ended = lm.generate(None, subject.texts[:1], stop=(first,))
        hold(ended.tokens.tolist() == [[1]], f"the stop {first!r} ends the output that begins with it", ended)
    drawn = [lm.generate(None, subject.texts[:1], temperature=1.0, seed=seed).texts for seed in (1, 1)]
    hold(drawn[0] == drawn[1], "one seed gives one text", drawn)


def the_budget_ends_an_output(subject: TextSubject) -> None:
    """What was written until then is charged and given, with `cut`; where not even reading fits, nothing is charged."""
    lm = subject.make()
    total = lm.budget.rows_left
    whole = lm.generate(None, subject.texts, most_tokens=6, stop=())
    cost = total - lm.budget.rows_left
    lm.generate(None, subject.texts, most_tokens=1, stop=())
    least = total - cost - lm.budget.rows_left
    for _ in range(cost):  # until what is left at the end is enough to read, and not to write
        if lm.budget.rows_left % cost >= least:
            break
        lm.score(None, subject.texts[:1], subject.targets[:1])
    for _ in range(lm.budget.rows_total + 1):
        left = lm.budget.rows_left
        try:
            found = lm.generate(None, subject.texts, most_tokens=6, stop=())
        except BudgetExhausted:
            hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)
            return
        hold(0 <= lm.budget.rows_left < left, "what is written is charged, and no more than is left", lm.budget)
        for part, text in zip(found.texts[0], whole.texts[0], strict=True):
            hold(text.startswith(part), "an output that is cut is the beginning of the whole one", (part, text))
        short = found.tokens.sum() < whole.tokens.sum()
        hold(found.cut == short, "cut says whether the budget ended the writing", found)
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
    _raises(
        BudgetExhausted, lambda: lm.score(small_space(lm).at(z), texts, subject.targets), "a query beyond the budget"
    )
    hold(lm.budget.rows_left == left, "a refused query costs nothing", lm.budget)


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
