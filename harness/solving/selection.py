"""Selection on dev, by the metric that the referee scores the task by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from harness.solving.metrics import is_text, score

if TYPE_CHECKING:
    from harness.contract import Examples, FloatArray, Task

By: TypeAlias = Literal["metric", "loss", "metric-alone"]


class Selection:
    """Keeps the candidate that is best on dev so far.

    Args:
        task: its metric decides: accuracy, macro-F1, or F1 of class 1. On a text task, whose metric takes generated
            texts, the loss decides.
        dev: the examples on which candidates are compared.
        by: ``metric``, with ties decided by the loss; ``loss``, with ties decided by the metric; or ``metric-alone``,
            as in BBT's code, where the first candidate must beat 0 and the earliest wins a tie.

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
            scores: (candidates, texts, classes) on dev, logits or probabilities. The class of the largest is predicted.
            losses: (candidates,) on dev, smaller is better.

        Returns:
            Number and dev metric of each candidate that beats all candidates before it, including those of earlier
            calls.

        Raises:
            ValueError: the number of texts differs from dev's, or the number of losses from that of candidates.
        """
        if is_text(self._task.metric):  # likelihoods tell nothing of it
            metrics = np.zeros(len(losses))
        else:
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
