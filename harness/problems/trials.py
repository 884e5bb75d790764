"""The stored result of an optimizer on one problem, and tables of many such trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.results.status import COUNTS
from harness.solving.metrics import cell_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.results.records import StoredCell


@dataclass(frozen=True)
class Trial:
    """One optimizer on one problem with one seed, finished."""

    optimizer: str
    task: str
    split: int
    dim: int
    """The argument of `harness.problem`."""
    variables: int
    """Entries of a point; in the space ``deep`` this is layers x dim."""
    seed: int
    run: str
    """Id of the run that holds it."""
    evaluations: int
    trajectory: tuple[tuple[int, float], ...]
    """For each improvement the number of the evaluation, from 1, and the loss."""
    loss: float
    """Lowest observed training loss."""
    train_score: float
    """The metric on the training texts, from 0 to 1; NaN where the answer is text."""
    test_score: float
    """The metric on the hidden test texts, from 0 to 1."""
    seconds: float

    @property
    def place(self) -> tuple[str, int, int, int]:
        """The problem: task, split, dim and seed."""
        return self.task, self.split, self.dim, self.seed

    def row(self) -> dict[str, object]:
        """A row of the table of trials."""
        return {
            "optimizer": self.optimizer, "task": self.task, "split": self.split, "dim": self.dim, "seed": self.seed,
            "evaluations": self.evaluations, "train_loss": self.loss, "train_score": self.train_score,
            "test_score": self.test_score, "gap": self.train_score - self.test_score, "seconds": self.seconds,
            "run": self.run,
        }  # fmt: skip


def trial_of(cell: StoredCell, optimizer: str, dim: int, seed: int) -> Trial | None:
    """A stored cell as a trial; None if its answer could not be scored."""
    record = cell.record
    if cell.status not in COUNTS or 1.0 not in cell.predictions or not record.log or record.metric is None:
        return None
    steps = tuple((int(numbers["evaluation"]), float(numbers["loss"])) for _, numbers in record.log)
    variables = int(record.log[-1][1].get("variables", dim))
    return Trial(
        optimizer, cell.task, cell.split, dim, variables, seed, cell.run, steps[-1][0], steps[:-1],
        float(record.note["loss"]), float(record.note.get("train", "nan")),
        cell_score(record.metric, cell.predictions[1.0], cell.labels, len(record.words)), record.tuning_s,
    )  # fmt: skip


def ranking(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """A row for each optimizer, best mean rank by training loss first.

    Means and ranks are over the problems on which every optimizer has a trial, so that all are compared on the same
    ones; equal values share the mean of their ranks. `left_out` counts the other problems.

    Each optimizer's differences to the first one have intervals. Dims and seeds of one few-shot split share its texts,
    so the differences are averaged over them first; the averages of the pairs of task and split are the sample of a
    paired t interval. Their level is 95 % for all pairs of optimizers together (Bonferroni), since the data chose the
    first one. With one pair of task and split there is no interval.

    Args:
        trials: of all optimizers.

    Returns:
        Mean training loss, training and test score, their gap, mean ranks by training loss and by test score, how far
        loss and test score are behind those of the first optimizer, and the number of problems behind them. Bounds of
        intervals are NaN where there are none.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - half a second

    optimizers = list(dict.fromkeys(trial.optimizer for trial in trials))
    known = {(trial.optimizer, trial.place): trial for trial in trials}
    places = list(dict.fromkeys(trial.place for trial in trials))
    common = [place for place in places if all((name, place) in known for name in optimizers)]
    if not common:
        return []
    table = [[known[name, place] for place in common] for name in optimizers]
    loss = np.array([[trial.loss for trial in row] for row in table])  # (optimizers, problems)
    train = np.array([[trial.train_score for trial in row] for row in table])
    test = np.array([[trial.test_score for trial in row] for row in table])
    by_loss, by_test = rankdata(loss, axis=0).mean(axis=1), rankdata(-test, axis=0).mean(axis=1)
    first = min(range(len(optimizers)), key=lambda n: (by_loss[n], optimizers[n]))
    texts = [place[:2] for place in common]
    rows: list[dict[str, object]] = [
        {
            "optimizer": name, "rank_by_train_loss": float(by_loss[n]), "rank_by_test_score": float(by_test[n]),
            "train_loss": float(loss[n].mean()), "train_score": float(train[n].mean()),
            "test_score": float(test[n].mean()), "gap": float((train[n] - test[n]).mean()), "problems": len(common),
            "left_out": len(places) - len(common),
            **_interval("loss_behind", loss[n] - loss[first], texts, len(optimizers)),
            **_interval("test_behind", test[first] - test[n], texts, len(optimizers)),
        }
        for n, name in enumerate(optimizers)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["rank_by_train_loss"], row["optimizer"]))


def _interval(
    name: str, differences: npt.NDArray[np.float64], texts: Sequence[tuple[str, int]], optimizers: int
) -> dict[str, object]:
    """Mean of paired differences, one a problem, and bounds: see `ranking`. `texts` has the task and split of each."""
    from scipy.stats import t  # noqa: PLC0415 - half a second

    sample = np.array(
        [differences[[each == place for each in texts]].mean() for place in dict.fromkeys(texts)]
    )  # (pairs of task and split,)
    mean, half = float(sample.mean()), float("nan")
    if len(sample) > 1 and optimizers > 1:
        level = 0.05 / (optimizers * (optimizers - 1) / 2)
        half = float(t.ppf(1 - level / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
