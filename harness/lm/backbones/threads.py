"""Parts of a query side by side, each in one CPU thread.

Threads inside an operation wait for each other at its end, some hundred times a pass, and wait long where another
program has a core. Parts that are independent meet once, and their numbers do not depend on how many threads there are.
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
    """`work` on every part, as many at once as torch has threads here, all operations in one thread.

    Raises:
        Exception: what `work` raised on the first part that failed, once none is at work any more.
    """
    threads = torch.get_num_threads()

    def alone(texts: slice, members: slice) -> None:
        torch.set_num_threads(1)  # of this thread; MKL's is the process's
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
    """Kept, as oneDNN remembers by thread what it has prepared; a forked process has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="forward")
