"""A problem is a function of a vector: its values, its price, its spaces, its noise, and its one test score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.blackbox.fake import FakeLM, fake_shots, fake_task
from harness.errors import BudgetExhausted, InputError, QueryError
from harness.problems.spaces import Choice, Real

TEMPLATES = ("{a} . It was {mask} .", "{a} . All in all , {mask} .", "Just {mask} : {a}")
WORDS = ((" class0", " w1", " w2"), (" class1", " w3"))


def fake(**changes: Any) -> Any:
    return harness.problem("fake", **{"budget": 50, "dim": 6} | changes)


def test_a_value_is_the_loss_of_the_prompt_at_the_point() -> None:
    problem = fake(seed=3)
    z = np.random.default_rng(0).standard_normal((4, 6))
    losses = problem(z)
    task = fake_task()
    shots = fake_shots(task, np.random.default_rng(1))
    lm = FakeLM.for_task(task, shots, 10)
    space = harness.Subspace(
        6, (lm.info.hidden_std[0],), lm.info.prompt_tokens, int(np.random.default_rng(3).integers(2**62))
    )
    assert losses == pytest.approx(harness.cross_entropy(lm.logits(space.at(z), shots.train.texts), shots.train.labels))
    assert problem(z[2]) == losses[2]
    assert isinstance(problem(z[2]), float)


def test_one_evaluation_costs_one_call_and_the_budget_is_never_exceeded() -> None:
    problem = fake(budget=10)
    assert (problem.budget_total, problem.budget_left, problem.evaluations) == (10, 10, 0)
    problem(np.zeros((7, 6)))
    assert problem.budget_left == 3
    with pytest.raises(BudgetExhausted, match="left"):
        problem(np.zeros((4, 6)))
    assert problem.budget_left == 3
    assert problem.evaluations == 7
    problem(np.zeros((3, 6)))
    with pytest.raises(BudgetExhausted):
        problem(np.zeros(6))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=12), st.sampled_from([None, 5, 32]))
def test_what_was_asked_is_what_was_paid(sizes: list[int], minibatch: int | None) -> None:
    problem = fake(budget=20, minibatch=minibatch)
    rows_before = problem._cell.lm.budget.rows_left
    asked = 0
    for size in sizes:
        try:
            problem.evaluate(np.ones((size, 6)))
        except BudgetExhausted:
            break
        asked += size
    assert problem.evaluations == asked == len(problem.losses) == len(problem.points)
    spent = rows_before - problem._cell.lm.budget.rows_left
    assert spent <= asked * (minibatch or 32)
    assert spent == asked * 32 or minibatch is not None


@pytest.mark.parametrize(
    ("z", "says"),
    [
        (np.zeros(5), r"\(1, 5\)|\(5,\)"),
        (np.zeros((2, 7)), "7"),
        (np.zeros((0, 6)), "at least 1"),
        (np.zeros((1, 2, 3)), "shape"),
        (np.full(6, np.nan), "not finite"),
        (np.full((3, 6), np.inf), "3 of 3"),
        (3.0, "shape"),
    ],
)
def test_points_that_are_none_are_refused_and_cost_nothing(z: Any, says: str) -> None:
    problem = fake()
    with pytest.raises(QueryError, match=says):
        problem(z)
    assert problem.budget_left == 50


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": "ocean"}, "input, deep"),
        ({"dim": 0}, "at least 1"),
        ({"alpha": -1.0}, "alpha"),
        ({"loss": "mse"}, "cross_entropy"),
        ({"minibatch": 0}, "1 to 32"),
        ({"minibatch": 33}, "1 to 32"),
        ({"budget": 0}, "positive"),
        ({"space": "template"}, "templates="),
        ({"space": "template", "templates": "one {mask}"}, "as a list"),
        ({"space": "template", "templates": ("{a} {mask}",)}, "something to choose"),
        ({"space": "words", "words": (("a",),)}, "2 classes"),
        ({"space": "words", "words": ("bad", "good")}, "for each class"),
        ({"url": "http://x", "token": "t"}, "leave out budget"),
    ],
)
def test_arguments_that_make_no_sense_say_what_would(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        fake(**changes)


def test_an_unknown_task_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="sst2"):
        harness.problem("nowhere")


def test_spaces_have_the_variables_that_they_name() -> None:
    assert [fake(space=name, words=WORDS).dimension for name in ("input", "deep", "words")] == [6, 18, 2]
    mixed = fake(space="mixed", words=WORDS, templates=TEMPLATES)
    assert [type(each) for each in mixed.variables] == [Real] * 6 + [Choice] * 3
    assert mixed.bounds.tolist() == [[-5, 5]] * 6 + [[0, 2], [0, 2], [0, 1]]


def test_words_are_drawn_from_the_vocabulary_and_no_two_classes_share_one() -> None:
    one, two = (fake(space="words", seed=seed).variables for seed in (1, 2))
    assert [len(each.values) for each in one] == [32, 32]
    assert one[0].values[0] == " class0"
    assert not set(one[0].values) & set(one[1].values)
    assert one != two
    assert one == fake(space="words", seed=1).variables


def test_a_choice_is_rounded_and_clipped() -> None:
    problem = fake(space="words", words=WORDS)
    losses = problem(np.array([[0, 0], [0.4, -0.4], [-9, 0.2], [1, 0], [9, 9], [2, 1]]))
    assert losses[0] == losses[1] == losses[2]
    assert losses[4] == losses[5]
    assert losses[0] != losses[3]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 9))
def test_a_batch_of_mixed_points_has_the_losses_that_each_has_alone(seed: int, count: int) -> None:
    problem = fake(space="mixed", words=WORDS, templates=TEMPLATES)
    low, high = problem.bounds.T
    z = np.random.default_rng(seed).uniform(low, high, (count, problem.dimension))
    together = problem(z)
    assert together.tolist() == [problem(each) for each in z]
    assert problem.budget_left == 50 - 2 * count


def test_a_minibatch_is_noise_at_the_price_of_its_texts() -> None:
    one, two, other = (fake(minibatch=8, seed=seed) for seed in (1, 1, 2))
    assert one.budget_total == 200
    z = np.zeros(6)
    values = [one(z) for _ in range(12)]
    assert len(set(values)) > 8
    assert values == [two(z) for _ in range(12)]
    assert values != [other(z) for _ in range(12)]
    assert np.mean(values) == pytest.approx(fake(seed=1)(z), rel=1e-9)  # 12 batches are three epochs


def test_candidates_of_one_call_share_their_minibatch() -> None:
    problem = fake(minibatch=4)
    assert len(set(problem(np.zeros((3, 6))))) == 1


def test_the_test_score_is_told_once_and_ends_the_problem() -> None:
    problem = fake()
    with pytest.raises(InputError, match="no candidate"):
        problem.test_score()
    problem(np.random.default_rng(0).standard_normal((20, 6)))
    score = problem.test_score()
    assert 0.5 < score <= 1
    assert problem.test_score() == score
    assert problem.budget_left == 0
    with pytest.raises(InputError, match="once"):
        problem.test_score(np.zeros(6))
    with pytest.raises(QueryError, match="ends a problem"):
        problem(np.zeros(6))


def test_what_an_optimizer_recommends_is_scored_instead_of_the_best() -> None:
    best, worst = fake(), fake()
    z = np.random.default_rng(0).standard_normal((30, 6))
    losses = best(z)
    worst(z)
    assert best.best.z.tolist() == z[losses.argmin()].tolist()
    assert best.best.evaluation == losses.argmin() + 1
    assert worst.test_score(z[losses.argmax()]) < best.test_score()


def test_a_planted_optimum_is_found_to_generalise() -> None:
    """The gap: more search gives less training loss, and on the fake model a better test score."""
    little, much = fake(budget=300), fake(budget=300)
    z = np.random.default_rng(0).standard_normal((300, 6))
    little(z[:2])
    much(z)
    assert much.best.loss < little.best.loss
    assert much.test_score() > little.test_score()
