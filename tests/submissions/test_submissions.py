"""Properties of every submission, on the fake model."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, Coordinates, cross_entropy, hinge, negative_accuracy
from harness.blackbox.projection import matrix
from harness.solving.answers import from_bytes, to_bytes

if TYPE_CHECKING:
    from .conftest import Bench

SEARCHES = ("random_search", "bbt", "bbtv2", "ajo", "nevergrad")
TEXT = ("bdpl", "grips", "instruction_search", "random_template_search")
EVERY = ("manual", "spsa", *SEARCHES)
# Those that end by themselves, or have no search to speak of, have all their tests in files of their own.
ALL = (
    *("bbt_rgb", "dect", "feature_bilstm", "feature_mlp", "house", "icl", "private_selection", "projection_free_es"),
    *(*TEXT, *EVERY),
)
LEAST = {"random_search": 0.8, "bbt": 0.92, "bbtv2": 0.92, "ajo": 0.92, "nevergrad": 0.92}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bbt", {"loss": "hinge"}),
    ("bbt", {"loss": "accuracy"}),
    ("bbt", {"injection": "prepend"}),
    ("bbt", {"projection": "uniform", "width_from": "unit", "sigma": 0.5, "bound": 5.0}),
    ("bbt", {"selection": "faithful"}),
    ("bbt", {"select": "loss"}),
    ("bbt", {"tokens": 2}),
    ("bbtv2", {"accept": "best"}),
    ("bbtv2", {"loss": "hinge", "alpha_deep": 1.0}),
    ("bbtv2", {"projection": "uniform"}),
    ("bbtv2", {"selection": "faithful", "accept": "best"}),
    ("ajo", {"calibrate": "faithful"}),
    ("ajo", {"calibrate": "none"}),
    ("ajo", {"head": False}),
    ("ajo", {"joint": False}),
    ("ajo", {"head_every": "layer"}),
    ("ajo", {"loss": "hinge"}),
    ("ajo", {"accept": "best", "width_from": "unit"}),
]
PLAIN = {"instruction": False, "words": 0, "polish": 0.0}
"""BBT-RGB with nothing but its first stage."""


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
    run = bench.run(name)
    looks = sum(1 if prompts is None else len(prompts.z) for prompts in run.dev)  # as dear as a call each
    assert 0 < looks <= 0.1 * run.lm.budget.calls_total


def test_searches_end_up_near_the_planted_optimum(bench: Bench) -> None:
    """CMA-ES lowers the training loss well below what random search finds."""
    losses = {}
    for name in ("random_search", "bbt"):
        run = bench.run(name)
        q = run.outputs(run.answers[-1].members[0].prompt, run.shots.train).logits
        losses[name] = float(cross_entropy(q, run.shots.train.labels)[0])
    assert losses["bbt"] < 0.5 * losses["random_search"]


@pytest.mark.parametrize("name", ALL)
def test_only_the_contract_is_imported(bench: Bench, name: str) -> None:
    """Harness's top level and what solvers share, numpy, its own modules and its library; never another submission."""
    files = list(Path(str(bench.load(name).__file__)).parent.glob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    standard = {"__future__", "collections", "collections.abc", "dataclasses", "itertools", "math", "re", "typing"}
    numerics = {"harness", "harness.solving", "numpy", "numpy.typing", *(file.stem for file in files)}
    libraries = {
        "nevergrad": {"nevergrad"},
        "feature_mlp": {"sklearn.neural_network"},
        "feature_bilstm": {"torch"},
        "house": {"scipy.optimize"},
        "bbt_rgb": {"scipy.optimize"},
    }
    assert modules - standard <= numerics | libraries.get(name, set())


def test_the_fake_and_the_contract_need_no_torch() -> None:
    """Start-up time counts: importing both loads no torch."""
    code = "import sys, harness, harness.blackbox.fake; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_manual_costs_nothing(bench: Bench) -> None:
    """One answer, no queries."""
    run = bench.run("manual")
    assert [a.members[0].prompt for a in run.answers] == [None]
    assert run.lm.meter.spent == 0


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("select", ["metric", "loss"])
def test_the_notes_dev_is_the_metric(bench: Bench, name: str, select: str) -> None:
    """Whatever dev decides by."""
    run = bench.run(name, select=select)
    noted = [answer for answer in run.answers if "dev" in answer.note]
    assert noted
    for answer in noted:
        assert replace(run, test=run.shots.dev).accuracy(answer) == answer.note["dev"]


@pytest.mark.parametrize(
    ("name", "loss", "function"),
    [
        ("bbt", "ce", cross_entropy),
        ("bbt", "hinge", hinge),
        ("bbt", "accuracy", negative_accuracy),
        ("bbtv2", "ce", cross_entropy),
        ("bbtv2", "hinge", hinge),
    ],
)
def test_the_search_is_told_the_loss_that_was_asked_for(bench: Bench, name: str, loss: str, function: Any) -> None:
    """That of every candidate, generation by generation."""
    run = bench.run(name, calls=130, loss=loss)
    assert len(run.told) == len(run.train) == 6
    for prompts, told in zip(run.train, run.told, strict=True):
        q = run.outputs(prompts, run.shots.train).logits
        np.testing.assert_allclose(told.losses, function(q, run.shots.train.labels))


@pytest.mark.parametrize(
    ("name", "layers", "place", "options"),
    [
        ("bbt", 1, 0, {}),
        ("bbtv2", 3, 1, {}),
        ("bbt_rgb", 3, 1, PLAIN),
        ("ajo", 3, 1, {}),
        ("house", 3, 1, {"head": False}),
    ],
)
def test_dev_is_shown_the_means_of_the_searches(
    bench: Bench, name: str, layers: int, place: int, options: dict[str, Any]
) -> None:
    """As they are after the generation before the look, beside the best sample."""
    run = bench.run(name, calls=200, dev_every=1, **options)
    looks = [prompts for prompts in run.dev if prompts is not None]
    assert len(looks) == len(run.told) >= 7
    means = np.zeros((layers, 30), dtype=np.float32)
    for n, (look, told) in enumerate(zip(looks, run.told, strict=True)):
        means[n % layers] = told.mean
        assert look.z.shape == (2, layers, 30)
        np.testing.assert_array_equal(look.z[place], means)
        assert (look.z[1 - place] != means).any()


@pytest.mark.parametrize(
    ("name", "options"),
    [("bbt", {}), ("bbtv2", {}), ("bbt_rgb", PLAIN), ("ajo", {"head": False, "calibrate": "none"})],
)
@pytest.mark.parametrize("select", ["metric", "loss"])
def test_answers_are_the_looks_that_dev_prefers_to_all_before(
    bench: Bench, name: str, select: str, options: dict[str, Any]
) -> None:
    """By its metric and then its loss, or the other way round; the bare template is the first to beat."""
    run = bench.run(name, calls=600, dev_every=1, select=select, **options)
    labels = run.shots.dev.labels
    best, kept, ties = (-np.inf, -np.inf), [], 0
    for look in run.dev:
        q = run.outputs(look, run.shots.dev).logits
        metrics, losses = (q.argmax(axis=-1) == labels).mean(axis=-1), cross_entropy(q, labels)
        for n, score in enumerate(zip(metrics, -losses, strict=True)):
            ranked = score if select == "metric" else score[::-1]
            if ranked > best:
                ties += ranked[0] == best[0]
                best = ranked
                kept += [] if look is None else [look.z[n].tolist()]
    assert len(kept) > 4
    assert (ties > 0) == (select == "metric")
    prompts = [answer.members[0].prompt for answer in run.answers]
    assert kept == [prompt.z[0].tolist() for prompt in prompts if isinstance(prompt, Coordinates)]


def test_a_converged_search_starts_again(bench: Bench) -> None:
    """On a line the samples draw together until CMA-ES stops; later ones are as far apart as the first."""
    run = bench.run("bbt", calls=2300, dim=1)
    widths = [float(prompts.z.std()) for prompts in run.train]
    narrowest = int(np.argmin(widths))
    assert widths[narrowest] < 1e-6
    assert max(widths[narrowest:]) > 0.5


@pytest.mark.parametrize("bound", [0.0, 0.5])
def test_the_box_holds_everything_that_is_asked(bench: Bench, bound: float) -> None:
    """Samples, best sample and mean; without a box, samples lie further out."""
    run = bench.run("bbt", calls=130, bound=bound)
    farthest = max(float(np.abs(prompts.z).max()) for prompts in run.train + run.dev if prompts is not None)
    assert (farthest <= 0.5) == (bound > 0)


def test_serial_queries_change_nothing_but_their_number(bench: Bench) -> None:
    """On a model whose rows do not depend on each other, down to the last bit; the price is the same."""
    runs = [bench.run("bbt", calls=130, queries=queries) for queries in ("population", "serial")]
    together, alone = runs
    assert [len(p.z) for p in together.train] == [20] * 6
    assert [len(p.z) for p in alone.train] == [1] * 120
    assert [to_bytes(a) for a in together.answers] == [to_bytes(a) for a in alone.answers]
    assert together.lm.meter.spent == alone.lm.meter.spent
    assert together.ended_by_budget
    assert alone.ended_by_budget


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"alpha": 1.0}, 0.55),  # the first layer's input on the fake model
        ({"alpha": 0.2}, 0.11),
        ({"alpha": 0.5, "width_from": "embedding"}, 0.028),  # the word embeddings': 0.056
        ({"alpha": 1.0, "width_from": "unit", "projection": "uniform"}, 1 / 3**0.5),  # U(-1, 1) has variance 1/3
    ],
)
def test_first_prompts_are_as_wide_as_alpha_says(
    bench: Bench, options: dict[str, Any], expected: float, sigma: float
) -> None:
    """Measured on the values A z of the first generation: alpha times the standard deviation, whatever sigma is."""
    run = bench.run("bbt", calls=25, dim=500, sigma=sigma, **options)
    (first,) = run.train
    values = first.z[:, 0] @ matrix(first.space, 0, run.lm.info.width).T  # (20, tokens * width)
    assert values.std() == pytest.approx(expected, rel=0.06)


