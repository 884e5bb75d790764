"""A task whose answer is text as a function to minimise: the negative log-likelihood of its references."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_causal
from typer.testing import CliRunner

import harness
from harness.blackbox.fake_text import fake_text_shots, fake_text_task
from harness.blackbox.fake_text_lm import FakeTextLM
from harness.cli import app
from harness.contract import TextTask
from harness.errors import BudgetExhausted, InputError, QueryError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.problems.adapters import minimize
from harness.results.audit import audit
from harness.results.store import Store
from harness.tracks.tiers import IN_PROCESS
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = ("Formal: {a}\nPlain:", "{a}\nIn plain words:")


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal.write_track(tmp_path_factory.mktemp("text"))


def fake(**changes: Any) -> Any:
    return harness.problem("fake-text", **{"budget": 200, "dim": 6} | changes)


def test_a_value_is_the_loss_of_the_prompt_at_the_point() -> None:
    problem = fake(seed=3)
    z = np.random.default_rng(0).standard_normal((4, 6))
    losses = problem(z)
    task, shots = fake_text_task(), fake_text_shots(np.random.default_rng(1))
    lm = FakeTextLM.for_task(task, shots, 10)
    seed = int(np.random.default_rng(3).integers(2**62))
    space = harness.Subspace(6, (lm.info.hidden_std[0],), lm.info.prompt_tokens, seed)
    np.testing.assert_array_equal(losses, lm.score(space.at(z), shots.train.texts, task.targets(shots.train)).losses())
    assert problem(z[2]) == losses[2]
    assert problem.best.loss == losses.min()
    assert math.isnan(problem.best.train_score)
    assert "fake-text: 6 variables, cross_entropy, 195 evaluations left" in repr(problem)


def test_a_search_writes_better_text() -> None:
    scores = []
    for budget in (1, 400):
        problem = fake(budget=budget, dim=20, alpha=2.0)
        minimize("cma" if budget > 1 else "random", problem, seed=1) if budget > 1 else problem(np.zeros(20))
        scores.append((problem.best.loss, problem.test_score()))
    assert scores[1][0] < scores[0][0]
    assert scores[1][1] > scores[0][1] + 0.2


def test_what_needs_classes_is_refused() -> None:
    for changes, message in (
        ({"loss": "hinge"}, "is one of classes"),
        ({"loss": "negative_accuracy"}, "is one of classes"),
        ({"loss": "none"}, "no loss 'none'"),
        ({"space": "words"}, "no label words"),
        ({"space": "mixed"}, "no label words"),
        ({"words": ((" a", " b"),)}, "no label words"),
        ({"space": "template"}, "needs texts to choose from"),
    ):
        with pytest.raises(InputError, match=message):
            fake(**changes)


def test_templates_are_searched_alone_and_with_a_prompt() -> None:
    problem = fake(space="template", templates=("{a} =>", "{a} so", "Say {a} :"))
    losses = problem(np.array([[0.0], [1.0], [2.0]]))
    assert len(set(losses)) == 3
    assert problem.best.z[0] == losses.argmin()
    mixed = fake(space="mixed", dim=3, templates=("{a} =>", "{a} so"))
    assert mixed.dimension == 4
    assert mixed(np.zeros(4)) != mixed(np.array([0.0, 0.0, 0.0, 1.0]))
    with pytest.raises(QueryError, match="mask"):
        fake(space="template", templates=("{a} =>", "{a} {mask}"))(np.array([1.0]))


def test_a_problem_knows_what_its_texts_cost(track: Path) -> None:
    problem = harness.problem("plain", track=str(track), dim=3, budget=20)
    costs = problem._costs
    assert costs.min() >= 1
    each = int(costs.sum())
    assert problem.budget_total == 20 * 4 // each < 20
    left = problem.budget_left
    problem(np.zeros((2, 3)))
    assert problem.budget_left == left - 2
    assert problem._cell.lm.budget.rows_left == 80 - 2 * each
    with pytest.raises(BudgetExhausted, match=f"{(left - 1) * each} rows asked"):
        problem(np.zeros((left - 1, 3)))
    assert problem.budget_left == left - 2
    problem(np.zeros((left - 2, 3)))
    assert problem.budget_left == 0
    small = harness.problem("plain", track=str(track), dim=3, budget=20, minibatch=2)
    while small.budget_left:
        small(np.zeros(3))
    assert small.evaluations >= left
    for one in (problem, small):
        one.close()


def test_a_run_is_stored_scored_and_audited(track: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "r.db")
    with harness.problem("plain", track=str(track), space="deep", dim=2, store=store, name="mine") as problem:
        assert problem.dimension == 2 * tiny_causal.LAYERS
        rng = np.random.default_rng(0)
        while problem.budget_left:
            problem(rng.standard_normal((min(3, problem.budget_left), problem.dimension)))
        score = problem.test_score()
        assert len(problem.digests) > 3
    assert 0 < score < 1
    kept = Store(store)
    (run,) = kept.runs()
    (cell,) = kept.cells(run.id)
    assert (cell.status, cell.record.sandbox, cell.record.metric) == ("ok", IN_PROCESS, "chrf")
    assert cell.record.outputs is not None
    assert "train" not in cell.record.note
    assert audit(kept).findings == ()
    kept.close()


@pytest.mark.slow
def test_a_bench_ranks_optimizers_on_text(track: Path, tmp_path: Path) -> None:
    given = ["bench", "--track", str(track), "--tasks", "plain", "--splits", "1", "--dims", "2", "--budget", "5"]
    given += ["--optimizers", "random,cma", "--store", str(tmp_path / "r.db"), "--out", str(tmp_path / "bench")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "random" in done.output
    assert "nan" not in done.output.lower()
    again = CliRunner().invoke(app, [*given, "--json"])
    assert again.exit_code == 0, again.output
    assert '"train_score": null' in again.output
    wrong = CliRunner().invoke(app, [*given, "--loss", "hinge"])
    assert isinstance(wrong.exception, InputError)
    assert "is one of classes" in str(wrong.exception)


def test_prices_of_classes_in_tokens_are_known_too(tmp_path: Path) -> None:
    """A brother of the same fault: where a text of a task with classes is longer than a row, it counts as several."""
    made = load_track("mini")
    import msgspec

    tasks = {"sst2": msgspec.structs.replace(made.tasks["sst2"], row_tokens=4)}
    store = Store(str(tmp_path / "r.db"))
    evaluation = Evaluation(msgspec.structs.replace(made, tasks=tasks), Overrides(tasks=("sst2",), splits=(1,)), store)
    from harness.problems.opening import on_cell
    from harness.problems.spec import Spec

    problem = on_cell(evaluation, store, "p", "sst2", 1, 0, Spec(dim=3))
    before = problem._cell.lm.budget.rows_left
    problem(np.zeros(3))
    assert before - problem._cell.lm.budget.rows_left == problem._costs.sum() > len(problem._costs)
    assert not isinstance(problem._cell.task, TextTask)
    evaluation.close()
    store.close()
