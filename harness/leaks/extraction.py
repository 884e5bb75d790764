"""The attack on the last layer, run on a cell of a track through the same session, meter and ledger as a submission."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError
from harness.evaluation.text_cells import with_classes
from harness.leaks.last_layer import FEWEST_ROWS, Stolen, collect, random_texts, random_words, steal, steps
from harness.problems.cells import LocalCell, PlannedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Evaluation
    from harness.results.store import Store

NAME = "leaks"
UNSEEN = 200
"""Texts that the attack does not query, on which the stolen layer is compared with the true one."""
WORDS_PER_DIMENSION = 4
"""Words that are asked about by default, in multiples of the width."""
ROWS_PER_DIMENSION = 1.25


@dataclass(frozen=True)
class Extraction:
    """What the attack stole on one cell."""

    task: str
    split: int
    seed: int
    width: int
    """The true one."""
    words_wanted: int
    rows_wanted: int
    rows_spent: int
    calls_spent: float
    calls_total: int
    refused: str
    """The first refusal; empty where everything that was asked for was given."""
    curve: tuple[Stolen, ...]

    @property
    def last(self) -> Stolen | None:
        """With all rows; None where nothing was given."""
        return self.curve[-1] if self.curve else None

    def records(self) -> list[dict[str, object]]:
        """A row for each number of rows."""
        place = {"task": self.task, "split": self.split, "seed": self.seed, "true_width": self.width}
        return [place | each.record() for each in self.curve]


def extract(
    evaluation: Evaluation,
    cell: Cell,
    store: Store,
    *,
    rows: int | None = None,
    words: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _rows, _of: None,
) -> Extraction:
    """Steal the last layer on one cell, for as many rows as are allowed and left.

    Args:
        evaluation: the track with its model.
        cell: one of its cells.
        store: keeps the ledger of the attack.
        rows: to spend; None is a quarter more than the width.
        words: to ask about; None is four times the width, or all of a smaller vocabulary.
        seed: draws words and texts.
        progress: gets the rows spent, and those to spend.

    Raises:
        InputError: too few rows, or more words than there are.
        ModelError: the model cannot be asked.
    """
    if rows is not None and rows < FEWEST_ROWS:
        raise InputError(f"--rows {rows}: at least {FEWEST_ROWS} rows are needed to see anything of the last layer")
    run = PlannedRun(NAME, {"seed": str(seed)}, seed, {"seed": seed})
    own = LocalCell(evaluation, cell, store, run)
    lm, task = own.lm, with_classes(cell.task, "harness leaks")
    model, rng = evaluation.model_for(cell), np.random.default_rng(seed)
    width = lm.info.width
    wanted = rows or round(ROWS_PER_DIMENSION * width)
    asked = random_words(lm, words or min(WORDS_PER_DIMENSION * width, _most(lm.vocabulary())), rng, task.words)
    before = lm.budget
    found = collect(lm, task, asked, wanted, rng, lambda spent: progress(spent, wanted))
    unseen = random_texts(lm, UNSEEN, task.fields, np.random.default_rng([seed, 1]))
    truth = model.forward(None, model.text_set(task.template, unseen, None), model.single_ids(found.words)).logits[0]
    spent = before.rows_left - lm.budget.rows_left
    curve = [steal(found, truth.astype(np.float64), width, n, before.train_rows) for n in steps(len(found.logits))]
    return Extraction(
        task.name, cell.split, seed, width, len(asked), wanted, spent, spent / before.train_rows,
        cell.spec.calls, found.refused, tuple(curve),
    )  # fmt: skip


def _most(vocabulary: tuple[str, ...]) -> int:
    """Words of a vocabulary that a random one is drawn from."""
    return len({word for word in vocabulary if word.strip().isalpha()})
