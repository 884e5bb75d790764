"""Submissions that change weights, on the fake model."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Weights, cross_entropy
from harness.solving.answers import from_bytes, probabilities, to_bytes

if TYPE_CHECKING:
    from .conftest import Bench

SEARCHES: dict[str, dict[str, Any]] = {
    "bitfit_es": {"dim": 30},
    "lora_es": {"dim": 30},
    "adapter_es": {"dim": 30, "std": 0.5},
    "dfo_lora": {"dim": 30},
}
WALKS: dict[str, dict[str, Any]] = {
    "mezo": {"eps": 0.01, "eta": 1e-3, "where": "biases"},
    "es_weights": {"where": "biases", "sigma": 0.3, "eta": 0.3, "layers": "all"},
}
"""Steps that suit the fake, whose loss is flatter than a model's."""
HOUSE: dict[str, dict[str, Any]] = {"house_weights": {"dim": 30}}
EVERY = SEARCHES | WALKS | HOUSE
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bitfit_es", {"dim": 10, "group": "norms", "layers": "all"}),
    ("bitfit_es", {"dim": 10, "loss": "hinge", "select": "loss"}),
    ("lora_es", {"dim": 10, "beside": "query-key", "rank": 2, "layers": "all"}),
    ("mezo", {"where": "lora", "noise": "normal", "clip": 0.5}),
    ("mezo", {"where": "all", "decay": False}),
    ("adapter_es", {"dim": 10, "inner": 2, "layers": "all", "select": "loss"}),
    ("es_weights", {"where": "all", "pairs": 3, "noise": "rademacher"}),
    ("es_weights", {"where": "feed_forward", "layers": "all", "rank": 4}),
    ("es_weights", {"where": "attention", "rank": None}),
    ("dfo_lora", {"dim": 10, "beside": "query-value", "layers": "upper", "turn": 2}),
    ("dfo_lora", {"dim": 10, "search": "fireworks"}),
    ("dfo_lora", {"dim": 10, "rank": 1, "alpha": 0.1, "dev_every": 1, "select": "loss"}),
    ("house_weights", {"dim": 10, "where": "both"}),
    ("house_weights", {"dim": 10, "folds": 4}),
]


def run(bench: Bench, name: str, options: dict[str, Any], **more: Any) -> Any:
    """Run on the fake; `dim` is no option of some."""
    module = bench.load(name)
    lm, task, shots = bench.setting(calls=more.get("calls", 300), classes=more.get("classes", 2))
    answers: list[Answer] = []
    with contextlib.suppress(BudgetExhausted):
        answers.extend(
            module.tune(lm, task, shots, np.random.default_rng(more.get("seed", 0)), module.Config(**options))
        )
    return answers, lm, task, shots


