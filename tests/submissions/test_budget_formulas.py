"""Rows spent on the fake model are those that the formulas in the submissions' READMEs give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import BudgetExhausted, Shots
from harness.blackbox.fake import FakeLM, fake_examples, fake_task

if TYPE_CHECKING:
    from .conftest import Bench

CALLS = [1, 2, 47, 131]
TEXTS = [(12, 20), (20, 6)]
LAYERS = 3
SMALL = {"dim": 5}


@dataclass(frozen=True)
class Bill:
    """What a run was charged for."""

    rows: int
    total: int
    train: int
    """Training texts."""
    dev: int
    """Dev texts."""
    train_queries: int
    dev_queries: int


def bill(bench: Bench, name: str, calls: int, texts: tuple[int, int], **options: Any) -> Bill:
    """Run a submission to its end with so many training and dev texts."""
    module, task = bench.load(name), fake_task()
    rng = np.random.default_rng(5)
    shots = Shots(*(fake_examples(task, count, rng) for count in texts))
    lm = FakeLM.for_task(task, shots, calls, layers=LAYERS)
    asked = {True: 0, False: 0}
    outputs = lm.outputs

    def counted(prompts: Any, some: Any, *rest: Any, **more: Any) -> Any:
        out = outputs(prompts, some, *rest, **more)
        asked[some == shots.train.texts] += 1
        return out

    lm.outputs = counted  # type: ignore[assignment,method-assign]
    try:
        for _ in module.tune(lm, task, shots, np.random.default_rng(0), module.Config(**options)):
            pass
    except BudgetExhausted:
        pass
    return Bill(lm.meter.spent, lm.budget.rows_total, *texts, asked[True], asked[False])


def in_order(total: int, queries: list[int]) -> int:
    """Rows of the queries that are answered: all before the first that does not fit."""
    rows = 0
    for query in queries:
        if rows + query > total:
            break
        rows += query
    return rows


def blocks(left: int, c: int, look: int, k: int) -> tuple[int, int]:
    """Generations and rows: k generations and a look as often as they fit, then what fits with a look of its own."""
    b, rest = divmod(left, k * c + look)
    s = (rest - look) // c
    if s > 0:
        return b * k + s, b * (k * c + look) + s * c + look
    last = int(rest >= c)  # made without room for a look
    return b * k + last, b * (k * c + look) + last * c


def faithful_blocks(left: int, c: int, look: int, k: int) -> tuple[int, int]:
    """The same without a look at the end."""
    b, rest = divmod(left, k * c + look)
    s = min(k, rest // c)
    return b * k + s, b * (k * c + look) + s * c


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("queries", ["population", "serial"])
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (7, 1), (3, 4)])
def test_bbt(bench: Bench, calls: int, texts: tuple[int, int], queries: str, population: int, dev_every: int) -> None:
    """A look at the bare template, then blocks."""
    options = {"population": population, "dev_every": dev_every, "queries": queries, **SMALL}
    spent = bill(bench, "bbt", calls, texts, **options)
    c, left = population * spent.train, spent.total - spent.dev
    expected = spent.dev + blocks(left, c, 2 * spent.dev, dev_every)[1] if left >= 0 else 0
    assert spent.rows == expected

    spent = bill(bench, "bbt", calls, texts, selection="faithful", **options)
    assert spent.rows == faithful_blocks(spent.total, c, spent.dev, dev_every)[1]


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (7, 1), (3, 4)])
@pytest.mark.parametrize("selection", ["house", "faithful"])
def test_bbtv2(
    bench: Bench, calls: int, texts: tuple[int, int], population: int, dev_every: int, selection: str
) -> None:
    """BBT's formula; without the remainder at most floor(budget / (population * layers)) rounds."""
    options = {"population": population, "dev_every": dev_every, "selection": selection, **SMALL}
    spent = bill(bench, "bbtv2", calls, texts, **options)
    first, look, count = (spent.dev, 2, blocks) if selection == "house" else (0, 1, faithful_blocks)
    c, look, left = population * spent.train, look * spent.dev, spent.total - first
    generations, rows = count(left, c, look, dev_every)
    assert spent.rows == (first + rows if left >= 0 else 0)
    assert spent.train_queries == (generations if left >= 0 else 0)

    spent = bill(bench, "bbtv2", calls, texts, remainder=False, **options)
    most = LAYERS * (left // (LAYERS * c))
    if generations > most:
        rows = most * c + most // dev_every * look
    assert spent.rows == (first + rows if left >= 0 else 0)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(
    "options", [{}, {"calibrate": "none", "head": False}, {"head_every": "layer"}, {"population": 4, "dev_every": 3}]
)
def test_ajo(bench: Bench, calls: int, texts: tuple[int, int], options: dict[str, Any]) -> None:
    """One call at the zero prompt, a look at the bare template, then blocks; the head's training is free."""
    spent = bill(bench, "ajo", calls, texts, **options, **SMALL)
    c, k = options.get("population", 20) * spent.train, options.get("dev_every", 5)
    expected = in_order(spent.total, [spent.train, spent.dev])
    if expected == spent.train + spent.dev:
        expected += blocks(spent.total - expected, c, 2 * spent.dev, k)[1]
    assert spent.rows == expected


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({"optimizer": "TwoPointsDE"}, 20),
        ({"optimizer": "PSO", "population": 30, "dev_every": 40}, 30),
        ({"optimizer": "OnePlusOne", "population": 1, "dev_every": 20}, 8),  # 4 + int(3 ln 5)
        ({"optimizer": "SPSA", "dev_every": 30}, 1),
    ],
)
def test_nevergrad(bench: Bench, calls: int, texts: tuple[int, int], options: dict[str, Any], n: int) -> None:
    """BBT's formula with the first multiple of n that is no less than `dev_every`."""
    spent = bill(bench, "nevergrad", calls, texts, **options, **SMALL)
    left = spent.total - spent.dev
    k = math.ceil(options.get("dev_every", 100) / n)
    expected = spent.dev + blocks(left, n * spent.train, 2 * spent.dev, k)[1] if left >= 0 else 0
    assert spent.rows == expected


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (7, 1), (3, 4)])
def test_random_search(bench: Bench, calls: int, texts: tuple[int, int], population: int, dev_every: int) -> None:
    """By the number of looks, which are left out where the best has not changed."""
    spent = bill(bench, "random_search", calls, texts, population=population, dev_every=dev_every, **SMALL)
    if spent.total < spent.dev:
        assert spent.rows == 0
        return
    looks, c = spent.dev_queries - 1, population * spent.train
    generations = (spent.total - spent.dev - looks * spent.dev) // c
    assert spent.train_queries == generations
    assert spent.rows == spent.dev + looks * spent.dev + generations * c
    assert looks <= generations // dev_every + 1


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("directions", "dev_every"), [(5, 100), (1, 10), (20, 7)])
def test_spsa(bench: Bench, calls: int, texts: tuple[int, int], directions: int, dev_every: int) -> None:
    """Blocks of steps; a step that leaves no room for a look is not made."""
    spent = bill(bench, "spsa", calls, texts, directions=directions, dev_every=dev_every, **SMALL)
    c, look, k = 2 * directions * spent.train, 2 * spent.dev, max(1, dev_every // (2 * directions))
    b, rest = divmod(spent.total - spent.dev, k * c + look)
    s = max(0, (rest - look) // c)
    expected = spent.dev + b * (k * c + look) + (s * c + look if s else 0) if spent.total >= spent.dev else 0
    assert spent.rows == expected


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("calibrate", ["safe", "paper"])
@pytest.mark.parametrize("passes", [1, 4])
def test_dect(bench: Bench, calls: int, texts: tuple[int, int], calibrate: str, passes: int) -> None:
    """Train, the empty text and dev, pass by pass while they fit."""
    spent = bill(bench, "dect", calls, texts, calibrate=calibrate, passes=passes, epochs=1)
    one_pass = [spent.train, spent.dev] if calibrate == "safe" else [spent.train, 1, spent.dev]
    assert spent.rows == in_order(spent.total, passes * one_pass)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
def test_feature_mlp(bench: Bench, calls: int, texts: tuple[int, int]) -> None:
    """Train once and dev once."""
    spent = bill(bench, "feature_mlp", calls, texts, epochs=1)
    assert spent.rows == in_order(spent.total, [spent.train, spent.dev])


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("sets", [1, 2, 10])
def test_icl(bench: Bench, calls: int, texts: tuple[int, int], sets: int) -> None:
    """One row to see whether the demonstrations are taken, or dev for each of several sets."""
    spent = bill(bench, "icl", calls, texts, sets=sets)
    assert spent.rows == (1 if sets == 1 else in_order(spent.total, sets * [spent.dev]))


@pytest.mark.parametrize("calls", CALLS)
def test_manual(bench: Bench, calls: int) -> None:
    """Nothing is asked."""
    assert bill(bench, "manual", calls, (32, 32)).rows == 0