def test_first_prompts_of_each_layer_are_as_wide_as_its_input(bench: Bench) -> None:
    """BBTv2's per-layer widths, measured: 1 at the input and 0.2 above, in standard deviations of the layer's input."""
    run = bench.run("bbtv2", calls=65, dim=500)
    for layer, (query, alpha) in enumerate(zip(run.train, (1.0, 0.2, 0.2), strict=True)):
        values = query.z[:, layer] @ matrix(query.space, layer, run.lm.info.width).T
        assert values.std() == pytest.approx(alpha * run.lm.info.hidden_std[layer], rel=0.06)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (4, "normal", "add")),  # as long as the track allows
        ({"tokens": 1}, (1, "normal", "add")),
        ({"tokens": 3}, (3, "normal", "add")),
        ({"projection": "uniform"}, (4, "uniform", "add")),
        ({"injection": "prepend"}, (4, "normal", "prepend")),
    ],
)
def test_the_subspace_is_an_option(bench: Bench, options: dict[str, Any], expected: tuple[int, str, str]) -> None:
    """Tokens of the prompt, entries of A, and how the prompt meets the text."""
    space = bench.run("bbt", calls=30, **options).train[0].space
    assert (space.tokens, space.distribution, space.mode) == expected


@pytest.mark.parametrize("optimizer", ["FCMA", "ImageMetaModel"])
def test_nevergrad_refuses_what_cannot_be_asked(bench: Bench, optimizer: str) -> None:
    """A missing package, or an optimiser that is not made for a vector: the error says which, and what to try."""
    with pytest.raises(ValueError, match=f"{optimizer} cannot be asked .* try NGOpt"):
        bench.run("nevergrad", optimizer=optimizer)


