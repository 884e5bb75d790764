"""Projection-free ES: its rates, its convergence, its regulariser, and its price."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, Examples, Prompt, cross_entropy
from harness.blackbox.fake import fake_examples
from harness.solving.answers import check, from_bytes, probabilities, to_bytes

if TYPE_CHECKING:
    from types import ModuleType

    from harness.blackbox.fake import FakeLM

    from .conftest import Bench

COVARIANCES = ("diagonal", "low-rank")


@pytest.fixture(scope="module")
def pfes(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("projection_free_es")


@pytest.fixture(scope="module")
def strategy(pfes: ModuleType) -> ModuleType:
    """The module of the evolution strategy beside it."""
    return sys.modules[pfes.Search.__module__]


def run(bench: Bench, calls: int = 300, seed: int = 0, classes: int = 2, **options: Any) -> tuple[list[Answer], FakeLM]:
    """All answers of one run on the fake, and the model with its meter."""
    module = bench.load("projection_free_es")
    lm, task, shots = bench.setting(classes, calls)
    answers = list(module.tune(lm, task, shots, np.random.default_rng(seed), module.Config(**options)))
    for answer in answers:
        check(answer, task, lm.info.width)
    return answers, lm


def accuracy(answer: Answer, lm: FakeLM) -> float:
    """Test accuracy."""
    test = fake_examples(lm.free.task, 1000, np.random.default_rng(999))
    p = probabilities(answer, lm.free.task, lm.free, test.texts)
    return float((p.argmax(axis=1) == test.labels).mean())


def minimise(strategy: ModuleType, f: Any, size: int, generations: int, **options: Any) -> float:
    """How far the mean gets: f there, as a share of f at the start."""
    search = strategy.Search(size, np.random.default_rng(1), **{"sigma": 0.3, **options})
    start = float(f(search.mean))
    for _ in range(generations):
        search.tell(f(search.ask()))
    return float(f(search.mean)) / start


# ── rates and weights ────────────────────────────────────────────────────────────────────────────────────────


def test_rates_by_hand(strategy: ModuleType) -> None:
    """At d = 10, mu_eff = 5: 7/20; 1 + 7/20; 4.5/15; 4 * 2/(11.3^2 + 5); 4 * 2 * 3.2/(12^2 + 5)."""
    rates = dataclasses.astuple(strategy.Rates.of(10, 5.0))
    np.testing.assert_allclose(rates, [0.35, 1.35, 0.3, 8 / 132.69, 25.6 / 149], rtol=1e-12)


def test_large_populations_are_damped(strategy: ModuleType) -> None:
    """At d = 3, mu_eff = 37: 2 (sqrt(36/4) - 1) = 4 comes on top, and c_mu is what c_1 leaves."""
    rates = strategy.Rates.of(3, 37.0)
    assert rates.damping == pytest.approx(1 + 4 + 39 / 45)
    assert rates.one == pytest.approx(5 / 3 * 2 / (4.3**2 + 37))
    assert rates.mu == pytest.approx(1 - rates.one)


def test_weights_by_hand(strategy: ModuleType) -> None:
    """Of two parents: ln(2.5/1) : ln(2.5/2)."""
    first, second = np.log(2.5), np.log(1.25)
    np.testing.assert_allclose(strategy.weights(2), np.array([first, second]) / (first + second))


def test_rates_are_those_of_the_intrinsic_dimension(strategy: ModuleType) -> None:
    """Whatever D is; d is at most D."""
    mu_eff = strategy.Search(1000, np.random.default_rng(0)).mu_eff
    for size, d in ((1000, 500), (3072, 500), (64, 64)):
        search = strategy.Search(size, np.random.default_rng(0))
        assert search.rates == search.shape.rates == strategy.Rates.of(d, mu_eff)


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_mirrored_samples_sum_to_zero(strategy: ModuleType, covariance: str) -> None:
    """Around the mean, in every generation, with any covariance; independent samples do not."""
    for mirrored in (True, False):
        search = strategy.Search(30, np.random.default_rng(0), 10, covariance=covariance, mirrored=mirrored)
        for _ in range(5):
            xs = search.ask()
            assert xs.shape == (20, 30)
            total = np.abs((xs - search.mean).sum(axis=0)).max()
            assert (total < 1e-10) == mirrored
            search.tell((xs**2).sum(axis=1))


def test_better_one_of_each_pair_is_a_parent(strategy: ModuleType) -> None:
    """Three pairs (0, 3), (1, 4), (2, 5), best pair first; without mirrors the best three of all."""
    losses = np.array([5.0, 1.0, 9.0, 4.0, 0.0, 8.0])
    for mirrored, parents in ((True, [4, 3, 5]), (False, [4, 1, 3])):
        search = strategy.Search(2, np.random.default_rng(0), population=6, mirrored=mirrored)
        assert search.parents(losses).tolist() == parents


def test_first_generation_by_hand(strategy: ModuleType) -> None:
    """Mean, path, step size and variances follow from z, w and the rates."""
    search = strategy.Search(10, np.random.default_rng(3), dim=10, population=4, sigma=0.5)
    xs, u = search.ask(), np.random.default_rng(3).standard_normal((2, 10))
    np.testing.assert_allclose(xs, 0.5 * np.concatenate([u, -u]))
    search.tell(np.array([2.0, 5.0, 3.0, 1.0]))  # parents: -u_2, then u_1
    w, r = strategy.weights(2), search.rates
    step = w[0] * -u[1] + w[1] * u[0]
    np.testing.assert_allclose(search.mean, 0.5 * step)
    path = np.sqrt(r.sigma * (2 - r.sigma) * search.mu_eff) * step
    assert search.sigma == pytest.approx(0.5 * np.exp(r.sigma / (2 * r.damping) * ((path**2).sum() / 10 - 1)))
    pc = np.sqrt(r.path * (2 - r.path) * search.mu_eff) * step
    spread = w[0] * u[1] ** 2 + w[1] * u[0] ** 2
    np.testing.assert_allclose(search.shape.c, (1 - r.one - r.mu) + r.one * pc**2 + r.mu * spread)


def test_low_rank_steps_by_hand(strategy: ModuleType) -> None:
    """Two paths, one more each generation: y <- (1 - c) y + c (d / D) p (p y), c = 1/d and 1/(1.5 d)."""
    model = strategy.LowRank(4, 2, population=20, rank=2)
    z = np.array([[1.0, 2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(model.transform(z), z)
    model.paths = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 1.0]])
    model.generations = 1
    once = 0.5 * z + 0.5 * 0.5 * 2 * np.array([[2.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(model.transform(z), once)
    model.generations = 2
    c = 1 / 3
    twice = (1 - c) * once + c * 0.5 * (once @ model.paths[1]) * model.paths[1]
    np.testing.assert_allclose(model.transform(z), twice)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("mirrored", [True, False])
def test_random_selection_moves_no_step_size(strategy: ModuleType, covariance: str, mirrored: bool) -> None:
    """Pairs that take part as a whole would shrink it: the better one alone is a draw of N(0, I)."""
    search = strategy.Search(300, np.random.default_rng(0), 100, covariance=covariance, mirrored=mirrored)
    chance = np.random.default_rng(1)
    for _ in range(200):
        search.ask()
        search.tell(chance.standard_normal(20))
    assert search.sigma == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize(
    ("covariance", "condition", "share"),
    [("diagonal", 1, 1e-12), ("diagonal", 1e4, 1e-10), ("low-rank", 1, 1e-3), ("low-rank", 10, 1e-2)],
)
def test_search_converges_on_quadratics(
    strategy: ModuleType, mirrored: bool, covariance: str, condition: float, share: float
) -> None:
    """Sphere and ellipsoid in 40 dimensions, optimum away from the start."""
    h = np.logspace(0, np.log10(condition), 40)
    got = minimise(
        strategy, lambda x: (h * (x - 1.0) ** 2).sum(axis=-1), 40, 500, covariance=covariance, mirrored=mirrored
    )
    assert got < share


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_rates_of_the_intrinsic_dimension_pay_off(strategy: ModuleType, covariance: str) -> None:
    """An ellipsoid in 8 of 400 dimensions, in no axis's direction, 400 generations (8,000 calls): five times closer."""
    rng = np.random.default_rng(0)
    projection, goal = rng.standard_normal((8, 400)) / 20, 2 * rng.standard_normal(8)
    h = np.logspace(0, 3, 8)

    def f(x: Any) -> Any:
        return (h * (x @ projection.T - goal) ** 2).sum(axis=-1)

    intrinsic, full = (minimise(strategy, f, 400, 400, covariance=covariance, dim=d) for d in (8, 400))
    assert intrinsic < full / 5


