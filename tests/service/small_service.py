"""A small service on the fake model, in this process or behind a real socket."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn

from harness.blackbox.fake import fake_shots, fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.service.accounts import Accounts
from harness.service.app import make_app
from harness.service.queries import Limits, Place, QueryHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

CALLS, PER_CLASS = 10, 2
TRAIN = 2 * PER_CLASS
ROWS = CALLS * TRAIN
TASK = fake_task()
WHERE = f"/v1/cells/{TASK.name}/1"
FAST = Limits(answer_bytes=1 << 20, frame_bytes=1 << 20, per_s=1e6, burst=1_000_000, at_once=64)


def place(calls: int = CALLS, split: int = 1) -> Place:
    """A cell of the fake task."""
    shots = fake_shots(TASK, np.random.default_rng(split), PER_CLASS)
    return Place(TASK, split, shots, FakeLanguageModel(TASK).info((), ""), calls)


def handler(book: Accounts, lm: Any = None, limits: Limits = FAST, calls: int = CALLS) -> QueryHandler:
    """A handler with two cells."""
    offered = {(TASK.name, split): place(calls, split) for split in (1, 2)}
    return QueryHandler(lm or FakeLanguageModel(TASK), "fake 0123", offered, book, limits)


class House:
    """A book in a folder, a token, and a handler on both."""

    def __init__(self, folder: Path, lm: Any = None, limits: Limits = FAST, calls: int = CALLS) -> None:
        """Open everything."""
        self.lm = lm or FakeLanguageModel(TASK)
        self.book = Accounts(str(folder / "service.db"))
        self.token = self.book.new_token("alice")
        self.handler = handler(self.book, self.lm, limits, calls)
        self.settled = 0

    def settle(self, others: Callable[[], None]) -> bool:
        """Count how often answers were to be scored."""
        self.settled += 1
        return False

    @property
    def app(self) -> FastAPI:
        """A fresh application."""
        return make_app(self.handler, self.settle)

    @property
    def spent(self) -> int:
        """Rows that the book says were spent on split 1."""
        found = self.book.token(self.token)
        assert found is not None
        return self.handler.account(found, self.handler.places[TASK.name, 1]).rows_spent

    @property
    def ledger(self) -> list[int]:
        """Rows of each charged query of split 1."""
        found = self.book.token(self.token)
        assert found is not None
        number = self.handler.account(found, self.handler.places[TASK.name, 1]).number
        return [charged.row.rows for charged in self.book.ledger(number)]


@contextlib.contextmanager
def served(app: FastAPI, **settings: Any) -> Iterator[str]:
    """The application behind a real socket on loopback; gives its address."""
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # as uvicorn's own: asyncio then sends without delay
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", **settings)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        sock.close()
        assert not thread.is_alive()


def until(true: Callable[[], bool], longest_s: float = 30.0) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + longest_s
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
