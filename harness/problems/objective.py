"""The value of candidates on some training texts: the loss that a problem minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from harness.contract import TextTask
from harness.errors import InputError
from harness.solving import cross_entropy, hinge, negative_accuracy
from harness.solving.metrics import cell_score

if TYPE_CHECKING:
    from harness.contract import IntArray
    from harness.problems.cells import ProblemCell
    from harness.problems.spaces import Floats, Group

Loss: TypeAlias = Literal["cross_entropy", "hinge", "negative_accuracy"]
_LOSSES = {"cross_entropy": cross_entropy, "hinge": hinge, "negative_accuracy": negative_accuracy}
LOWER_BOUND: dict[str, float] = {"cross_entropy": 0.0, "hinge": 0.0, "negative_accuracy": -1.0}
"""No candidate's loss is below this."""


class Objective:
    """A loss on the training texts of a cell.

    On a task whose answer is text it is the mean negative log-likelihood of the references, by token over all tokens
    (`harness.contract.Likelihoods.losses`): the logarithm of the perplexity.
    """

    def __init__(self, cell: ProblemCell, loss: str) -> None:
        """Take a loss by its name.

        Raises:
            InputError: there is no such loss, or not on a task whose answer is text.
        """
        if loss not in get_args(Loss):
            raise InputError(f"no loss {loss!r}; there are {', '.join(get_args(Loss))}")
        if isinstance(cell.task, TextTask) and loss != "cross_entropy":
            raise InputError(
                f"loss {loss!r} is one of classes, and task {cell.task.name} is answered by text; its loss is "
                "cross_entropy, the mean negative log-likelihood of the references"
            )
        self._cell, self._loss = cell, loss

    def losses(self, group: Group, rows: IntArray) -> tuple[Floats, IntArray | None]:
        """Values of candidates that differ only in their soft prompt.

        Args:
            group: the candidates (n).
            rows: numbers of the training texts.

        Returns:
            Losses (n,), and the predicted classes (n, texts); None where the answer is text, since nothing is written
            during a search.

        Raises:
            BudgetExhausted: they cost more than is left. Nothing was charged.
            QueryError: the query is refused.
        """
        train, task = self._cell.shots.train, self._cell.task
        lm: Any = self._cell.lm
        texts = tuple(train.texts[i] for i in rows)
        if isinstance(task, TextTask):
            targets = task.targets(train)
            return lm.score(group.prompts, texts, [targets[i] for i in rows], group.template).losses(), None
        logits = lm.logits(group.prompts, texts, group.template, group.words)
        return _LOSSES[self._loss](logits, train.labels[rows]), logits.argmax(axis=-1)

    def score(self, predicted: IntArray | None, rows: IntArray) -> float:
        """The task's metric of predicted classes (texts,) on training texts, from 0 to 1; NaN where there are none."""
        task = self._cell.task
        if predicted is None:
            return float("nan")
        return cell_score(task.metric, predicted, self._cell.shots.train.labels[rows], len(task.classes))
