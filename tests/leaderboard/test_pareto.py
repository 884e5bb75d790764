"""Entries that are beaten in score and cost at once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.pareto import COSTS, cost, front, fronts, money
from harness.results.records import Billed, CellRecord
from harness.tracks.prices import Prices

FACTS: dict[str, Any] = {
    "rows_spent": 64, "train_rows": 32, "tuning_s": 30.0, "tokens": 7, "bytes_up": 5, "bytes_down": 6,
}  # fmt: skip


def entry(score: float, **facts: Any) -> Entry:
    """Two cells of the same kind."""
    cells = tuple(CellScore("sst2", split, "ok", score, {}, CellRecord(**FACTS | facts)) for split in (1, 2))
    return Entry(1, "a", "run", cells, 0, {})


def test_a_front_by_hand() -> None:
    """The best, the cheapest and one between are on it. More cost for a lower or equal score is not."""
    assert front([0.9, 0.5, 0.7, 0.6, 0.7], [100, 0, 10, 20, 11]).tolist() == [True, True, True, False, False]


def test_equals_do_not_beat_each_other() -> None:
    """Both stay."""
    assert front([0.5, 0.5], [3, 3]).tolist() == [True, True]


def test_a_front_of_several_costs() -> None:
    """Cheaper in one kind is enough."""
    assert front([0.5, 0.6, 0.4], [[1, 9], [2, 8], [2, 8]]).tolist() == [True, True, False]


@given(points=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_who_is_off_the_front_is_beaten_by_somebody_on_it(points: list[tuple[int, int]]) -> None:
    """And the best score at its lowest cost is always on it."""
    scores, costs = zip(*points, strict=True)
    on = front(scores, costs)
    for n, (score, price) in enumerate(points):
        beaten = any(
            on[m] and s >= score and p <= price and (s, p) != (score, price) for m, (s, p) in enumerate(points)
        )
        assert on[n] != beaten
    assert on[min(range(len(points)), key=lambda n: (-scores[n], costs[n]))]


def test_costs_are_summed_over_cells() -> None:
    """Calls, tokens, bytes both ways, seconds."""
    assert [cost(entry(0.5), kind) for kind in COSTS] == [4, 14, 22, 60]


def test_fronts_by_entry() -> None:
    """The better one costs more of all but seconds; a third is beaten everywhere."""
    good, cheap = entry(0.9, rows_spent=320, tokens=70, bytes_up=50), entry(0.5)
    beaten = entry(0.4, rows_spent=320, tokens=70, bytes_up=50, tuning_s=31)
    assert fronts([good, cheap, beaten]) == [COSTS, ("calls", "tokens", "bytes"), ()]
    assert fronts([]) == []


def test_a_cell_from_before_bills_were_kept_costs_the_tokens_that_were_counted_here() -> None:
    """The bills of the other cells do not make it free."""
    prices = Prices("EUR", per_million_tokens=1e6, per_million_received=1e6)
    old, billed = entry(0.5).cells[0], entry(0.5, billed=Billed(sent=100, received=10)).cells[1]
    mixed = Entry(1, "a", "run", (old, billed), 0, {})
    assert money(mixed, prices) == 7 + 100 + 10
    assert money(entry(0.5), prices) == 7 + 7
