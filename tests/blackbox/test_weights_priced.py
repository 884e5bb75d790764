"""What changes of weights cost, what is refused of them, and how they are recorded; over the fake model."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from harness.blackbox import defence, wire
from harness.blackbox import weights as limits
from harness.blackbox.answer_price import check_price, price
from harness.blackbox.client import Asking
from harness.blackbox.fake import fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.query import Query
from harness.contract import Answer, Member, Prompt, WeightSpace
from harness.errors import AnswerError, QueryError
from harness.solving.answers import probabilities, to_bytes
from harness.tracks.limits import AnswerLimits

TASK = fake_task()
TEXTS = (("w1 w2 w3",), ("w4 w5",))
SPACE = WeightSpace("biases", 4, 0.1, 1)
WALKS = WeightSpace("all", 0, 0.01, 1)
PROMPT = Prompt(np.ones((1, 1, 2, 16), dtype=np.float32))


class Desk:
    """One model, one meter, and what was committed."""

    def __init__(self, **limits: Any) -> None:
        self.lm: Any = FakeLanguageModel(TASK)
        self.priced = PricedModel(self.lm, TASK, 1 << 20, 1 << 20, answer_limits=AnswerLimits(1.0, **limits))
        self.meter = Meter(10, len(TEXTS))
        self.committed: list[Any] = []

    def ask(self, prompts: Any, features: Any = None) -> Any:
        """Ask, and keep what is committed."""
        return self.priced.answer(
            Query(TEXTS, prompts=prompts, features=features), b"", self.meter, self.committed.append
        )


def test_a_candidate_on_a_text_is_a_row_and_its_level_is_that_of_weights() -> None:
    desk = Desk()
    desk.ask(SPACE.at(np.ones((3, 4))))
    desk.ask(SPACE.at(np.ones(4), PROMPT), "mask")
    desk.ask(WALKS.walk([1, 2], [0.5, 0.5]))
    assert [(each.row.rows, each.row.level) for each in desk.committed] == [(6, 5), (2, 5), (2, 5)]
    assert desk.meter.spent == 10
    text = 3 * (sum(len(text[0].split()) for text in TEXTS))  # tokens of the fake are words
    assert [each.nominal_up for each in desk.committed] == [3 * text + 4 * 12, text + 4 * (4 + 32), text + 4 * 4]


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (WeightSpace("biases", 4, 0.1, 1, (3,)).at(np.ones(4)), "the model has 3"),
        (WeightSpace("all", 2**20, 0.1, 1).at(np.ones(2**20)), "directions of .* weights take .* GiB"),
        (WALKS.walk(np.ones(2**16 + 1, dtype=int), np.ones(2**16 + 1)), "a walk of 65,537 steps; 65,536 are allowed"),
        (SPACE.at(np.ones((2, 4)), Prompt(np.ones((2, 1, 9, 16)))), "prompt of shape"),
    ],
)
def test_what_is_refused_costs_nothing(prompts: Any, says: str) -> None:
    desk = Desk()
    with pytest.raises(QueryError, match=says):
        desk.ask(prompts)
    assert desk.meter.spent == 0
    with pytest.raises(QueryError, match="answer refused"):
        desk.priced.offered(to_bytes(Answer.of(TASK, prompts)) if len(prompts) == 1 else b"")


class Wild(Asking):
    """Replies with what it is given."""

    def __init__(self, logits: Any) -> None:
        self.result = wire.Result(0, wire.Array.of(np.array(logits, dtype=np.float32)))

    def _query(self, query: Query) -> wire.Result:
        return self.result


def test_a_reply_that_is_not_finite_says_which_candidates_are_too_far() -> None:
    nan = float("nan")
    with pytest.raises(QueryError, match=r"for 2 of 3 candidates \(number 0, 2\). The query was charged") as told:
        Wild([[[1.0, nan]], [[1.0, 1e6]], [[2e6, 1.0]]]).logits(WALKS.walk([1], [1e6]), TEXTS)
    assert "smaller std" in str(told.value)
    assert Wild([[[1.0, 1e6]]]).logits(None, TEXTS).tolist() == [[[1.0, 1e6]]]


def test_candidates_that_are_computed_together_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_UNFOLDED", 4 * 3 * 528)
    desk = Desk()
    desk.ask(SPACE.at(np.ones((3, 4))))
    with pytest.raises(QueryError, match=r"4 candidates of 528 weights take 8,448 bytes; 6,336 are allowed"):
        desk.ask(SPACE.at(np.ones((4, 4))))


def test_the_directions_of_an_answer_s_weights_are_projections() -> None:
    lm: Any = FakeLanguageModel(TASK)
    other = msgspec.structs.replace(SPACE, seed=2)
    members = tuple(Member.of(TASK, space.at(np.ones(4))) for space in (SPACE, SPACE, other))
    found = price(Answer(members), lm, TEXTS)
    assert found.projection_bytes == 2 * 4 * 4 * 528
    assert found.drawn == 0
    with pytest.raises(AnswerError, match="projections take"):
        check_price(found, AnswerLimits(1.0, projection_bytes=100))
    desk = Desk(projection_bytes=100)
    with pytest.raises(QueryError, match="Lower dim, name fewer layers, or walk"):
        desk.ask(SPACE.at(np.ones(4)))


def test_a_walk_has_the_price_of_the_numbers_that_are_drawn_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lm: Any = FakeLanguageModel(TASK)
    walk = WALKS.walk([1, 2, 3], [0.5, 0.0, 0.5])
    found = price(Answer.of(TASK, walk), lm, TEXTS)
    assert found.drawn == 2 * lm.weight_count(WALKS)
    monkeypatch.setattr("harness.blackbox.answer_price.MOST_DRAWN", found.drawn - 1)
    with pytest.raises(AnswerError, match="its walks draw"):
        check_price(found, AnswerLimits(1.0))


def test_an_answer_is_applied_as_its_query_was_answered() -> None:
    desk = Desk()
    both = SPACE.at(np.full(4, 2.0), PROMPT) + WALKS.walk([7], [3.0])
    for prompts in (SPACE.at(np.full(4, 2.0)), SPACE.at(np.ones(4), PROMPT), WALKS.walk([7], [3.0]), both):
        answer = desk.priced.offered(to_bytes(Answer.of(TASK, prompts)))
        q = desk.lm.fake.outputs(prompts, TEXTS, TASK.template, TASK.words)
        p = Member.of(TASK).probabilities(q)[0]
        assert np.allclose(probabilities(answer, TASK, desk.lm, TEXTS), p)
        bare = desk.lm.fake.outputs(None, TEXTS, TASK.template, TASK.words)
        assert not np.allclose(q.logits, bare.logits)


def test_weights_move_the_fake_as_a_subspace_and_a_walk_alike() -> None:
    fake = FakeLanguageModel(TASK).fake
    space = WeightSpace("norms", 2, 0.1, 3)
    z = np.array([1.5, -2.0])
    point = fake.outputs(space.at(z), TEXTS, TASK.template, TASK.words).logits
    walked = fake.outputs(space.walk([0, 1], z / np.sqrt(2)), TEXTS, TASK.template, TASK.words).logits
    assert np.allclose(point, walked, atol=1e-5)
    assert len(fake.outputs(space.at(np.ones((3, 2)), PROMPT), TEXTS, TASK.template, TASK.words).logits) == 3


def test_a_sum_has_the_price_of_its_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    lm: Any = FakeLanguageModel(TASK)
    other = msgspec.structs.replace(SPACE, seed=2)
    walk = WALKS.walk([1, 2, 3], [0.5, 0.0, 0.5])
    found = price(Answer.of(TASK, SPACE.at(np.ones(4)) + other.at(np.ones(4)) + SPACE.at(np.ones(4)) + walk), lm, TEXTS)
    assert found.projection_bytes == 2 * 4 * 4 * 528
    assert found.drawn == 2 * lm.weight_count(WALKS)
    desk = Desk(projection_bytes=4 * 4 * 528)
    desk.ask(SPACE.at(np.ones((3, 4))) + SPACE.at(np.ones(4)))
    assert desk.committed[0].row.rows == 6
    with pytest.raises(QueryError, match="8 directions of 1,056 weights"):
        desk.ask(SPACE.at(np.ones((3, 4))) + other.at(np.ones(4)))
    monkeypatch.setattr(limits, "MOST_UNFOLDED", 4 * 3 * 528)
    with pytest.raises(QueryError, match=r"3 candidates of 1,056 weights take 12,672 bytes"):
        Desk().ask(SPACE.at(np.ones((3, 4))) + other.at(np.ones(4)))
    with pytest.raises(QueryError, match="the model has 3"):
        Desk().ask(SPACE.at(np.ones(4)) + WeightSpace("biases", 4, 0.1, 1, (3,)).at(np.ones(4)))


def test_changes_of_a_sum_move_the_fake_together() -> None:
    fake = FakeLanguageModel(TASK).fake
    one, two = WeightSpace("norms", 2, 0.1, 3), WeightSpace("attention", 2, 0.1, 4, rank=2)
    kinds = one.at([1, 2]), one.at([1, 2]) + two.at(np.eye(2)), two.at([1, 0]), one.at([0, 0]) + two.at([1, 0])
    q = [fake.outputs(each, TEXTS, TASK.template, TASK.words).logits for each in kinds]
    assert len(q[1]) == 2
    assert not np.allclose(q[0][0], q[1][0])
    assert np.allclose(q[2], q[3])


def test_rows_of_a_sum_are_told_apart_by_every_change() -> None:
    sums = SPACE.at(np.eye(4)[:2]) + WALKS.walk([1], [1.0]), SPACE.at(np.eye(4)[:2]) + WALKS.walk([2], [1.0])
    rows = [defence.asked(Query(TEXTS, prompts=each), "{a}", [1]).rows for each in (*sums, SPACE.at(np.eye(4)[:2]))]
    assert [len(each) for each in rows] == [4, 4, 4]
    assert len(set.union(*map(set, rows))) == 12
