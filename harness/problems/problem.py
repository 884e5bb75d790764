"""A language model's few-shot loss as a black-box optimisation problem: `Problem`."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from harness.contract import Answer
from harness.errors import BudgetExhausted, InputError, QueryError
from harness.problems.objective import Objective
from harness.solving.batches import minibatches

if TYPE_CHECKING:
    from types import TracebackType

    from harness.problems.cells import ProblemCell
    from harness.problems.spaces import Floats, Space, Variable

_MINIBATCHES = 1000
"""Number of minibatches. Later ones repeat in the same order, because a session accepts 4,096 sets of texts."""


@dataclass(frozen=True)
class Best:
    """The candidate with the lowest loss that was observed."""

    z: Floats
    """(dimension,)"""
    loss: float
    evaluation: int
    """Its number among all evaluated candidates, from 1."""
    train_score: float
    """The task's metric on the texts on which it was evaluated, from 0 to 1; NaN where the answer is text."""


class Problem:
    """A function of a vector to minimise, with a real language model behind it. `harness.problem` makes one."""

    def __init__(
        self, cell: ProblemCell, space: Space, loss: str, minibatch: int | None, rng: np.random.Generator
    ) -> None:
        """Search `space` on a cell; the arguments are those of `harness.problem`.

        Raises:
            InputError: there is no such loss, or the minibatch does not fit the training set.
        """
        self._objective = Objective(cell, loss)
        train = cell.shots.train
        if minibatch is not None and not 1 <= minibatch <= len(train):
            raise InputError(
                f"minibatch={minibatch}: 1 to {len(train)} texts are possible, the size of the training set"
            )
        self._cell, self.space, self.loss, self._size = cell, space, loss, minibatch or len(train)
        drawn = minibatches(len(train), self._size, _MINIBATCHES, rng)
        self._batches = itertools.cycle(list(itertools.islice(drawn, _MINIBATCHES)) if minibatch else [None])
        self._costs = cell.costs()  # (train,) rows of each text
        self._dearer: float | None = None
        """How many times more an evaluation was charged than `_costs` say, which over a service are not known; the
        least that was seen, since other connections may have spent in between. None before the first one."""
        self._points: list[Floats] = []
        self._observed: list[float] = []
        self._best: Best | None = None
        self._score: float | None = None
        self._finished = False

    def __repr__(self) -> str:
        """Show the problem and its progress."""
        left = f"{self.budget_left:,} evaluations left"
        return f"<Problem {self._cell.task.name}: {self.dimension} variables, {self.loss}, {left}>"

    def __enter__(self) -> Self:
        """Use the problem as a context manager, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the problem."""
        self.close()

    def close(self) -> None:
        """Free what the problem holds. What was stored stays."""
        self._cell.close()

    @property
    def dimension(self) -> int:
        """Number of variables."""
        return len(self.space.variables)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables in order: `Real` coordinates, then each `Choice`."""
        return self.space.variables

    @property
    def bounds(self) -> Floats:
        """Lower and upper bound of each variable: (dimension, 2).

        Real coordinates are not really bounded. The prompts are scaled for z ~ N(0, I), so [-5, 5] is the range to
        search. A choice is an index, and a value between two indices is rounded.
        """
        return np.array([(each.low, each.high) for each in self.variables], dtype=np.float64)

    @property
    def budget_left(self) -> int:
        """Evaluations of one candidate that are left.

        Where texts cost different numbers of rows, those of the dearest minibatch. Over a service, prices of texts are
        known from the first evaluation on.
        """
        return 0 if self._finished else int(self._cell.lm.budget.rows_left // self._dearest)

    @property
    def budget_total(self) -> int:
        """Evaluations of one candidate that the whole budget pays."""
        return int(self._cell.lm.budget.rows_total // self._dearest)

    @property
    def _dearest(self) -> float:
        """Rows that one candidate costs at most."""
        return (self._dearer or 1.0) * int(np.sort(self._costs)[-self._size :].sum())

    @property
    def evaluations(self) -> int:
        """Candidates evaluated so far."""
        return len(self._observed)

    @property
    def losses(self) -> Floats:
        """The loss of each candidate, in the order in which they were evaluated: (evaluations,)."""
        return np.array(self._observed, dtype=np.float64)

    @property
    def points(self) -> Floats:
        """Each evaluated candidate: (evaluations, dimension)."""
        return np.array(self._points, dtype=np.float64).reshape(-1, self.dimension)

    @property
    def best(self) -> Best:
        """The candidate with the lowest observed loss.

        Raises:
            InputError: nothing was evaluated yet.
        """
        if self._best is None:
            raise InputError("no candidate was evaluated yet; call the problem with a vector first")
        return self._best

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of request and reply of each query, from the ledger.

        The same seeds on the same machine give the same digests. Empty for the fake model and over a service.
        """
        return self._cell.digests()

    def __call__(self, z: npt.ArrayLike) -> Any:
        """The loss of one candidate, or of several at once.

        With a minibatch, all candidates of one call are evaluated on the same texts, and the next call has others.

        Args:
            z: (dimension,) or (n, dimension).

        Returns:
            A float for one candidate, (n,) for several.

        Raises:
            QueryError: the shape is wrong, a number is not finite, or `test_score` was asked; nothing was charged.
            BudgetExhausted: the candidates cost more than is left; none of them was charged.

        Example:
            ``problem(np.zeros(problem.dimension))``
        """
        single = np.ndim(z) == 1
        losses = self.evaluate(np.asarray(z)[None] if single else z)
        return float(losses[0]) if single else losses

    def evaluate(self, zs: npt.ArrayLike) -> Floats:
        """The losses of several candidates.

        Args:
            zs: (n, dimension).

        Returns:
            (n,)

        Raises:
            QueryError: as for a call.
            BudgetExhausted: as for a call.

        Example:
            ``problem.evaluate(rng.standard_normal((20, problem.dimension)))``
        """
        if self._finished:
            raise QueryError("test_score was asked, which ends a problem; open another one")
        points = self.space.checked(zs)
        batch, budget = next(self._batches), self._cell.lm.budget
        rows = np.arange(len(self._costs)) if batch is None else batch
        price = len(points) * int(self._costs[rows].sum())
        if price > budget.rows_left:
            raise BudgetExhausted(price, budget.rows_left, budget.rows_total)
        losses, predicted = np.empty(len(points)), dict[int, Any]()
        for group in self.space.groups(points):
            losses[group.rows], classes = self._objective.losses(group, rows)
            if classes is not None:  # one row for all of the group, if they differ in nothing that is asked
                each = np.broadcast_to(classes, (len(group.rows), len(rows)))
                predicted |= dict(zip(group.rows.tolist(), each, strict=True))
        ratio = max(1.0, (budget.rows_left - self._cell.lm.budget.rows_left) / price)
        self._dearer = ratio if self._dearer is None else min(self._dearer, ratio)
        first = len(self._observed) + 1
        self._points += list(points)
        self._observed += losses.tolist()
        lowest = int(losses.argmin())
        if self._best is None or losses[lowest] < self._best.loss:
            score = self._objective.score(predicted.get(lowest), rows)
            self._improve(Best(points[lowest].copy(), float(losses[lowest]), first + lowest, score))
        return losses

    def _improve(self, best: Best) -> None:
        """Keep a new best candidate, and hand it over."""
        self._best = best
        self._offer(best.z)
        self._cell.lm.log(evaluation=best.evaluation, loss=best.loss)

    def _offer(self, z: Floats) -> None:
        """Hand over the answer of a point, with what is known of the best one."""
        note = {"loss": self.best.loss, "train": self.best.train_score}
        known = {name: value for name, value in note.items() if not math.isnan(value)}
        self._cell.offer(Answer((self.space.member(z),), known))

    def test_score(self, z: npt.ArrayLike | None = None) -> float | None:
        """The task's metric on hidden test texts, once, at the end. The problem takes no candidate afterwards.

        Args:
            z: (dimension,), what the optimizer recommends; None is the candidate with the lowest observed loss.

        Returns:
            From 0 to 1; None over a service, whose organiser knows it. Asked again, the same number.

        Raises:
            InputError: nothing was evaluated, or another candidate is asked for a second time.

        Example:
            ``gap = problem.best.train_score - problem.test_score()``
        """
        best = self.best
        if self._finished:
            if z is not None:
                raise InputError(
                    "test_score was asked before: it is told once, for one candidate. Open another problem"
                )
            return self._score
        if z is not None:
            (point,) = self.space.checked(np.asarray(z)[None])
            self._offer(point)
        self._cell.lm.log(evaluation=self.evaluations, loss=best.loss, variables=self.dimension)
        self._score = self._cell.finish()
        self._finished = True
        return self._score
