"""How submissions spend their budget: which queries they make, and that they stop where the next one does not fit."""

from __future__ import annotations

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
class Query:
    """One query that was answered."""

    of: str
    """train, dev, or other texts."""
    candidates: int
    rows: int
    left: int
    """Rows that were left afterwards."""


@dataclass(frozen=True)
class Bill:
    """All that one run asked."""

    queries: list[Query]
    refused: bool
    """The budget refused the query after them."""
    total: int
    train: int
    """Training texts."""
    dev: int
    """Dev texts."""


def bill(bench: Bench, name: str, calls: int, texts: tuple[int, int], **options: Any) -> Bill:
    """Run a submission to its end with so many training and dev texts; what was charged is what was asked."""
    module, task = bench.load(name), fake_task()
    rng = np.random.default_rng(5)
    shots = Shots(*(fake_examples(task, count, rng) for count in texts))
    lm = FakeLM.for_task(task, shots, calls, layers=LAYERS)
    queries, refused, outputs = [], False, lm.outputs

    def counted(prompts: Any, some: Any, *rest: Any, **more: Any) -> Any:
        out = outputs(prompts, some, *rest, **more)
        of = "train" if some == shots.train.texts else "dev" if some == shots.dev.texts else "other"
        queries.append(Query(of, len(out.logits), len(out.logits) * len(some), lm.budget.rows_left))
        return out

    lm.outputs = counted  # type: ignore[assignment,method-assign]
    try:
        for _ in module.tune(lm, task, shots, np.random.default_rng(0), module.Config(**options)):
            pass
    except BudgetExhausted:
        refused = True
    assert lm.meter.spent == sum(query.rows for query in queries) <= lm.budget.rows_total
    return Bill(queries, refused, lm.budget.rows_total, *texts)


def kinds(queries: list[Query]) -> list[tuple[str, int]]:
    """Which texts, and how many candidates."""
    return [(query.of, query.candidates) for query in queries]


def generations(spent: Bill, first: list[tuple[str, int]]) -> list[list[Query]]:
    """The queries after the first ones: each generation on train, with the look at dev that came after it, if any."""
    assert kinds(spent.queries[: len(first)]) == first[: len(spent.queries)]
    found: list[list[Query]] = []
    for query in spent.queries[len(first) :]:
        if query.of == "train":
            found.append([query])
        else:
            assert query.of == "dev"
            assert len(found[-1]) == 1, "dev is looked at once after a generation"
            found[-1].append(query)
    return found


def check_search(
    spent: Bill, first: list[tuple[str, int]], population: int, dev_every: int, look: int = 2, *, last_look: bool = True
) -> None:
    """A search: whole generations, looks at dev every so often and before the end, until the next query is refused."""
    found, c, looked = generations(spent, first), population * spent.train, look * spent.dev
    left, price = spent.queries[-1].left if spent.queries else spent.total, c  # of the query that is refused
    for n, (generation, *looks) in enumerate(found, start=1):
        assert generation.candidates == population
        assert all(query.candidates == look for query in looks)
        due = n % dev_every == 0 or (last_look and generation.left < c + looked)
        if due and not looks:
            assert n == len(found)
            price = looked
        assert due or not looks
    if len(spent.queries) < len(first):
        of, candidates = first[len(spent.queries)]
        price = candidates * (spent.train if of == "train" else spent.dev)
    assert spent.refused
    assert left < price


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (7, 1), (3, 4)])
@pytest.mark.parametrize("selection", ["house", "faithful"])
@pytest.mark.parametrize("name", ["bbt", "bbtv2"])
def test_searches_look_at_dev_every_so_often_and_use_the_budget_up(
    bench: Bench, name: str, calls: int, texts: tuple[int, int], selection: str, population: int, dev_every: int
) -> None:
    """The bare template on dev, then generations; a faithful selection has neither that nor a look at the end."""
    options = {"population": population, "dev_every": dev_every, "selection": selection, **SMALL}
    spent = bill(bench, name, calls, texts, **options)
    ours = selection == "house"
    first = [("dev", 1)] if ours else []
    check_search(spent, first, population, dev_every, 2 if ours else 1, last_look=ours)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