# ── fitness and prompts ──────────────────────────────────────────────────────────────────────────────────────


def test_regulariser_by_hand(pfes: ModuleType) -> None:
    """Label words with 3/8 + 1/8 = 1/2, and 1/16 + 1/16 = 1/8: mean log mass -2 ln 2, CE (ln 4/3 + ln 2) / 2."""
    log_p = np.log(np.array([[[3 / 8, 1 / 8], [1 / 16, 1 / 16]]], dtype=np.float32))
    examples = Examples((("a",), ("b",)), np.array([0, 1]))
    ce = (np.log(4 / 3) + np.log(2)) / 2
    np.testing.assert_allclose(pfes.fitness(log_p, examples, 0.0), [ce], rtol=1e-6)
    np.testing.assert_allclose(pfes.fitness(log_p, examples, 0.1), [ce + 0.2 * np.log(2)], rtol=1e-6)


def test_more_regularisation_gives_more_mass(bench: Bench, pfes: ModuleType) -> None:
    """Where the search ends, label words have more of the vocabulary's probability."""
    mass = []
    for tau in (0.0, 3.0):
        lm, _, shots = bench.setting(calls=401)
        size, place = pfes.search_space(lm.info, pfes.Config())
        search = pfes.Search(size, np.random.default_rng(0))
        for _ in range(20):
            search.tell(pfes.fitness(pfes.log_probabilities(lm, place(search.ask()), shots.train), shots.train, tau))
        log_p = pfes.log_probabilities(lm, place(search.mean), shots.train)[0]
        mass.append(np.logaddexp.reduce(log_p, axis=-1).mean())
    assert mass[1] > mass[0] + 0.1


