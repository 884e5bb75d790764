"""The queue of the model: one thread does all work in order, and lets queries interrupt long work.

Scoring an answer takes minutes, a query takes milliseconds. Scoring starts after the waiting queries. At each of its
checkpoints (`harness.blackbox.checkpoints`), the queries that are waiting then go first. So a query waits for one chunk
of the scoring and not for all of it, and the answer is scored in the end, however many queries there are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from harness.blackbox.checkpoints import without_checkpoints
from harness.blackbox.lock import count_wait, waited_s

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Closing(Exception):  # noqa: N818 - reads as the fact it states
    """The queue is being closed. Long work ends at its next checkpoint."""


class Line:
    """The queue of one thread. Asked work comes first, then one piece of the work left for later."""

    def __init__(self) -> None:
        """Start the thread."""
        self._changed = threading.Condition()
        self._asked: deque[Callable[[], None]] = deque()
        self._later: deque[Callable[[], object]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Do `work` after everything that was asked before.

        Raises:
            RuntimeError: the queue is closed.
        """
        future: Future[T] = Future()

        def do() -> None:
            with self._changed:
                closed = self._closed
            if closed:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as problem:  # noqa: BLE001 - it is raised where the result is read
                future.set_exception(problem)

        self._put(self._asked, do)
        return future

    def leave(self, work: Callable[[], object]) -> None:
        """Do `work` after everything that has been asked. It must not raise. It may be long if it calls `let_through`.

        Raises:
            RuntimeError: the queue is closed.
        """
        self._put(self._later, work)

    def let_through(self) -> None:
        """Do all asked work in the middle of long work. The clock of the long work is stopped meanwhile.

        Raises:
            Closing: the long work must end.
        """
        with self._changed:
            if self._closed:
                raise Closing
            waiting = [self._asked.popleft() for _ in range(len(self._asked))]
        if not waiting:
            return
        before, counted = time.perf_counter(), waited_s()
        with without_checkpoints():
            for work in waiting:
                work()
        count_wait(time.perf_counter() - before - (waited_s() - counted))

    def close(self) -> None:
        """Refuse new work, cancel waiting work, and wait for current work; long work ends at its next checkpoint."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _put(self, line: deque[Any], work: Callable[[], object]) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the service ends")
            line.append(work)
            self._changed.notify()

    def _run(self) -> None:
        while works := self._next():
            for work in works:
                work()
        for waiting in self._asked:  # it finds the queue closed, and is cancelled
            waiting()

    def _next(self) -> list[Callable[[], object]]:
        """All asked work, and one piece of the work left for later; empty when the queue is closed."""
        with self._changed:
            while not (self._asked or self._later or self._closed):
                self._changed.wait()
            if self._closed:
                return []
            works: list[Callable[[], object]] = [self._asked.popleft() for _ in range(len(self._asked))]
            return works + ([self._later.popleft()] if self._later else [])