def test_serial_queries_cost_what_populations_do(bench: Bench, calls: int, texts: tuple[int, int]) -> None:
    """One candidate each; a generation that does not fit is refused as a whole."""
    together, alone = (
        bill(bench, "bbt", calls, texts, queries=queries, **SMALL) for queries in ("population", "serial")
    )
    assert sum(query.rows for query in together.queries) == sum(query.rows for query in alone.queries)
    assert {query.candidates for query in alone.queries if query.of == "train"} <= {1}


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (7, 1), (3, 4)])
def test_without_remainder_bbtv2_ends_after_whole_rounds(
    bench: Bench, calls: int, texts: tuple[int, int], population: int, dev_every: int
) -> None:
    """As many as the budget holds if looks at dev cost nothing, or as many as fit beside them."""
    spent = bill(bench, "bbtv2", calls, texts, remainder=False, population=population, dev_every=dev_every, **SMALL)
    found = generations(spent, [("dev", 1)])
    rounds = (spent.total - spent.dev) // (LAYERS * population * spent.train)
    assert len(found) <= max(0, rounds) * LAYERS
    if not spent.refused:
        assert len(found) == rounds * LAYERS
    else:
        assert (spent.queries[-1].left if spent.queries else spent.total) < max(population * spent.train, 2 * spent.dev)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(
    "options", [{}, {"calibrate": "none", "head": False}, {"head_every": "layer"}, {"population": 4, "dev_every": 3}]
)
def test_ajo_pays_for_one_call_at_the_zero_prompt_and_never_for_its_head(
    bench: Bench, calls: int, texts: tuple[int, int], options: dict[str, Any]
) -> None:
    """Then dev at the bare template, and generations."""
    spent = bill(bench, "ajo", calls, texts, **options, **SMALL)
    first = [("train", 1), ("dev", 1)]
    check_search(spent, first, options.get("population", 20), options.get("dev_every", 5))


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
def test_nevergrad_looks_at_dev_after_so_many_calls(
    bench: Bench, calls: int, texts: tuple[int, int], options: dict[str, Any], n: int
) -> None:
    """With the generation that makes them full."""
    spent = bill(bench, "nevergrad", calls, texts, **options, **SMALL)
    check_search(spent, [("dev", 1)], n, -(-options.get("dev_every", 100) // n))


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("population", "dev_every"), [(20, 5), (7, 1), (3, 4)])
def test_random_search_looks_only_at_what_is_new(
    bench: Bench, calls: int, texts: tuple[int, int], population: int, dev_every: int
) -> None:
    """At most every so often and at the end; never without a generation in between, and only one candidate."""
    spent = bill(bench, "random_search", calls, texts, population=population, dev_every=dev_every, **SMALL)
    found = generations(spent, [("dev", 1)])
    assert spent.refused
    if not spent.queries:
        assert spent.total < spent.dev
        return
    c = population * spent.train
    for n, (generation, *looks) in enumerate(found, start=1):
        assert generation.candidates == population
        assert not looks or n % dev_every == 0 or generation.left < c + spent.dev
        assert all(query.candidates == 1 for query in looks)
    if len(found) >= dev_every and found[dev_every - 1][0].left >= spent.dev:
        assert len(found[dev_every - 1]) == 2, "the first look is due in any case"
    assert spent.queries[-1].left < max(c, spent.dev)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(("directions", "dev_every"), [(5, 100), (1, 10), (20, 7)])
def test_spsa_makes_no_step_without_room_for_a_look(
    bench: Bench, calls: int, texts: tuple[int, int], directions: int, dev_every: int
) -> None:
    """So it ends by itself, and the last thing it does is to look."""
    spent = bill(bench, "spsa", calls, texts, directions=directions, dev_every=dev_every, **SMALL)
    found, n = generations(spent, [("dev", 1)]), 2 * directions
    assert spent.refused == (spent.total < spent.dev)
    step_and_look = n * spent.train + 2 * spent.dev
    for k, (step, *looks) in enumerate(found, start=1):
        assert step.candidates == n
        assert bool(looks) == (k % max(1, dev_every // n) == 0 or step.left < step_and_look)
        assert all(query.candidates == 2 for query in looks)
    if spent.queries:
        assert spent.queries[-1].left < step_and_look


def check_list(spent: Bill, wanted: list[tuple[str, int]], price: dict[str, int]) -> None:
    """Exactly these queries, one after the other, as long as they fit."""
    assert kinds(spent.queries) == wanted[: len(spent.queries)]
    if len(spent.queries) < len(wanted):
        of, candidates = wanted[len(spent.queries)]
        left = spent.queries[-1].left if spent.queries else spent.total
        assert left < candidates * price[of]
        assert spent.refused
    else:
        assert not spent.refused


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("calibrate", ["safe", "paper"])
@pytest.mark.parametrize("passes", [1, 4])
def test_dect_asks_for_train_and_dev_in_every_pass(
    bench: Bench, calls: int, texts: tuple[int, int], calibrate: str, passes: int
) -> None:
    """And in between for the empty text, where the published calibration needs it."""
    spent = bill(bench, "dect", calls, texts, calibrate=calibrate, passes=passes, epochs=1)
    empty = [("other", 1)] if calibrate == "paper" else []
    check_list(spent, passes * [("train", 1), *empty, ("dev", 1)], {"train": texts[0], "dev": texts[1], "other": 1})


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
def test_feature_mlp_asks_for_train_once_and_dev_once(bench: Bench, calls: int, texts: tuple[int, int]) -> None:
    """Whatever the number of epochs."""
    spent = bill(bench, "feature_mlp", calls, texts, epochs=3)
    check_list(spent, [("train", 1), ("dev", 1)], {"train": texts[0], "dev": texts[1]})


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("sets", [1, 2, 10])
def test_icl_pays_for_one_row_or_for_dev_in_every_set(
    bench: Bench, calls: int, texts: tuple[int, int], sets: int
) -> None:
    """One row shows whether the demonstrations are taken; several sets are compared on dev."""
    spent = bill(bench, "icl", calls, texts, sets=sets)
    if sets == 1:
        assert [query.rows for query in spent.queries] == [1]
    else:
        check_list(spent, sets * [("dev", 1)], {"dev": texts[1]})


@pytest.mark.parametrize("calls", CALLS)
def test_manual_asks_for_nothing(bench: Bench, calls: int) -> None:
    """It needs neither texts nor labels."""
    assert bill(bench, "manual", calls, (32, 32)).queries == []
