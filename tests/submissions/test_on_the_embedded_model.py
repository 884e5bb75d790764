"""Every ranked submission on one real cell: real model, real worker process, the referee in between."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import key

from harness.evaluation.overrides import Overrides
from harness.evaluation.referee import run_cell
from harness.evaluation.run import Evaluation
from harness.results.status import COUNTS, MARKS
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.results.records import StoredCell

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parents[2] / "submissions"
CALLS = 45
NAMES = sorted(
    source.parent.name for source in FOLDER.glob("*/submission.py") if find(source.parent).access == "black-box"
)
OPTIONS = {"feature_bilstm": {"epochs": "50"}, "nevergrad": {"optimizer": "NGOpt"}}
"""Of those that compute for minutes on their own, so that this file does not; and one that must be said."""
CHEAP = ("manual", "dect", "feature_mlp")


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], StoredCell]]:
    """Run a submission on sst2 split 1 of the mini track; what the store then says of it."""
    store = Store(str(tmp_path_factory.mktemp("results") / "results.db"))
    evaluation = Evaluation(load_track("mini"), Overrides(tasks=("sst2",), splits=(1,), calls=CALLS), store)
    (planned,) = evaluation.cells
    seeds = itertools.count()

    def run(name: str) -> StoredCell:
        run_id = store.open_run(key(seed=next(seeds)), {})
        attempt = store.begin(run_id, planned.task.name, planned.split)
        run_cell(planned, find(FOLDER / name), OPTIONS.get(name, {}), evaluation.lm, attempt, lambda _rows, _note: None)
        (stored,) = store.cells(run_id)
        return stored

    yield run
    store.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_small_budget_gives_a_scored_answer(cell: Callable[[str], StoredCell], name: str) -> None:
    """It ends in order, within its budget, and predicts a class for every test text."""
    stored = cell(name)
    assert stored.status in COUNTS, stored.record.detail + stored.record.output
    assert 0 <= stored.record.rows_spent <= CALLS * stored.record.train_rows
    assert stored.record.rows_spent > 0 or name == "manual"
    predicted = stored.predictions[MARKS[-1]]
    assert predicted.shape == stored.labels.shape
    assert set(np.unique(predicted)) <= {0, 1}
    assert 0.3 < (predicted == stored.labels).mean() <= 1
    assert all(math.isfinite(value) for value in stored.record.note.values())


@pytest.mark.parametrize("name", CHEAP)
def test_the_same_cell_again_is_the_same_to_the_last_bit(cell: Callable[[str], StoredCell], name: str) -> None:
    """Seed, model and referee leave nothing to chance."""
    first, again = cell(name), cell(name)
    assert first.record.note == again.record.note
    assert first.record.rows_spent == again.record.rows_spent
    assert first.predictions.keys() == again.predictions.keys()
    for mark, predicted in first.predictions.items():
        np.testing.assert_array_equal(predicted, again.predictions[mark])
