"""What holds for every submission, on the fake model."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, cross_entropy
from harness.answer import from_bytes, to_bytes

if TYPE_CHECKING:
    from .conftest import Bench

SEARCHES = ("random_search", "bbt", "bbtv2", "ajo", "nevergrad")
EVERY = ("manual", "spsa", *SEARCHES)
# Those without a search to speak of have all their tests in files of their own.
ALL = ("dect", "feature_mlp", "icl", *EVERY)
LEAST = {"random_search": 0.8, "bbt": 0.92, "bbtv2": 0.92, "ajo": 0.92, "nevergrad": 0.92}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bbt", {"loss": "hinge"}),
    ("bbt", {"loss": "accuracy"}),
    ("bbt", {"injection": "prepend"}),
    ("bbt", {"projection": "uniform", "width_from": "unit", "sigma": 0.5, "bound": 5.0}),
    ("bbt", {"width_from": "embedding"}),
    ("bbtv2", {"accept": "best"}),
    ("bbtv2", {"loss": "hinge", "alpha_deep": 1.0}),
    ("ajo", {"calibrate": "faithful"}),
    ("ajo", {"calibrate": "none"}),
    ("ajo", {"head": False}),
    ("ajo", {"joint": False}),
    ("ajo", {"head_every": "layer"}),
    ("nevergrad", {"optimizer": "CMA"}),
    ("nevergrad", {"optimizer": "DiagonalCMA"}),
    ("nevergrad", {"optimizer": "DE"}),
]


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("classes", [2, 3])
def test_final_answer_beats_the_manual_prompt(bench: Bench, name: str, classes: int) -> None:
    """The last answer is far above the first, which is the bare template."""
    run = bench.run(name, classes=classes)
    manual = run.accuracy(Answer.of(run.task))
    assert run.accuracy(run.answers[0]) == manual < 0.7
    assert run.accuracy(run.answers[-1]) > max(manual + 0.15, LEAST[name])


@pytest.mark.parametrize("name", SEARCHES)
def test_budget_is_spent_and_never_exceeded(bench: Bench, name: str) -> None:
    """What is left does not hold another population."""
    run = bench.run(name)
    assert run.ended_by_budget
    assert 0 <= run.lm.budget.calls_left < 25


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_gives_the_same_bytes(bench: Bench, name: str) -> None:
    """All chance comes from the generator that is handed in, not from numpy's global one."""
    first = bench.run(name, seed=3)
    np.random.seed(5)  # noqa: NPY002 - to show that it does not matter
    again = bench.run(name, seed=3)
    assert [to_bytes(a) for a in first.answers] == [to_bytes(a) for a in again.answers]


@pytest.mark.parametrize("name", SEARCHES)
def test_another_seed_gives_another_answer(bench: Bench, name: str) -> None:
    """Seeds reach the subspace and the search."""
    last = [to_bytes(bench.run(name, seed=seed).answers[-1]) for seed in (3, 4)]
    assert last[0] != last[1]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("calls", [1, 2, 3, 20, 21, 24, 41])
def test_a_tiny_budget_still_gives_an_answer(bench: Bench, name: str, calls: int) -> None:
    """An answer comes before the first query, whatever the budget."""
    run = bench.run(name, calls=calls)
    assert run.answers
    assert run.lm.budget.rows_left >= 0


@pytest.mark.parametrize("name", EVERY)
def test_answers_survive_the_wire(bench: Bench, name: str) -> None:
    """An answer read back from its bytes scores the same."""
    run = bench.run(name)
    last = run.answers[-1]
    assert run.accuracy(from_bytes(to_bytes(last))) == run.accuracy(last)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_options_work(bench: Bench, name: str, options: dict[str, Any]) -> None:
    """Every option's other values run to the end of the budget and beat the manual prompt."""
    run = bench.run(name, **options)
    assert run.ended_by_budget
    assert run.accuracy(run.answers[-1]) > run.accuracy(run.answers[0]) + 0.15


