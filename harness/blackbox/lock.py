"""A lock for a device: forward passes run one at a time, and each thread knows how long it has waited.

Cells can share a device, but queries of different cells never share a forward pass. The last digits of a row depend on
how many rows are computed with it, and a score must not depend on other evaluations (measured in docs/scale.md).
"""

from __future__ import annotations

import threading
import time

_thread = threading.local()


def waited_s() -> float:
    """Seconds that this thread has waited for locks so far. A cell's clock does not count this time."""
    return float(getattr(_thread, "waited_s", 0.0))


def count_wait(seconds: float) -> None:
    """Count that this thread has waited for others, or worked for them."""
    _thread.waited_s = waited_s() + seconds


class DeviceLock:
    """A re-entrant lock that counts the waiting time of each thread; used as ``with device_lock:``."""

    def __init__(self) -> None:
        """Create the lock; no thread holds it."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Wait for the lock."""
        before = time.perf_counter()
        self._lock.acquire()
        count_wait(time.perf_counter() - before)

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()
