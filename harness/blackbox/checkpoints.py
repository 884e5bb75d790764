"""Places in long work at which it may be ended, or let others through: between chunks, layers and texts.

Whoever starts work that a solver can make long says what is to happen at its checkpoints (`at_checkpoints`); the work
itself calls `checkpoint`, and knows neither clocks nor queues. What lies between two checkpoints is bounded: a chunk of
`chunk_tokens` tokens, one text, one block of a projection, or one slice of a head.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.blackbox.lock import waited_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_thread = threading.local()


def checkpoint() -> None:
    """Do what was asked for in this thread, if anything was.

    Raises:
        Exception: whatever that raises, to end the work.
    """
    then: Callable[[], None] | None = getattr(_thread, "then", None)
    if then is not None:
        then()


@contextmanager
def at_checkpoints(then: Callable[[], None]) -> Iterator[None]:
    """Call `then` at every checkpoint of this thread within the block, after what was called there before."""
    before: Callable[[], None] | None = getattr(_thread, "then", None)

    def both() -> None:
        if before is not None:
            before()
        then()

    _thread.then = both
    try:
        yield
    finally:
        _thread.then = before


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Do within the block what is no part of the long work in whose midst it is done: its checkpoints are not meant."""
    before = getattr(_thread, "then", None)
    _thread.then = None
    try:
        yield
    finally:
        _thread.then = before


class Deadline:
    """A moment on this thread's clock, which stands still while the thread waits for the forward passes of others."""

    def __init__(self, seconds: float) -> None:
        """So many seconds from now."""
        self.seconds = seconds
        self._until = time.monotonic() + seconds - waited_s()

    def check(self) -> None:
        """Go on, if it is not reached yet.

        Raises:
            TimeoutError: it is.
        """
        if time.monotonic() - waited_s() >= self._until:
            raise TimeoutError(f"more than {self.seconds:g} s")
