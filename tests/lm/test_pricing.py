"""A query is checked, charged, forwarded and committed in this order, whatever it is sent over."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.blackbox import wire
from harness.blackbox.fake import fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.query import Query
from harness.contract import Prompt, Subspace
from harness.errors import BudgetExhausted, QueryError, StoreError

if TYPE_CHECKING:
    from harness.blackbox.answered import Answered

TASK = fake_task()
TEXTS = (("w1 w2 w3",), ("w4 w5",))
CALLS = 3
SPACE = Subspace(4, (1.0, 1.0), 2, seed=1)


class Watched(Meter):
    """A meter that counts how often the budget is checked."""

    looks = 0

    def price(self, candidates: int, texts: int) -> int:
        """See `Meter`."""
        self.looks += 1
        return super().price(candidates, texts)


class QueryHandler:
    """One model, one meter, and what was committed."""

    def __init__(self, reply_bytes: int = 1 << 20) -> None:
        self.lm: Any = FakeLanguageModel(TASK)
        self.priced = PricedModel(self.lm, TASK, 1 << 20, reply_bytes)
        self.meter = Watched(CALLS, len(TEXTS))
        self.committed: list[Answered] = []

    def ask(self, query: Query, body: bytes = b"as it came") -> Answered:
        """Ask, and keep what is committed."""
        return self.priced.answer(query, body, self.meter, self.committed.append)


def test_the_budget_is_looked_at_once_on_the_way() -> None:
    desk = QueryHandler()
    desk.ask(Query(TEXTS))
    assert desk.meter.looks == 1


def test_a_query_is_charged_forwarded_and_committed_with_the_digest_of_both_ways() -> None:
    desk = QueryHandler()
    answered = desk.ask(Query(TEXTS, prompts=SPACE.at(np.ones((2, 2, 4)))))
    assert desk.committed == [answered]
    assert (desk.meter.spent, desk.lm.forwards) == (4, 1)
    result = wire.decode_reply(answered.frame[wire.PREFIX :])
    assert isinstance(result, wire.Result)
    assert (result.rows_left, result.logits.shape) == (2, (2, 2, 2))
    row = answered.row
    assert (row.rows, row.level, row.bytes_up, row.bytes_down) == (4, 2, 10, len(answered.frame))
    assert row.tokens == 2 * (5 + 2 * 2)  # two candidates x (five words and two prompt tokens a text)
    assert row.sha256 == hashlib.sha256(b"as it came" + answered.frame).hexdigest()
    assert (answered.nominal_up, answered.nominal_down) == (3 * 2 * 5 + 4 * 16, 4 * 8)


def test_nothing_is_sent_that_could_not_be_committed() -> None:
    desk = QueryHandler()

    def full(_answered: Answered) -> None:
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        desk.priced.answer(Query(TEXTS), b"", desk.meter, full)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (Query(TEXTS * 4), BudgetExhausted),
        (Query(()), QueryError),
        (Query(TEXTS, template="{b} {mask}"), QueryError),
        (Query(TEXTS, words=()), QueryError),
        (Query(TEXTS, words=(" two words",)), QueryError),
        (Query(TEXTS, prompts=Prompt(np.zeros((1, 9, 2, 16), dtype=np.float32))), QueryError),
        (Query(TEXTS, prompts=Prompt(np.zeros((0, 1, 2, 16), dtype=np.float32))), QueryError),
    ],
)
def test_a_refused_query_costs_nothing_and_reaches_no_model(query: Query, problem: type[Exception]) -> None:
    desk = QueryHandler()
    with pytest.raises(problem):
        desk.ask(query)
    assert (desk.meter.spent, desk.lm.forwards, desk.committed) == (0, 0, [])


def test_a_reply_that_no_frame_holds_costs_nothing() -> None:
    desk = QueryHandler(reply_bytes=100)
    with pytest.raises(QueryError, match=r"the reply would have 144 bytes; 100 are allowed"):
        desk.ask(Query(TEXTS, features="mask"))
    assert (desk.meter.spent, desk.lm.forwards) == (0, 0)


def test_a_query_of_more_than_is_left_is_refused_before_its_texts_are_read() -> None:
    """So that nobody has the referee tokenise for nothing."""
    desk = QueryHandler()
    desk.lm.text_set = None
    with pytest.raises(BudgetExhausted, match="8 rows asked, 6 of 6 left"):
        desk.ask(Query(TEXTS * 4))


def test_texts_are_counted_with_those_declared_before() -> None:
    priced = QueryHandler().priced
    size = priced.check_texts(TEXTS)
    assert size == 2 * 64 + 8 + 5
    with pytest.raises(QueryError, match="Reuse text sets"):
        priced.check_texts(TEXTS, declared=(64 << 20) - size + 1)
    with pytest.raises(QueryError, match="2 fields"):
        priced.check_texts((("a", "b"),))


# ── the size of a row ────────────────────────────────────────────────────────────────────────────────────────────────

WORDS_OF = {"short": ("one two three",), "full": ("a b c d",), "long": ("a b c d e",), "packed": (" ".join("x" * 12),)}


@pytest.mark.parametrize(("name", "rows"), [("short", 1), ("full", 1), ("long", 2), ("packed", 3)])
@pytest.mark.parametrize("features", [None, "mask", "all"])
def test_a_text_costs_as_many_rows_as_its_tokens_fill(name: str, rows: int, features: Any) -> None:
    """Texts packed into one cost what they cost one by one, or nearly so."""
    desk = QueryHandler()
    desk.priced = dataclasses.replace(desk.priced, row_tokens=4)
    answered = desk.ask(Query((WORDS_OF[name],), features=features))
    assert answered.row.rows == desk.meter.spent == rows


def test_each_candidate_pays_for_the_length() -> None:
    desk = QueryHandler()
    desk.priced = dataclasses.replace(desk.priced, row_tokens=4)
    assert desk.ask(Query((WORDS_OF["long"], WORDS_OF["short"]), prompts=SPACE.at(np.ones((2, 2, 4))))).row.rows == 6


@pytest.mark.parametrize(("features", "rows"), [(None, 1), ("mask", 1), ("cls", 1), ("all", 3)])
def test_texts_in_a_template_are_free_unless_the_features_of_all_tokens_are_asked_for(features: Any, rows: int) -> None:
    """Demonstrations are context; with all features each of them would be answered for."""
    desk = QueryHandler()
    desk.priced = dataclasses.replace(desk.priced, row_tokens=4)
    packed = f"y y y y y y y {TASK.template}"
    assert desk.ask(Query((WORDS_OF["full"],), template=packed, features=features)).row.rows == rows


def test_a_long_text_that_does_not_fit_into_the_budget_costs_nothing() -> None:
    desk = QueryHandler()
    desk.priced = dataclasses.replace(desk.priced, row_tokens=1)
    with pytest.raises(BudgetExhausted, match="12 rows asked, 6 of 6 left"):
        desk.ask(Query((WORDS_OF["packed"],)))
    assert (desk.meter.spent, desk.committed, desk.lm.forwards) == (0, [], 0)


def test_without_a_size_a_text_is_one_row() -> None:
    assert QueryHandler().ask(Query((WORDS_OF["packed"],), features="all")).row.rows == 1
