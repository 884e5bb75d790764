"""Selection on dev, by the metric that the referee scores the task by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from harness.solving.metrics import score

if TYPE_CHECKING:
    from harness.contract import Examples, FloatArray, Task

By: TypeAlias = Literal["metric", "loss", "metric-alone"]


class Selection:
    """Keeps the best that dev has seen so far.

    Args:
        task: whose metric decides: accuracy, macro-F1, or F1 of class 1.
        dev: the examples that candidates are compared on.
        by: ``metric``, ties by the loss; ``loss``, ties by the metric; or ``metric-alone``, where the first to beat is
            0 and a tie keeps the earliest, as in BBT's code.

    Example::

        selection = Selection(task, dev)
        q = lm.logits(space.at(zs), dev.texts)
        for k, metric in selection.better(q, cross_entropy(q, dev.labels)):
            yield Answer.of(task, space.at(zs[k]), dev=metric)
    """

    def __init__(self, task: Task, dev: Examples, by: By = "metric") -> None:
        self._task, self._dev, self._by = task, dev, by
        self._best: tuple[float, ...] = (0.0,) if by == "metric-alone" else (-np.inf, -np.inf)

    def better(self, scores: FloatArray, losses: FloatArray) -> list[tuple[int, float]]:
        """Compare candidates with the best before them, one after the other.

        Args:
            scores: (candidates, texts, classes) on dev, logits or probabilities: the largest is what is predicted.
            losses: (candidates,) on dev, the smaller the better.

        Returns:
            Number and dev metric of each candidate that beats all before it, those of earlier calls included.

        Raises:
            ValueError: another number of texts than dev has, or of losses than there are candidates.
        """
        metrics = score(self._task.metric, scores.argmax(axis=-1), self._dev.labels, len(self._task.classes))
        found = []
        for k, (metric, loss) in enumerate(zip(metrics.tolist(), losses.tolist(), strict=True)):
            rank: tuple[float, ...] = (metric, -loss)
            if self._by != "metric":
                rank = (-loss, metric) if self._by == "loss" else (metric,)
            if rank > self._best:
                self._best = rank
                found.append((k, metric))
        return found
