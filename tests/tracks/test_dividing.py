"""Splits and a test set of one labelled file: whatever the file is, no test text is in a split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract import Examples
from harness.errors import DataError
from harness.tracks.dividing import Sizes, divide

CLASSES = ("a", "b", "c")


def examples(counts: list[int]) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Examples(tuple((f"text {n}",) for n in range(len(labels))), labels)


@given(
    counts=st.lists(st.integers(5, 40), min_size=3, max_size=3),
    sizes=st.builds(Sizes, st.integers(1, 2), st.integers(1, 2), st.integers(1, 4), st.integers(1, 30)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_splits_are_full_and_share_nothing_with_the_test_set(counts: list[int], sizes: Sizes, seed: int) -> None:
    rows = examples(counts)
    order = np.random.default_rng(seed).permutation(len(rows))
    found = divide("mine", CLASSES, rows, None, sizes)
    again = divide("mine", CLASSES, Examples(tuple(rows.texts[n] for n in order), rows.labels[order]), None, sizes)
    label_of = dict(zip(rows.texts, rows.labels.tolist(), strict=True))
    seen = set()
    for number, shots in found.shots.items():
        assert np.bincount(shots.train.labels).tolist() == [sizes.shots] * 3
        assert np.bincount(shots.dev.labels).tolist() == [sizes.dev] * 3
        assert not set(shots.train.texts) & set(shots.dev.texts)
        seen |= {*shots.train.texts, *shots.dev.texts}
        assert shots.train.texts == again.shots[number].train.texts
    assert not seen & set(found.test.texts)
    assert 1 <= len(found.test) == len(set(found.test.texts)) <= sizes.test
    assert found.test.labels.tolist() == [label_of[text] for text in found.test.texts]
    assert found.test.texts == again.test.texts


def test_a_class_with_too_few_texts_is_told_with_what_would_fit() -> None:
    with pytest.raises(
        DataError, match=r"class 'b' has 6 texts, and 4 \+ 4 .* and at least one test text .* --shots 2"
    ):
        divide("mine", CLASSES, examples([20, 6, 20]), None, Sizes(4, 4, 2))
    assert len(divide("mine", CLASSES, examples([20, 5, 20]), None, Sizes(2, 2, 2)).test) > 0


def test_another_name_gives_other_draws() -> None:
    rows, sizes = examples([20, 20, 20]), Sizes(2, 2, 1)
    one, other = (divide(name, CLASSES, rows, None, sizes) for name in ("one", "other"))
    assert one.shots[1].train.texts != other.shots[1].train.texts