@pytest.mark.parametrize("name", SEARCHES)
def test_dev_is_looked_at_sparingly(bench: Bench, name: str) -> None:
    """At most a tenth of the budget goes into selection."""
    lm, task, shots = bench.setting()
    module, dev_rows = bench.load(name), 0
    outputs = lm.outputs

    def counted(prompts: Any, texts: Any, *rest: Any) -> Any:
        nonlocal dev_rows
        before = lm.budget.rows_left
        try:
            return outputs(prompts, texts, *rest)
        finally:
            if texts == shots.dev.texts:
                dev_rows += before - lm.budget.rows_left

    lm.outputs = counted  # type: ignore[method-assign]
    with pytest.raises(Exception, match="rows asked"):
        list(module.tune(lm, task, shots, np.random.default_rng(0), module.Config(dim=30)))
    assert 0 < dev_rows <= 0.1 * lm.budget.rows_total


def test_searches_end_up_near_the_planted_optimum(bench: Bench) -> None:
    """CMA-ES lowers the training loss well below what random search finds."""
    losses = {}
    for name in ("random_search", "bbt"):
        run = bench.run(name)
        prompt = run.answers[-1].members[0].prompt
        _, task, shots = bench.setting()
        q = run.lm.free.outputs(prompt, shots.train.texts, task.template, task.words).logits
        losses[name] = float(cross_entropy(q, shots.train.labels)[0])
    assert losses["bbt"] < 0.5 * losses["random_search"]


@pytest.mark.parametrize("name", ALL)
def test_only_the_contract_is_imported(bench: Bench, name: str) -> None:
    """A submission sees harness's top level, numpy and its optimiser; never torch, never another submission."""
    tree = ast.parse(Path(str(bench.load(name).__file__)).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    standard = {"__future__", "collections.abc", "dataclasses", "itertools", "typing"}
    assert modules - standard <= {"harness", "numpy", "numpy.typing", "cma", "nevergrad"}


def test_the_fake_and_the_contract_need_no_torch() -> None:
    """Start-up time counts: importing both loads no torch."""
    code = "import sys, harness, harness.lm.fake; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_manual_costs_nothing(bench: Bench) -> None:
    """One answer, no queries."""
    run = bench.run("manual")
    assert [a.members[0].prompt for a in run.answers] == [None]
    assert run.lm.meter.spent == 0


@pytest.mark.parametrize("optimizer", ["SPSA", "Cobyla", "OnePlusOne"])
def test_nevergrad_goes_one_by_one_where_it_must(bench: Bench, optimizer: str) -> None:
    """Optimisers that cannot be asked ahead get single candidates, the others populations."""
    kind = bench.load("nevergrad")
    search = kind.optimizer(kind.Config(optimizer=optimizer, dim=30), 100, np.random.default_rng(0))
    assert search.num_workers == (20 if optimizer == "OnePlusOne" else 1)
    if optimizer != "Cobyla":  # its thread would wait for an answer until the process ends
        assert bench.run("nevergrad", optimizer=optimizer, calls=60).answers


def test_nevergrad_keeps_to_the_generations_of_its_optimiser(bench: Bench) -> None:
    """At this budget its CMA-ES has 53 candidates a generation, no multiple of what is asked for at once."""
    run = bench.run("nevergrad", optimizer="CMA", calls=3000)
    assert run.ended_by_budget
    assert run.accuracy(run.answers[-1]) > LEAST["nevergrad"]


@pytest.mark.parametrize("optimizer", ["BO", "PCABO", "NoSuchThing"])
def test_nevergrad_refuses_by_name(bench: Bench, optimizer: str) -> None:
    """Bayesian optimisers hang at these dimensions; the error names the one that was asked for."""
    with pytest.raises(ValueError, match=optimizer):
        bench.load("nevergrad").Config(optimizer=optimizer)
