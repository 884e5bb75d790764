"""The meter prices a query in rows, charges it before it is evaluated, and refuses a query that does not fit. Pure."""

from __future__ import annotations

import math
from operator import index

from harness.contract import Budget
from harness.errors import BudgetExhausted, QueryError


def rows_of(tokens: int, row_tokens: int | None) -> int:
    """Rows that a text of so many tokens fills: at least one, and one where a row has no size."""
    return 1 if row_tokens is None else max(1, math.ceil(tokens / row_tokens))


class Meter:
    """Counts rows against a budget of ``calls * train_rows`` rows.

    Invariants, tested as properties: ``0 <= spent <= total``; a refused or malformed charge changes nothing.
    """

    def __init__(self, calls: int, train_rows: int, spent: int = 0) -> None:
        """Start a budget of `calls` calls of `train_rows` rows each, of which `spent` rows are already spent."""
        if calls <= 0 or train_rows <= 0:
            raise ValueError(f"a budget needs positive calls and training rows, got {calls} and {train_rows}")
        if not 0 <= spent <= calls * train_rows:
            raise ValueError(f"{spent} rows cannot be spent already of {calls * train_rows}")
        self._total = calls * train_rows
        self._train_rows = train_rows
        self._spent = spent

    @property
    def spent(self) -> int:
        """Number of rows charged so far."""
        return self._spent

    @property
    def budget(self) -> Budget:
        """The total and the rest of the budget, as a submission sees them."""
        return Budget(self._total, self._total - self._spent, self._train_rows)

    def charge(self, candidates: int, texts: int) -> int:
        """Charge candidates x texts rows, a text that is longer than a row counted as several, and return their number.

        Raises:
            QueryError: a count is not positive. Nothing is charged.
            BudgetExhausted: the query costs more rows than are left. Nothing is charged.
        """
        rows = self.price(candidates, texts)
        self.spend(rows)
        return rows

    def price(self, candidates: int, texts: int) -> int:
        """Number of rows of a query that fits into the budget. Nothing is charged yet.

        Raises:
            QueryError: a count is not positive.
            BudgetExhausted: the query costs more rows than are left.
        """
        candidates, texts = index(candidates), index(texts)  # numpy's integers overflow, Python's do not
        if candidates <= 0 or texts <= 0:
            raise QueryError(f"{candidates} candidates x {texts} texts: a query needs at least one of each")
        rows = candidates * texts
        left = self._total - self._spent
        if rows > left:
            raise BudgetExhausted(rows, left, self._total)
        return rows

    def spend(self, rows: int) -> None:
        """Charge rows that `price` has just allowed. The budget is not checked again."""
        self._spent += rows

    def give_back(self, rows: int) -> None:
        """Undo `spend`, for a query that could not be answered."""
        self._spent -= rows
