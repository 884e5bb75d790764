"""A problem on a real model in this process is metered, stored and repeated like a submission's cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import harness
from harness.errors import BudgetExhausted, InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.replay import choices_of
from harness.results.asked import Asked
from harness.results.audit import audit
from harness.results.store import Store
from harness.tracks.tiers import IN_PROCESS
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

    from outer_models import Arena

SAME = """
def tune(lm, task, shots, rng, config):
    rng = np.random.default_rng(5)
    space = Subspace(4, (lm.info.hidden_std[0],), lm.info.prompt_tokens, int(rng.integers(2**62)))
    for z in np.random.default_rng(0).standard_normal((3, 2, 4)):
        losses = cross_entropy(lm.logits(space.at(z), shots.train.texts), shots.train.labels)
        yield Answer.of(task, space.at(z[losses.argmin()]), loss=losses.min())
"""


def opened(track: Path, **changes: Any) -> Any:
    return harness.problem("sst2", **{"track": str(track), "dim": 4, "seed": 5, "budget": 10} | changes)


def test_its_rows_of_the_ledger_are_those_of_a_submission_that_asks_the_same(arena: Arena, tiny_track: Path) -> None:
    ran = arena.run(SAME)
    with opened(tiny_track) as problem:
        for z in np.random.default_rng(0).standard_normal((3, 2, 4)):
            problem(z)
        assert problem.digests == tuple(row.sha256 for row in ran.ledger)


def test_what_it_did_is_stored_and_audited(tmp_path: Path, tiny_track: Path) -> None:
    url = str(tmp_path / "results.db")
    with opened(tiny_track, store=url, name="mine") as problem:
        losses = problem(np.random.default_rng(0).standard_normal((5, 4)))
        problem(np.zeros(4))
        score, best = problem.test_score(), problem.best
    store = Store(url)
    (run,) = store.runs()
    (cell,) = store.cells(run.id)
    assert run.key.entry == "mine[dim=4,space=input]"
    assert run.key.seed == 5
    assert not run.key.modified  # the track's own budget
    assert cell.status == "ok"
    assert cell.record.sandbox == IN_PROCESS
    assert cell.record.rows_spent == sum(row.rows for row in store.ledger(cell.attempt)) == 6 * 8
    assert (cell.predictions[1.0] == cell.labels).mean() == score
    assert cell.record.note["loss"] == pytest.approx(best.loss)
    assert best.loss <= losses.min()
    assert cell.record.config["dim"] == 4
    assert cell.record.asked == Asked(words=2, texts=8, rows=6 * 8)
    assert cell.record.log[-1][1]["evaluation"] == 6
    assert audit(store).findings == ()
    with pytest.raises(InputError, match="harness bench again"):
        choices_of(run.key, store.cells(run.id), load_track(str(tiny_track)), Overrides())
    store.close()


def test_the_same_seeds_ask_and_get_the_same(tiny_track: Path) -> None:
    found = []
    for seed in (5, 5, 6):
        with opened(tiny_track, seed=seed, minibatch=3, space="mixed") as problem:
            low, high = problem.bounds.T
            z = np.random.default_rng(0).uniform(low, high, (4, problem.dimension))
            found.append((problem.digests, problem(z).tolist(), problem.digests))
    assert found[0] == found[1] != found[2]
    assert found[0][0] == ()


def test_another_budget_is_a_trial_and_ends_when_it_is_spent(tmp_path: Path, tiny_track: Path) -> None:
    url = str(tmp_path / "results.db")
    with opened(tiny_track, store=url, budget=3, split=2) as problem:
        problem(np.zeros((3, 4)))
        with pytest.raises(BudgetExhausted):
            problem(np.zeros(4))
        problem.test_score()
    store = Store(url)
    (run,) = store.runs()
    assert run.key.modified == ("calls",)
    store.close()


def test_nothing_is_recorded_of_a_problem_that_was_not_asked(tmp_path: Path, tiny_track: Path) -> None:
    url = str(tmp_path / "results.db")
    opened(tiny_track, store=url).close()
    with pytest.raises(InputError, match="minibatch"):
        opened(tiny_track, store=url, minibatch=99)
    store = Store(url)
    assert store.runs() == []
    store.close()


def test_the_first_result_of_the_same_arguments_stands(tmp_path: Path, tiny_track: Path) -> None:
    url = str(tmp_path / "results.db")
    for z in (np.zeros(4), np.ones(4)):
        with opened(tiny_track, store=url) as problem:
            problem(z)
            problem.test_score()
    store = Store(url)
    (run,) = store.runs()
    (cell,) = store.cells(run.id)
    assert cell.attempt == 1
    assert len(store.attempts(run.id)) == 2
    assert audit(store).findings == ()
    store.close()


def test_deep_prompts_have_coordinates_for_each_layer(tiny_track: Path) -> None:
    with opened(tiny_track, space="deep") as problem:
        assert problem.dimension == 2 * 4
        assert np.isfinite(problem(np.ones((2, 8)))).all()
