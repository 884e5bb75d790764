"""The search space and the loss: the arguments of `harness.problem` that define the function."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.problems.problem import Problem
from harness.problems.spaces import make_space

if TYPE_CHECKING:
    from harness.problems.cells import ProblemCell


@dataclass(frozen=True)
class Spec:
    """The arguments of `harness.problem` that make the function; see there."""

    space: str = "input"
    dim: int = 100
    loss: str = "cross_entropy"
    minibatch: int | None = None
    alpha: float = 1.0
    templates: tuple[str, ...] | None = None
    words: tuple[tuple[str, ...], ...] | None = None

    def plain(self) -> dict[str, object]:
        """The arguments as plain data."""
        found: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    def options(self) -> dict[str, str]:
        """The options of the function in a run's name: space, dim, and all values that are not the default."""
        usual = {each.name: each.default for each in dataclasses.fields(self)}
        given = {key: value for key, value in self.plain().items() if key in {"space", "dim"} or value != usual[key]}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}

    def on(self, cell: ProblemCell, seed: int) -> Problem:
        """The function on a cell. If it cannot be made, the cell is closed.

        Args:
            cell: where queries go.
            seed: of the projection, the words that are drawn and the minibatches.

        Raises:
            InputError: an argument is not valid on this cell.
        """
        rng = np.random.default_rng(seed)
        try:
            drawn = self.space in {"words", "mixed"} and self.words is None and bool(cell.task.classes)
            space = make_space(
                self.space, self.dim, cell.task, cell.lm.info, cell.lm.vocabulary() if drawn else (), rng,
                alpha=self.alpha, templates=self.templates, words=self.words,
            )  # fmt: skip
            return Problem(cell, space, self.loss, self.minibatch, rng)
        except BaseException:
            cell.close()
            raise
