"""Which cell is being served: what the referee keeps in its caches is kept for one cell and found by no other.

The time of a query tells whether its projection was made before. If cells shared what is kept, one could write a byte
there and the next could read it.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_served: ContextVar[object] = ContextVar("served", default=None)


@contextlib.contextmanager
def served(whose: object) -> Iterator[None]:
    """Whatever this thread keeps until the end of the context is found only by queries for the same `whose`.

    Args:
        whose: names a cell; hashable. A new `object` names one that nothing was kept for.
    """
    before = _served.set(whose)
    try:
        yield
    finally:
        _served.reset(before)


def cell() -> object:
    """The cell that this thread serves, as a part of the key of a cache; None outside of any."""
    return _served.get()
