"""The queue of the model: one thread does all work, shares its time fairly, and lets queries interrupt long work.

Each piece of asked work has an owner (a token's name) and, when it is done, a price (rows). The next piece is that of
the waiting owner who has been served least, where an owner who comes back after a pause is taken to have been served
as much as the one whose turn it is. This is start-time fair queueing (Goyal, Vin and Cheng 1996) with equal weights:
however many queries one token sends, and however large they are, of two tokens that both keep asking each gets half of
the rows. The work of one owner is done in the order in which it was asked.

Scoring an answer takes minutes, a query takes milliseconds. Scoring starts after the waiting queries. At each of its
checkpoints (`harness.blackbox.checkpoints`), as many queries go first as are waiting then. So a query waits for one
chunk of the scoring and not for all of it, and the answer is scored in the end, however many queries there are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.blackbox.checkpoints import without_checkpoints
from harness.blackbox.lock import count_wait, waited_s

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
LEAST_PRICE = 1.0
"""Rows that a piece of work counts at least, so that what is free is shared too."""


class Closing(Exception):  # noqa: N818 - reads as the fact it states
    """The queue is being closed. Long work ends at its next checkpoint."""


@dataclass(eq=False)
class Asked(Generic[T]):
    """A piece of asked work. Cancelling its future before it starts takes it out of the queue."""

    future: Future[T]
    owner: str
    ahead: int
    """Pieces of work that waited or were being done when it was asked, of all owners."""
    work: Callable[[], T]
    price: Callable[[T], float]
    asked_s: float
    waited_s: float = 0.0
    """Seconds until it was begun."""

    def do(self) -> float:
        """Do it, and return its price."""
        self.waited_s = time.monotonic() - self.asked_s
        try:
            result = self.work()
            paid = self.price(result)
        except BaseException as problem:  # noqa: BLE001 - it is raised where the result is read
            self.future.set_exception(problem)
            return LEAST_PRICE
        self.future.set_result(result)
        return max(paid, LEAST_PRICE)


class Line:
    """The queue of one thread. Asked work comes first, then one piece of the work left for later."""

    def __init__(self) -> None:
        """Start the thread."""
        self._changed = threading.Condition()
        self._asked: dict[str, deque[Asked[Any]]] = {}
        """Waiting work by owner; no owner without any."""
        self._served: dict[str, float] = {}
        """Rows that each waiting or recent owner has been served. Owners who are behind `_now` are left out."""
        self._now = 0.0
        """Rows that the owner who was served last had been served before."""
        self._doing = 0
        self._later: deque[Callable[[], object]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def ask(
        self, work: Callable[[], T], owner: str = "", price: Callable[[T], float] = lambda _: LEAST_PRICE
    ) -> Asked[T]:
        """Do `work` when it is its owner's turn.

        Args:
            work: what to do.
            owner: whose share of the thread it takes.
            price: rows that the result cost.

        Raises:
            RuntimeError: the queue is closed.
        """
        with self._changed:
            self._refuse_when_closed()
            ahead = self._waiting() + self._doing
            asked: Asked[T] = Asked(Future(), owner, ahead, work, price, time.monotonic())
            self._asked.setdefault(owner, deque()).append(asked)
            self._served[owner] = max(self._served.get(owner, 0.0), self._now)
            self._changed.notify()
        return asked

    def leave(self, work: Callable[[], object]) -> None:
        """Do `work` after everything that has been asked. It must not raise. It may be long if it calls `let_through`.

        Raises:
            RuntimeError: the queue is closed.
        """
        with self._changed:
            self._refuse_when_closed()
            self._later.append(work)
            self._changed.notify()

    def let_through(self) -> None:
        """Do as much asked work as waits, in the middle of long work. The long work's clock is stopped meanwhile.

        Raises:
            Closing: the long work must end.
        """
        with self._changed:
            if self._closed:
                raise Closing
            waiting = self._waiting()
        if not waiting:
            return
        before, counted = time.perf_counter(), waited_s()
        with without_checkpoints():
            self._do_asked(waiting)
        count_wait(time.perf_counter() - before - (waited_s() - counted))

    def close(self) -> None:
        """Refuse new work, cancel waiting work, and wait for current work; long work ends at its next checkpoint."""
        with self._changed:
            self._closed = True
            for asked in [each for waiting in self._asked.values() for each in waiting]:
                asked.future.cancel()
            self._changed.notify_all()
        self._thread.join()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RuntimeError("the service ends")

    def _waiting(self) -> int:
        return sum(map(len, self._asked.values()))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._asked or self._later or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                waiting = self._waiting()
            self._do_asked(waiting)
            with self._changed:
                later = self._later.popleft() if self._later and not self._closed else None
            if later is not None:
                later()

    def _do_asked(self, most: int) -> None:
        """Do up to `most` pieces of asked work, each the next one by what its owner has been served."""
        for _ in range(most):
            asked = self._next()
            if asked is None:
                return
            if asked.future.set_running_or_notify_cancel():
                paid = asked.do()
                with self._changed:
                    self._served[asked.owner] = max(self._served.get(asked.owner, 0.0), self._now) + paid
            with self._changed:
                self._doing = 0
                self._forget()

    def _next(self) -> Asked[Any] | None:
        with self._changed:
            if self._closed or not self._asked:
                return None
            owner = min(self._asked, key=lambda name: self._served[name])  # of equals the one who waits longest
            self._now = self._served[owner]
            asked = self._asked[owner].popleft()
            if not self._asked[owner]:
                del self._asked[owner]
            self._doing = 1
            return asked

    def _forget(self) -> None:
        """Leave out the owners of whom nothing would change: those who are not ahead and wait for nothing."""
        for name in [name for name, rows in self._served.items() if rows <= self._now and name not in self._asked]:
            del self._served[name]
