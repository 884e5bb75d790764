"""Minibatches."""

from __future__ import annotations

import numpy as np
import pytest

from harness.solving import minibatches


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(3, 16, 6), (1, 16, 2), (2, 5, 14), (4, 100, 4)])
def test_every_epoch_shows_all_rows_once(epochs: int, batch: int, steps: int) -> None:
    """32 of them, batch by batch."""
    found = list(minibatches(32, batch, epochs, np.random.default_rng(0)))
    assert len(found) == steps
    for epoch in np.split(np.concatenate(found), epochs):
        assert sorted(epoch.tolist()) == list(range(32))
    assert max(map(len, found)) == min(batch, 32)


def test_every_epoch_has_an_order_of_its_own_from_the_generator() -> None:
    first, second = minibatches(20, 20, 2, np.random.default_rng(1))
    assert first.tolist() != second.tolist()
    again = next(minibatches(20, 20, 2, np.random.default_rng(1)))
    assert again.tolist() == first.tolist()
