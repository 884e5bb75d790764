"""The first words of table and page: who leads, by how much, who ties at which cost."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from test_table import FACTS, cell, ranked, ranking

from harness.leaderboard.headline import cheaper, headline, tied
from harness.results.records import CellRecord

if TYPE_CHECKING:
    from harness.leaderboard.entries import Entry
    from harness.leaderboard.rank import Ranking


def said(found: Ranking) -> str | None:
    return headline(found, found.divisions[0])


def near(rows_spent: int, name: str = "near") -> Entry:
    """The leader with one answer of ten less right, and other calls."""
    first, second = ranked().entries
    cells = (*first.cells[:7], cell("sst2", 4, 0.8))
    facts = CellRecord(**FACTS | {"rows_spent": rows_spent})
    return dataclasses.replace(
        second, name=name, run=name, cells=tuple(dataclasses.replace(each, record=facts) for each in cells)
    )


def test_a_leader_leads_by_what_the_ranking_says() -> None:
    standing = ranked().standing(ranked().entries[1])
    assert standing is not None
    assert standing.behind is not None
    low, high = 100 * standing.behind.difference.low, 100 * standing.behind.difference.high
    assert said(ranked()) == f"nevergrad[optimizer=PSO] leads by 40.0 points [{low:.1f}, {high:.1f}]"


def test_who_ties_is_named_with_the_share_of_the_calls() -> None:
    first, second = ranked().entries
    found = dataclasses.replace(ranked(), entries=(first, near(1), second))
    text = said(found) or ""
    assert text.startswith("nevergrad[optimizer=PSO] leads by 40.0 points [")
    assert text.endswith("] over worse; near ties with it at 1/64 of the calls")
    assert [entry.name for entry in tied(found, found.divisions[0])] == ["near"]


def test_no_share_is_said_where_calls_are_not_far_fewer() -> None:
    first, second = ranked().entries
    same = said(dataclasses.replace(ranked(), entries=(first, near(40), second))) or ""
    assert same.endswith("; near ties with it")
    none = said(dataclasses.replace(ranked(), entries=(first, near(0), second))) or ""
    assert none.endswith("; near ties with it without a call")


def test_of_many_ties_the_cheapest_is_named() -> None:
    first, second = ranked().entries
    ties = [near(64 >> n, f"near{n}") for n in range(5)]
    text = said(dataclasses.replace(ranked(), entries=(first, *ties, second))) or ""
    assert text.endswith("near0, near1, near2 and 2 more tie with it, near4 at 1/16 of the calls")


def test_where_nobody_is_told_apart_nobody_leads() -> None:
    text = said(dataclasses.replace(ranked(), entries=(ranked().entries[0], near(64)))) or ""
    assert text.startswith("nevergrad[optimizer=PSO] has the highest average, 1.3 points [")
    assert text.endswith("] above near; near ties with it")


def test_one_entry_alone_and_a_design_without_ranks_lead_nobody() -> None:
    alone = dataclasses.replace(ranked(), entries=ranked().entries[:1])
    assert (said(alone) or "").startswith("nevergrad[optimizer=PSO] is the only complete entry: 85.0 points [")
    assert (said(ranking()) or "").endswith("; this design shows too little to rank the entries")
    assert said(dataclasses.replace(ranking(), entries=ranking().entries[2:])) is None


def test_nobody_is_cheaper_than_a_leader_without_a_call() -> None:
    """Of two that ask nothing, neither does it for less."""
    first, second = ranked().entries
    free = CellRecord(**FACTS | {"rows_spent": 0})
    leader = dataclasses.replace(first, cells=tuple(dataclasses.replace(each, record=free) for each in first.cells))
    found = dataclasses.replace(ranked(), entries=(leader, near(0), second))
    assert cheaper(found, found.divisions[0]) is None
    paid = dataclasses.replace(ranked(), entries=(first, near(0), second))
    assert "near has" in (cheaper(paid, paid.divisions[0]) or "")
