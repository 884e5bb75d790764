"""`harness.problem` over a service: the model, the meter and the ledger are there."""

from __future__ import annotations

import numpy as np
import pytest
from small_service import CALLS, TASK, TRAIN, House, served

import harness
from harness.errors import BudgetExhausted, InputError, QueryError
from harness.solving.answers import from_bytes


def test_a_problem_is_optimised_over_http_and_its_answer_is_handed_in(house: House) -> None:
    z = np.random.default_rng(0).standard_normal((CALLS, 4))
    with (
        served(house.app) as url,
        harness.problem(TASK.name, split=1, dim=4, seed=2, url=url, token=house.token) as problem,
    ):
        assert problem.budget_total == problem.budget_left == CALLS
        losses = problem(z)
        with pytest.raises(BudgetExhausted):
            problem(z[0])
        assert problem.test_score() is None
        with pytest.raises(QueryError, match="ends a problem"):
            problem(z[0])
    assert house.ledger == [CALLS * TRAIN]
    (account,) = house.book.unscored("fake 0123")
    answer = from_bytes(house.book.submitted(account.number) or b"")
    assert answer.note["loss"] == pytest.approx(losses.min())
    assert answer.members[0].prompt.z.ravel() == pytest.approx(z[losses.argmin()])  # type: ignore[union-attr]


def test_an_unknown_cell_is_refused(house: House) -> None:
    with served(house.app) as url, pytest.raises(InputError, match="nowhere"):
        harness.problem("nowhere", url=url, token=house.token)