@pytest.mark.parametrize(("layers", "count"), [("input", 1), ("all", 3)])
def test_prompts_are_as_wide_as_they_should_be(bench: Bench, pfes: ModuleType, layers: str, count: int) -> None:
    """Values at the input or at all layers, in standard deviations of the layers' inputs."""
    lm, _, _ = bench.setting()
    size, place = pfes.search_space(lm.info, pfes.Config(layers=layers, alpha_deep=0.25))
    assert size == count * 4 * 16
    prompt = place(np.ones((5, size)))
    assert prompt.values.shape == (5, count, 4, 16)
    assert prompt.values.dtype == np.float32
    expected = np.array([1.0, 0.25, 0.25])[:count] * lm.info.hidden_std[:count]
    np.testing.assert_allclose(prompt.values[3, :, 2, 7], expected, rtol=1e-6)


def test_large_prompts_go_in_several_queries(bench: Bench, pfes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same logits for the same price, in order."""
    lm, _, shots = bench.setting()
    prompt = Prompt(np.random.default_rng(0).standard_normal((7, 1, 4, 16)).astype(np.float32))
    whole = pfes.log_probabilities(lm, prompt, shots.train)
    monkeypatch.setattr(pfes, "QUERY_BYTES", 2 * 4 * 16 * 4)  # two candidates
    np.testing.assert_array_equal(pfes.log_probabilities(lm, prompt, shots.train), whole)
    assert lm.meter.spent == 2 * 7 * 32


# ── whole runs on the fake ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_final_answer_beats_the_manual_prompt(bench: Bench, covariance: str, classes: int) -> None:
    """The last answer is far above the first, which is the bare template."""
    answers, lm = run(bench, classes=classes, covariance=covariance)
    assert answers[0] == Answer.of(lm.free.task)
    assert accuracy(answers[0], lm) < 0.7
    assert accuracy(answers[-1], lm) > 0.92


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "all"},
        {"mirrored": False},
        {"tau": 0.0},
        {"select": "loss"},
        {"sigma": 0.3},
        {"dim": 8},
        {"dim": 8, "covariance": "low-rank", "rank": 3},
        {"population": 10},
    ],
)
def test_options_work(bench: Bench, options: dict[str, Any]) -> None:
    """Every option's other values beat the manual prompt."""
    answers, lm = run(bench, **options)
    assert accuracy(answers[-1], lm) > accuracy(answers[0], lm) + 0.2


def test_notes_are_those_of_the_answer(bench: Bench) -> None:
    """Metric and loss on dev, as the referee would compute them; one of the two never falls behind."""
    _, task, shots = bench.setting()
    for select in ("metric", "loss"):
        answers, lm = run(bench, select=select)
        for answer in answers[1:]:
            q = lm.free.outputs(answer.members[0].prompt, shots.dev.texts, task.template, task.words).logits
            assert answer.note["dev"] == (q[0].argmax(axis=1) == shots.dev.labels).mean()
            assert answer.note["dev_loss"] == pytest.approx(float(cross_entropy(q, shots.dev.labels)[0]), rel=1e-5)
        dev, loss = ([answer.note[name] for answer in answers[1:]] for name in ("dev", "dev_loss"))
        assert dev == sorted(dev) if select == "metric" else loss == sorted(loss, reverse=True)


def predicted(calls: int, population: int, dev_every: int, train: int = 32, dev: int = 32) -> int:
    """Rows by the README's formula."""
    if calls * train < dev:
        return 0
    c, look, k = population * train, 2 * dev, dev_every
    blocks, left = divmod(calls * train - dev, k * c + look)
    s = max(0, (left - look) // c)
    return dev + blocks * (k * c + look) + (s * c + look if s > 0 else 0)


@pytest.mark.parametrize("calls", [1, 2, 3, 20, 21, 22, 23, 24, 41, 103, 104, 299, 300])
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (10, 3), (4, 1)])
def test_budget_is_as_predicted(bench: Bench, calls: int, population: int, dev_every: int) -> None:
    """The rest is too small for another generation with its look. There is always an answer."""
    answers, lm = run(bench, calls, population=population, dev_every=dev_every)
    assert answers
    assert lm.meter.spent == predicted(calls, population, dev_every)
    assert lm.budget.calls_left < population + 2


def test_same_seed_gives_the_same_bytes(bench: Bench) -> None:
    """All chance comes from the generator that is handed in; another seed gives another prompt."""
    for covariance in COVARIANCES:
        first, again, other = (
            [to_bytes(answer) for answer in run(bench, 100, seed, covariance=covariance)[0]] for seed in (3, 3, 4)
        )
        assert first == again
        assert first[-1] != other[-1]


def test_answers_survive_the_wire(bench: Bench) -> None:
    """An answer read back from its bytes scores the same."""
    answers, lm = run(bench, layers="all")
    assert accuracy(from_bytes(to_bytes(answers[-1])), lm) == accuracy(answers[-1], lm)


@pytest.mark.parametrize("population", [2, 7])
def test_a_population_without_pairs_is_refused(pfes: ModuleType, population: int) -> None:
    """By its number."""
    with pytest.raises(ValueError, match=f"population {population}"):
        pfes.Config(population=population)
