"""Forward passes one at a time: cells that share a device take turns, and each knows for how long it waited.

Queries of different cells never share a forward pass: the last digits of a row depend on how many rows are computed
with it, and a score must not depend on who else was evaluated (docs/scale.md has the measurement).
"""

from __future__ import annotations

import threading
import time

_thread = threading.local()


def waited_s() -> float:
    """Seconds that this thread has waited for its turns so far; a cell's clock stands still meanwhile."""
    return float(getattr(_thread, "waited_s", 0.0))


def count_wait(seconds: float) -> None:
    """Count that this thread has waited for others, or worked for them."""
    _thread.waited_s = waited_s() + seconds


class Turns:
    """A lock that its holder may take again; used as ``with turns:``."""

    def __init__(self) -> None:
        """Nobody has the turn."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Wait for the turn."""
        before = time.perf_counter()
        self._lock.acquire()
        count_wait(time.perf_counter() - before)

    def __exit__(self, *_: object) -> None:
        """Let the next one have it."""
        self._lock.release()
