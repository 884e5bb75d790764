"""Scores over calls: the answer that stood, with the intervals of the ranking."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import report_site
from hypothesis import given
from hypothesis import strategies as st
from made_up import key

from harness.leaderboard.anytime import curve
from harness.leaderboard.rank import rank
from harness.leaderboard.report.curves import Curves, limits, spread
from harness.leaderboard.stats import Interval
from harness.leaderboard.traces import Trace, envelope, grid, steps, traces
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.leaderboard.rank import Ranking

TRACK = report_site.TRACK


@pytest.fixture(scope="module")
def ranking() -> Iterator[Ranking]:
    """Three entries with their cells."""
    store = Store("sqlite://")
    for name, right in (("good", 0.8), ("nearly", 0.79), ("poor", 0.6)):
        report_site.add(store, name, right)
    yield rank(store, "mini", TRACK.fingerprint, TRACK.planned)
    store.close()


def test_they_end_at_the_rankings_averages_with_their_intervals(ranking: Ranking) -> None:
    """On average and on a task; whatever the order of the entries."""
    division = ranking.divisions[0]
    entries, found = ranking.complete(division), ranking.standings(division)
    assert found is not None
    at = grid(entries)
    parts = [steps(entry, at, ranking.bare) for entry in entries]
    for k, trace in enumerate(traces(parts[::-1], at)[::-1]):
        end, average = trace.values[-1], found.scores.score(k)
        assert end is not None
        assert [end.value, end.low, end.high] == pytest.approx([average.value, average.low, average.high], abs=1e-12)
    for k, trace in enumerate(traces(parts, at, "qqp")):
        assert trace.values[-1] is not None
        assert trace.values[-1].low == pytest.approx(found.scores.score(k, found.tasks.index("qqp")).low, abs=1e-12)


def test_between_answers_the_last_one_counts_and_before_the_first_the_bare_template(ranking: Ranking) -> None:
    """At every number of calls the mean is that of the cells' curves."""
    (entry, *_), at = ranking.complete(ranking.divisions[0]), (1.0, 9.9, 10.0, 49.0, 50.0, 100.0)
    (trace,) = traces([steps(entry, at, ranking.bare)], at)
    assert ranking.bare is not None
    for calls, value in zip(at, trace.values, strict=True):
        by_task: dict[str, list[float]] = {}
        for cell in entry.cells:
            own = curve(cell)
            stood = [score for c, score in zip(own.calls, own.scores, strict=True) if c <= calls + 1e-9]
            by_task.setdefault(cell.task, []).append(stood[-1] if stood else ranking.bare[cell.task])
        assert value is not None
        assert value.value == pytest.approx(np.mean([np.mean(scores) for scores in by_task.values()]))


def test_before_the_first_answer_nothing_is_said_where_the_bare_template_is_not_known(ranking: Ranking) -> None:
    """And the entries that are known there have their scores."""
    first, second, _ = ranking.complete(ranking.divisions[0])
    late = dataclasses.replace(second, cells=tuple(_later(cell) for cell in second.cells))
    at = (1.0, 20.0, 100.0)
    found = traces([steps(entry, at, None) for entry in (first, late)], at)
    assert [[value is not None for value in trace.values] for trace in found] == [
        [False, True, True],
        [False, False, True],
    ]


def _later(cell: object) -> object:
    """The same without the answer at 1/8 and 1/4 of the budget."""
    assert dataclasses.is_dataclass(cell)
    kept = {mark: each for mark, each in cell.incumbents.items() if mark > 0.25}  # type: ignore[attr-defined]
    rows = {mark: each for mark, each in cell.rows.items() if mark > 0.25}  # type: ignore[attr-defined]
    anytime = {mark: each if mark > 0.25 else None for mark, each in cell.anytime.items()}  # type: ignore[attr-defined]
    return dataclasses.replace(cell, incumbents=kept, rows=rows, anytime=anytime)  # type: ignore[type-var]


def test_the_grid_has_one_call_and_every_mark(ranking: Ranking) -> None:
    assert grid(ranking.complete(ranking.divisions[0])) == (1.0, 1.5625, 6.25, 12.5, 25.0, 50.0, 100.0)
    assert grid([]) == (1.0,)


def point(value: float) -> Interval:
    return Interval(value, value - 0.02, value + 0.02)


def test_the_front_over_budgets_by_hand() -> None:
    """The first of equals; nobody where nothing is known, or where nobody is better than the bare template."""
    one = Trace((1, 2, 3, 4), (None, point(0.5), point(0.6), point(0.7)))
    two = Trace((1, 2, 3, 4), (None, point(0.5), point(0.65), point(0.6)))
    assert envelope([one, two]) == [None, 0, 1, 0]
    assert envelope([]) == []
    curves = Curves((1, 2, 3, 4), {"a": {}, "b": {}}, {"t": 0.5}, {"t": 4})
    curves._found[None] = {"a": one, "b": two}
    assert [best.run for best in curves.front()] == [None, None, "b", "a"]
    assert [(first.run, first.calls, last.calls) for first, last in curves.reigns()] == [
        (None, 1, 2), ("b", 3, 3), ("a", 4, 4),
    ]  # fmt: skip
    assert curves.chosen() == ["a", "b"]


def test_limits_follow_the_best_and_not_what_failed() -> None:
    """Multiples of five points; the bare template is inside."""
    assert limits([point(0.8), point(0.6), point(0.2)], 0.55) == (50, 85)
    assert limits([point(0.99)], None) == (95, 100)
    assert limits([], None) == (60, 100)


@given(st.lists(st.floats(0, 100), max_size=9))
def test_labels_are_moved_apart_and_keep_their_order(values: list[float]) -> None:
    places = spread(values, 10, 0, 100)
    order = np.argsort(values, kind="stable")
    assert (np.diff(places[order]) >= 10 - 1e-9).all()
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)
    if len(values) == 1:
        assert places[0] == values[0]


def test_a_task_of_ones_own_has_a_curve() -> None:
    """It does not ship with this package; its metric and number of classes stand with its cells."""
    store, labels = Store("sqlite://"), np.array([0, 1, 2, 2, 1, 0])
    run = store.open_run(key("mine"), {"packages": {}})
    record = CellRecord(train_rows=2, rows_total=20, calls_total=10, metric="accuracy", words=("a", "b", "c"))
    kept = KeptAnswer(1.0, 2, b"a", np.array([0, 1, 2, 0, 0, 0]))
    store.begin(run, "my-own-task", 1).finish("ok", record, "t", labels, [kept])
    (entry,) = rank(store, "tiny").entries
    (trace,) = traces([steps(entry, (1.0, 10.0), None)], (1.0, 10.0))
    assert [value and value.value for value in trace.values] == pytest.approx([4 / 6, 4 / 6])
    store.close()