@pytest.mark.parametrize("name", SEARCHES | WALKS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_last_answer_has_a_lower_loss_than_the_bare_template(bench: Bench, name: str, classes: int) -> None:
    answers, lm, task, shots = run(bench, name, EVERY[name], classes=classes)
    assert answers[0].members[0].prompt is None
    assert isinstance(answers[-1].members[0].prompt, Weights)

    def loss(answer: Answer) -> float:
        q = lm.free.outputs(answer.members[0].prompt, shots.train.texts, task.template, task.words).logits
        return float(cross_entropy(q, shots.train.labels)[0])

    assert loss(answers[-1]) < 0.9 * loss(answers[0])


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(bench: Bench, name: str) -> None:
    blobs = [[to_bytes(a) for a in run(bench, name, EVERY[name], seed=seed)[0]] for seed in (3, 3, 4)]
    assert blobs[0] == blobs[1]
    assert blobs[0][-1] != blobs[2][-1]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("calls", [1, 2, 3, 20, 24])
def test_a_tiny_budget_still_gives_an_answer(bench: Bench, name: str, calls: int) -> None:
    answers, lm, _, _ = run(bench, name, EVERY[name], calls=calls)
    assert answers
    assert lm.budget.rows_left >= 0


@pytest.mark.parametrize("name", EVERY)
def test_most_of_the_budget_is_spent(bench: Bench, name: str) -> None:
    assert 0 <= run(bench, name, EVERY[name])[1].budget.calls_left < 25


@pytest.mark.parametrize("name", EVERY)
def test_answers_survive_the_wire(bench: Bench, name: str) -> None:
    for answer in run(bench, name, EVERY[name])[0]:
        blob = to_bytes(answer)
        assert to_bytes(from_bytes(blob)) == blob


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_options_work(bench: Bench, name: str, options: dict[str, Any]) -> None:
    answers, lm, _, _ = run(bench, name, options, calls=100)
    assert answers
    assert lm.logged


def test_fireworks_move_to_better_sparks_alone(bench: Bench) -> None:
    module = bench.load("dfo_lora")
    search = module.Fireworks(3, 50, np.random.default_rng(0), 1.0)
    start = search.ask()
    assert abs(start.std() - 1) < 0.1
    search.tell(np.arange(50.0))
    assert (search.mean == start[0]).all()
    assert search.state["sigma"] == pytest.approx(1.2)
    search.ask()
    search.tell(np.arange(50.0))  # not below the loss that it has
    assert (search.mean == start[0]).all()
    assert search.state["sigma"] == pytest.approx(1.2 * 0.9)
    search = module.Fireworks(3, 50, np.random.default_rng(0), 1.0)
    for _ in range(60):
        search.tell(((search.ask() - 2) ** 2).sum(axis=1))
    assert abs(search.mean - 2).max() < 0.05


def watched(lm: Any, shots: Any) -> list[Any]:
    """A list that grows by what is asked of all training texts, and its losses."""
    seen: list[Any] = []
    logits = lm.logits

    def asked(prompts: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        q = logits(prompts, texts, *rest, **more)
        if texts == shots.train.texts:
            seen.append((prompts, cross_entropy(q, shots.train.labels)))
        return q

    lm.logits = asked
    return seen


def test_one_layer_moves_at_a_time_and_the_others_stand_at_their_best(bench: Bench) -> None:
    module = bench.load("dfo_lora")
    lm, task, shots = bench.setting(calls=120)
    seen = watched(lm, shots)
    answers = list(module.tune(lm, task, shots, np.random.default_rng(0), module.Config(dim=30)))
    assert [weights.space.layers for weights, _ in seen] == [(0,), (1,), (2,), (0,), (1,)][: len(seen)]
    assert len(seen) > 3
    best, best_loss = {}, np.inf
    for weights, losses in seen:
        assert len(weights.z) == 20
        assert {part.space.layers: part.z[0].tolist() for part in weights.more} == {
            layers: z for layers, z in best.items() if layers != weights.space.layers
        }
        if losses.min() < best_loss:
            best[weights.space.layers], best_loss = weights.z[losses.argmin()].tolist(), losses.min()
    last = answers[-1].members[0].prompt
    assert isinstance(last, Weights)
    assert len({part.space.seed for part in last.parts}) == len(last.parts)


def test_ranks_are_centred_and_the_best_is_the_highest(bench: Bench) -> None:
    module = bench.load("es_weights")
    assert module.centred_ranks(np.array([0.1, 5.0, -3.0])).tolist() == [0.0, 0.5, -0.5]
    streams, z = module.mirrored(np.array([0.5, 0.25]), 2, 0.1)
    assert streams.tolist() == [[0, 1, 2], [0, 1, 3], [0, 1, 2], [0, 1, 3]]
    assert z[:, 2].tolist() == [0.1, 0.1, -0.1, -0.1]
    assert (z[:, :2] == [0.5, 0.25]).all()


def test_house_on_weights_keeps_the_bare_model_and_beats_it(bench: Bench) -> None:
    answers, lm, task, shots = run(bench, "house_weights", {"dim": 30})
    last = answers[-1]
    assert last.members[0].prompt is None
    assert all(isinstance(member.prompt, Weights) for member in last.members[1:])
    assert len(last.members) > 1
    first, best = (
        (probabilities(each, task, lm.free, shots.dev.texts).argmax(axis=1) == shots.dev.labels).mean()
        for each in (answers[0], last)
    )
    assert best > first


def test_mezo_s_estimate_is_the_slope_along_its_noise(bench: Bench) -> None:
    """The coefficient of a step is -eta g, with g from the two losses that the submission saw."""
    module = bench.load("mezo")
    lm, task, shots = bench.setting(calls=20)
    seen = watched(lm, shots)
    config = module.Config(eps=0.05, eta=0.1, decay=False, looks=1)
    answers = list(module.tune(lm, task, shots, np.random.default_rng(0), config))
    for t, (walk, losses) in enumerate(seen[:-1]):
        assert walk.streams.tolist() == [list(range(t + 1))] * 2
        assert walk.z[:, t].tolist() == pytest.approx([0.05, -0.05])
        assert seen[t + 1][0].z[0, t] == pytest.approx(-0.1 * (losses[0] - losses[1]) / 0.1, rel=1e-5)
    assert len(answers) <= 2


def test_the_noise_of_matrices_has_the_rank_that_is_asked_for(bench: Bench) -> None:
    for options, rank in (({}, 1), ({"rank": None}, 0), ({"rank": 4}, 4), ({"where": "biases"}, 0)):
        answers, *_ = run(bench, "es_weights", {"sigma": 0.3, "eta": 0.3, "layers": "all", **options})
        walks = [each.members[0].prompt for each in answers[1:]]
        assert all(isinstance(each, Weights) and each.space.rank == rank for each in walks)
        assert walks or "where" not in options
