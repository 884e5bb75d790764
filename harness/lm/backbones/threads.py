"""Compute parts of a query side by side, each in one CPU thread.

PyTorch's own threads synchronise after every operation, several hundred times per forward pass. If another process
occupies a core, each barrier waits for the slowest thread. Here each thread computes one part of the query from start
to end, so the threads synchronise once. The numbers do not depend on how many threads there are.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def side_by_side(work: Callable[[slice, slice], None], parts: Sequence[tuple[slice, slice]]) -> None:
    """Call `work` on every part, with as many parts at once as torch has threads. Each operation uses one thread.

    Raises:
        Exception: the exception that `work` raised on the first part that failed. It is raised when no part is running
        any more.
    """
    threads = torch.get_num_threads()

    def alone(texts: slice, members: slice) -> None:
        torch.set_num_threads(1)  # for this thread; MKL has one number for the process
        with torch.inference_mode():
            work(texts, members)

    try:
        if threads == 1 or len(parts) == 1:
            for part in parts:
                alone(*part)
            return
        futures = [_pool(threads, os.getpid()).submit(alone, *part) for part in parts]
        try:
            wait(futures)
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """A pool that stays alive, because oneDNN caches by thread. A forked process has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="forward")
