"""Each adapter with its real library: it spends the budget, improves, and repeats itself."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import harness
from harness.errors import BudgetExhausted, InputError
from harness.problems import adapters
from harness.problems.adapters import as_ioh, minimize

NAMES = (
    "random",
    "random:normal",
    "cma",
    "cma:CMA_diagonal",
    "nevergrad",
    "nevergrad:PSO",
    "scipy",
    "scipy:Nelder-Mead",
    "scipy:COBYLA",
    "scipy:L-BFGS-B",
    "scipy:differential_evolution",
    "scipy:dual_annealing",
    "scipy:direct",
    "pymoo",
    "pymoo:GA",
    "pymoo:PSO",
    "pymoo:CMAES",
    "pymoo:NelderMead",
    "optuna",
    "optuna:NSGAIISampler",
)


def installed(name: str) -> None:
    library = name.partition(":")[0]
    if library != "random" and importlib.util.find_spec(library) is None:
        pytest.skip(f'{library} is not installed: pip install -e ".[optimizers]"')


@pytest.mark.filterwarnings("ignore")  # of libraries, about matters of their own
@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_spends_the_budget_improves_and_repeats_itself(name: str) -> None:
    installed(name)
    np.random.seed(1)  # noqa: NPY002 - what libraries draw from must come back
    before = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    found = []
    for seed in (3, 3, 4):
        problem = harness.problem("fake", dim=5, budget=60)
        minimize(name, problem, seed)
        found.append(problem.losses)
        assert problem.evaluations == 60
        assert problem.budget_left == 0
        assert problem.best.loss < problem.losses[0]
        assert 0 <= problem.test_score() <= 1
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index] # noqa: NPY002
    assert found[0].tolist() == found[1].tolist()
    chance = not name.startswith("scipy") or "annealing" in name or "evolution" in name
    assert (found[0].tolist() != found[2].tolist()) or not chance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["random", "cma", "nevergrad", "scipy", "pymoo", "optuna"])
def test_an_optimizer_searches_a_mixed_space(name: str) -> None:
    installed(name)
    problem = harness.problem("fake", space="mixed", dim=3, budget=40, templates=("{a} {mask} .", "{a} . {mask}"))
    minimize(name, problem, 1)
    assert problem.evaluations == 40
    template, first, second = problem.points[:, 3:].T
    assert len(set(np.rint(template))) > 1 or name == "scipy"  # a local method may stay where it is
    assert first.max() <= 31
    assert second.min() >= 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("adam", "random, cma"),
        ("cma:XYZ", "CMA_diagonal"),
        ("random:walk", "uniform and normal"),
        ("nevergrad:Nothing", "registry"),
        ("scipy:Newton", "Powell"),
        ("pymoo:NSGA9", "DE"),
        ("optuna:BaseSampler", "cannot be made|no sampler"),
        ("optuna:logging", "TPESampler"),
    ],
)
def test_a_method_that_is_none_says_which_there_are(name: str, says: str) -> None:
    installed(name) if name != "adam" else None
    problem = harness.problem("fake", dim=3, budget=10)
    with pytest.raises(InputError, match=says):
        minimize(name, problem, 1)
    assert problem.evaluations == 0


def test_a_library_that_is_not_here_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"\.\[optimizers\]"):
        minimize("pymoo", harness.problem("fake", dim=3, budget=10), 1)


def test_an_optimizer_that_asks_nothing_ends() -> None:
    """Restarts go on only while they evaluate something."""
    problem = harness.problem("fake", dim=3, budget=10)
    assert sum(1 for _ in adapters._rounds(problem)) == 1


def test_a_population_that_does_not_fit_is_evaluated_as_far_as_it_does() -> None:
    problem = harness.problem("fake", dim=3, budget=33)
    minimize("random", problem, 1)
    assert problem.evaluations == 33


def test_ioh_takes_the_problem_and_logs_it(tmp_path: Any) -> None:
    ioh = pytest.importorskip("ioh", reason='needs pip install -e ".[optimizers]"')
    problem = harness.problem("fake", dim=4, budget=12)
    function = as_ioh(problem, name="fake-prompt")
    assert problem.evaluations == 0
    assert function.bounds.lb.tolist() == [-5] * 4
    logger = ioh.logger.Analyzer(root=str(tmp_path), folder_name="logs", algorithm_name="random")
    function.attach_logger(logger)
    rng = np.random.default_rng(0)
    for _ in range(12):
        function(rng.uniform(-5, 5, 4))
    with pytest.raises(BudgetExhausted):
        function(np.zeros(4))
    assert function.state.evaluations == problem.evaluations == 12
    assert function.state.current_best.y == problem.best.loss
    function.detach_logger()
    logger.close()
    assert list(tmp_path.rglob("*.dat"))