@pytest.mark.parametrize("most", [0, 1])
def test_nevergrad_goes_one_by_one_where_asking_ahead_is_refused_late(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Some claim to take many workers and raise when given some (DS9); what cannot even take one is refused."""

    class Late:
        no_parallelization = False

        def __init__(self, _: Any, budget: int, num_workers: int) -> None:
            if num_workers > most:
                raise ValueError(f"{num_workers} workers of {budget} refused")
            self.num_workers = num_workers

    module = bench.load("nevergrad")
    monkeypatch.setitem(module.ng.optimizers.registry, "Late", Late)
    if most:
        assert module.optimizer(module.Config(optimizer="Late"), 100, np.random.default_rng(0)).num_workers == 1
    else:
        with pytest.raises(ValueError, match="cannot set up Late at dim 500: 1 workers of 100 refused"):
            module.optimizer(module.Config(optimizer="Late"), 100, np.random.default_rng(0))


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


def test_nevergrad_without_options_is_ngopt(bench: Bench) -> None:
    """The same answers as with the name given."""
    module = bench.load("nevergrad")
    assert module.Config() == module.Config(optimizer="NGOpt")


@pytest.mark.parametrize("optimizer", ["BO", "PCABO", "NoSuchThing"])
def test_nevergrad_refuses_by_name(bench: Bench, optimizer: str) -> None:
    """Bayesian optimisers hang at these dimensions; the error names the one that was asked for."""
    with pytest.raises(ValueError, match=optimizer):
        bench.load("nevergrad").Config(optimizer=optimizer)
