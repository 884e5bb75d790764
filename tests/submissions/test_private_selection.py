"""private_selection keeps its guarantee: the mechanism's odds, and nothing else of the examples in the answer."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract import Coordinates

if TYPE_CHECKING:
    from .conftest import Bench

DRAWS = 4000


def odds(utilities: list[int], epsilon: float) -> np.ndarray:
    """Pr[c] of the exponential mechanism."""
    weights = np.exp(epsilon / 2 * (np.array(utilities) - max(utilities)))
    return np.asarray(weights / weights.sum())


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(-1, 1)), min_size=2, max_size=13),
    st.floats(0.05, 8),
)
def test_one_example_changes_no_odds_by_more_than_epsilon(pairs: list[tuple[int, int]], epsilon: float) -> None:
    one, other = [u for u, _ in pairs], [u + change for u, change in pairs]
    ratio = np.log(odds(one, epsilon)) - np.log(odds(other, epsilon))
    assert np.abs(ratio).max() <= epsilon + 1e-9


def test_it_draws_by_these_odds(bench: Bench) -> None:
    rng, utilities, epsilon = np.random.default_rng(0), [10, 12, 13, 9], 0.8
    module = bench.load("private_selection")
    drawn = np.bincount([module.exponential(utilities, epsilon, rng) for _ in range(DRAWS)], minlength=4) / DRAWS
    assert np.abs(drawn - odds(utilities, epsilon)).max() < 4 * math.sqrt(0.25 / DRAWS)


def test_replacing_an_example_changes_a_utility_by_at_most_one(bench: Bench) -> None:
    rng, right = np.random.default_rng(1), bench.load("private_selection").right
    q, labels = rng.standard_normal((12, 3)), rng.integers(3, size=12)
    for place, label in itertools.product(range(12), range(3)):
        other, theirs = q.copy(), labels.copy()
        other[place], theirs[place] = rng.standard_normal(3), label
        assert abs(right(q, labels) - right(other, theirs)) <= 1


@pytest.mark.parametrize("classes", [2, 3])
def test_the_answer_holds_candidates_and_nothing_of_the_examples(bench: Bench, classes: int) -> None:
    run = bench.run("private_selection", classes=classes)
    first, last = run.answers
    assert first.note == last.note == {}
    (member,) = last.members
    assert (member.template, member.words, member.head) == (run.task.template, run.task.words, None)
    assert member.shift is not None
    assert member.shift[0] == 0
    grid = np.linspace(-3, 3, 13)
    assert all(np.abs(grid - value).min() < 1e-12 for value in member.shift)
    assert member.prompt is None or isinstance(member.prompt, Coordinates)
    assert not run.lm.budget.rows_left < 0
    assert not run.ended_by_budget


def test_with_a_large_epsilon_it_chooses_the_best(bench: Bench) -> None:
    run = bench.run("private_selection", epsilon=1000.0)
    assert run.accuracy(run.answers[-1]) >= run.accuracy(run.answers[0])


def test_the_account_of_the_library() -> None:
    pytest.importorskip("dp_accounting", reason="needs dp-accounting, in an environment of its own")
    from tools.dp_account import account

    assert account(2.0, 2, 0.0) == 2.0
    assert 1.9 < account(2.0, 7, 1e-5) <= 2.0
