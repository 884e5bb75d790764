"""The meter: no sequence of queries spends more than the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.blackbox.meter import Meter
from harness.errors import BudgetExhausted, QueryError

counts = st.integers(-3, 60) | st.sampled_from([2**31, 2**62])


@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.tuples(counts, counts), max_size=60))
def test_no_sequence_of_queries_goes_over_budget_and_refusals_cost_nothing(
    calls: int, train_rows: int, queries: list[tuple[int, int]]
) -> None:
    meter, spent = Meter(calls, train_rows), 0
    for candidates, texts in queries:
        try:
            rows = meter.charge(candidates, texts)
        except BudgetExhausted:
            assert candidates * texts > calls * train_rows - spent  # refused only where it does not fit, and whole
        except QueryError:
            assert candidates <= 0 or texts <= 0
        else:
            assert rows == candidates * texts > 0
            spent += rows
        assert meter.spent == spent <= calls * train_rows
        assert meter.budget.rows_left == calls * train_rows - spent
        assert meter.budget.calls_left == meter.budget.rows_left / train_rows


def test_the_last_row_can_be_spent_and_then_nothing_more() -> None:
    meter = Meter(calls=2, train_rows=3)
    meter.charge(1, 5)
    with pytest.raises(BudgetExhausted):
        meter.charge(1, 2)
    assert meter.charge(1, 1) == 1
    assert meter.budget.rows_left == 0
    with pytest.raises(BudgetExhausted):
        meter.charge(1, 1)


def test_a_call_is_one_prompt_over_the_training_set() -> None:
    meter = Meter(calls=300, train_rows=32)
    assert meter.budget.calls_total == 300
    meter.charge(20, 32)
    assert meter.budget.calls_left == 280


def test_a_refusal_says_the_numbers_and_what_to_do() -> None:
    meter = Meter(calls=3000, train_rows=32)
    meter.charge(1, 95_983)
    with pytest.raises(BudgetExhausted, match=r"640 rows asked, 17 of 96,000 left; yield an answer") as refused:
        meter.charge(20, 32)
    assert (refused.value.rows_asked, refused.value.rows_left, refused.value.rows_total) == (640, 17, 96_000)


def test_numpy_integers_cannot_overflow_into_a_free_query() -> None:
    meter = Meter(calls=10, train_rows=10)
    with pytest.raises(BudgetExhausted):
        meter.charge(np.int32(2**31 - 1), np.int32(2**31 - 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        meter.charge(float("nan"), 1)  # type: ignore[arg-type]
    assert meter.spent == 0


@pytest.mark.parametrize(("calls", "rows"), [(0, 1), (1, 0), (-1, 5)])
def test_a_budget_of_nothing_is_refused(calls: int, rows: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Meter(calls, rows)


def test_a_price_alone_charges_nothing() -> None:
    meter = Meter(2, 10)
    assert meter.price(1, 15) == 15
    assert meter.spent == 0
    meter.spend(15)
    assert meter.budget.rows_left == 5
    with pytest.raises(BudgetExhausted, match="6 rows asked, 5 of 20 left"):
        meter.price(1, 6)
    assert meter.spent == 15


@pytest.mark.parametrize("spent", [-1, 21])
def test_a_meter_starts_within_its_budget(spent: int) -> None:
    assert Meter(2, 10, 20).budget.rows_left == 0
    with pytest.raises(ValueError, match="rows cannot be spent already of 20"):
        Meter(2, 10, spent)
