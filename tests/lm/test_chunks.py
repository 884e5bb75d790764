"""Texts are cut where pad tokens and chunks cost least."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.lm.chunks import cut_by_padding


def cost(lengths: list[int], cuts: list[slice], price: int) -> int:
    return sum(price + lengths[cut.start] * (cut.stop - cut.start) for cut in cuts)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 60))
def test_no_other_way_to_cut_costs_less(lengths: list[int], price: int) -> None:
    lengths = sorted(lengths, reverse=True)
    found = cut_by_padding(lengths, price)
    assert [n for cut in found for n in range(cut.start, cut.stop)] == list(range(len(lengths)))
    inner = range(1, len(lengths))
    every = [(0, *ends, len(lengths)) for many in range(len(lengths)) for ends in combinations(inner, many)]
    least = min(cost(lengths, list(map(slice, ends[:-1], ends[1:])), price) for ends in every)
    assert cost(lengths, found, price) == least


@pytest.mark.parametrize(
    ("lengths", "price", "sizes"),
    [([50, 50, 10, 10], 256, [4]), ([130] * 4 + [40] * 12, 256, [4, 12]), ([9, 9, 9], 0, [3]), ([], 5, [])],
)
def test_a_chunk_is_cut_off_where_that_pays(lengths: list[int], price: int, sizes: list[int]) -> None:
    assert [cut.stop - cut.start for cut in cut_by_padding(lengths, price)] == sizes
