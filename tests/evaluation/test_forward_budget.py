"""References with a budget of forward passes: how they are counted, where they end, and what is kept of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key
from outer_models import TRAIN_ROWS

from harness.errors import SubmissionError
from harness.evaluation.referee import run_reference
from harness.evaluation.white_box import OutOfForwardsError, Recipe, WhiteBox
from harness.leaderboard.anytime import curve
from harness.leaderboard.exports import tidy_entry
from harness.leaderboard.rank import score_cell
from harness.results.audit import audit
from harness.results.status import MARKS
from harness.sandbox import presets
from harness.sandbox.config_source import check_options
from harness.sandbox.submission import find
from harness.tracks.examples import load_shots

if TYPE_CHECKING:
    from pathlib import Path

    from outer_models import Arena, Run

    from harness.contract import Shots

SOURCE = '''"""A reference for a test."""
from dataclasses import dataclass
from harness.evaluation.white_box import Recipe

access = "white-box"


@dataclass(frozen=True)
class Config:
    eta: float = 1e-2


def tune(lm, task, shots, rng, config):
    yield from lm.fit(list(lm.module.parameters()), shots, rng, Recipe(config.eta, 4, 1000, 100000))
'''


def write(folder: Path, source: str = SOURCE) -> Path:
    place = folder / "trained"
    place.mkdir(exist_ok=True)
    (place / "submission.py").write_text(source, encoding="utf-8")
    return place


def refer(arena: Arena, options: dict[str, str]) -> Run:
    """Run the reference on one cell of the tiny track."""
    from outer_models import Run

    cell = arena.cell()
    run = arena.store.open_run(key(seed=random.randrange(2**30), access="white-box", options=options), {})  # noqa: S311
    attempt = arena.store.begin(run, cell.task.name, cell.split)
    verdict = run_reference(cell, find(write(arena.folder)), options, arena.lm, attempt, lambda _rows, _note: None)
    (stored,) = arena.store.cells(run)
    return Run(verdict, stored, arena.store)


def opened(arena: Arena, forwards: float) -> tuple[WhiteBox, Shots]:
    cell = arena.cell()
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    white = WhiteBox(arena.lm, cell.task, shots.train.texts)
    white.most_forwards = forwards
    return white, shots


def test_a_row_of_a_step_counts_three_and_a_row_that_is_looked_at_one(arena: Arena) -> None:
    white, shots = opened(arena, np.inf)
    list(white.fit(list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-3, 4, 5, 1000)))
    assert white.forwards == 3 * 5 * len(shots.train) + len(shots.dev)
    white.predicted(shots.dev.texts[:3])
    assert white.forwards == 3 * 5 * len(shots.train) + len(shots.dev) + 3


@pytest.mark.parametrize("budget", range(0, 140, 7))
def test_training_ends_within_the_budget_and_with_a_look(arena: Arena, budget: int) -> None:
    white, shots = opened(arena, budget)
    fit = white.fit(list(white.module.parameters()), shots, np.random.default_rng(0), Recipe(1e-3, 4, 1000, 10**6))
    given = []
    with pytest.raises(OutOfForwardsError):
        given.extend(iter(fit))
    assert white.forwards <= budget
    step = 3 * 4 + len(shots.dev)
    assert white.forwards > budget - 2 * step or white.forwards == 0


def test_a_loop_of_one_s_own_is_counted_and_ended_as_well(arena: Arena) -> None:
    white, shots = opened(arena, 3 * TRAIN_ROWS + 1)
    batch = white.batch(shots.train.texts)
    white.logits(batch)
    assert white.forwards == 3 * len(shots.train)
    with pytest.raises(OutOfForwardsError):
        white.logits(batch)
    assert white.forwards == 3 * len(shots.train), "what was refused was not computed"
    white.predicted(shots.train.texts[:1])


def test_a_cell_with_a_budget_has_a_curve_and_one_without_has_its_count(arena: Arena) -> None:
    free = refer(arena, {})
    assert free.record.forwards is not None
    assert free.record.forwards > 0
    assert (free.record.rows_total, free.record.calls_total, free.record.rows_spent) == (0, 0, 0)
    assert list(free.stored.predictions) == [1.0]
    assert {rows for rows, _ in free.record.history or ()} == {0}

    tight = refer(arena, {"forwards": "24"})
    record, budget = tight.record, 24 * TRAIN_ROWS
    assert tight.status == "budget_exhausted"
    assert (record.rows_total, record.calls_total, record.rows_spent) == (budget, 24, 0)
    assert record.forwards is not None
    assert budget - 60 < record.forwards <= budget
    spent = [rows for rows, _ in record.history or ()]
    assert spent == sorted(spent)
    assert spent[0] == 0 < spent[-1] <= budget
    assert set(tight.stored.predictions) == set(MARKS)
    cell = score_cell(tight.stored)
    steps = curve(cell)
    assert (steps.budget, steps.spent) == (24.0, record.forwards / TRAIN_ROWS)
    assert list(steps.calls) == sorted(steps.calls)
    assert steps.calls[0] == 0.0
    assert audit(arena.store).findings == ()


def test_the_whole_budget_is_that_of_the_track(arena: Arena) -> None:
    found = refer(arena, {"forwards": "budget"})
    assert found.record.calls_total == arena.cell().spec.calls
    assert found.record.config == {"eta": 0.01}


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "all", "", "٣", "1e3", "9" * 30])
def test_a_budget_that_is_none_is_refused_before_anything_runs(tmp_path: Path, value: str) -> None:
    found = find(write(tmp_path))
    with pytest.raises(SubmissionError, match="forwards=budget"):
        check_options(found, {"forwards": value})


def test_the_option_is_the_referee_s_own_and_only_for_references(tmp_path: Path) -> None:
    found = find(write(tmp_path))
    assert check_options(found, {"forwards": "budget", "eta": "0.1"})
    assert presets.on_task(found, {"forwards": "7", "eta": "0.1"}, "sst2") == {"eta": "0.1"}
    assert presets.forward_calls(found, {"forwards": "7"}, "sst2", 600) == 7
    assert presets.forward_calls(found, {}, "sst2", 600) is None
    other = find(write(tmp_path, SOURCE.replace('access = "white-box"', "")))
    assert presets.forward_calls(other, {"forwards": "x"}, "sst2", 600) is None
    with pytest.raises(SubmissionError, match="no option 'forwards'"):
        check_options(other, {"forwards": "7"})


def test_rows_of_the_csv_have_the_forwards_of_references_and_entries(arena: Arena) -> None:
    from dataclasses import replace

    class Listed:
        """What of an entry the rows need."""

        name, run, white_box = "trained", "r", True

        class division:  # noqa: N801
            title = "t"

        def __init__(self, cell: Any) -> None:
            self.cells = (cell,)

    cell = score_cell(refer(arena, {"forwards": "24"}).stored)
    rows = tidy_entry(Listed(cell), 0)  # type: ignore[arg-type]
    assert [row["mark"] for row in rows] == list(MARKS)
    assert {row["forwards"] for row in rows} == {cell.record.forwards}
    assert [row["calls"] for row in rows] == sorted(row["calls"] for row in rows)
    assert {row["budget_calls"] for row in rows} == {24}
    free = score_cell(refer(arena, {}).stored)
    (row,) = tidy_entry(Listed(free), 0)  # type: ignore[arg-type]
    assert (row["forwards"], row["budget_calls"], row["cell_calls"]) == (free.record.forwards, None, None)
    old = replace(free, record=replace(free.record, forwards=None))
    assert tidy_entry(Listed(old), 0)[0]["forwards"] is None  # type: ignore[arg-type]
