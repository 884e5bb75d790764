"""The model's line: what is asked goes before what may wait, also in the midst of it."""

from __future__ import annotations

import threading
import time

import pytest
from small_service import until

from harness.blackbox.checkpoints import Deadline, at_checkpoints, checkpoint
from harness.service.line import Closing, Line


def test_what_is_asked_is_done_in_order_and_before_what_may_wait() -> None:
    line, gate, done = Line(), threading.Event(), list[str]()
    line.ask(gate.wait)
    line.leave(lambda: done.append("later"))
    last = [line.ask(lambda name=name: done.append(name)) for name in "abc"][-1]  # type: ignore[misc]
    gate.set()
    last.result(10)
    until(lambda: done[-1] == "later")
    line.close()
    assert done == ["a", "b", "c", "later"]


def test_long_work_lets_others_through_at_its_checkpoints_and_its_clock_stands_still_meanwhile() -> None:
    line, chunks, began, ended = Line(), list[float](), threading.Event(), threading.Event()
    late = []

    def long() -> None:
        deadline = Deadline(1.0)
        with at_checkpoints(lambda: (line.let_through(), deadline.check())):  # type: ignore[arg-type,func-returns-value]
            for _ in range(20):
                chunks.append(time.monotonic())
                began.set()
                time.sleep(0.02)
                try:
                    checkpoint()
                except TimeoutError as problem:
                    late.append(problem)
        ended.set()

    line.leave(long)
    assert began.wait(10)

    def query() -> int:
        checkpoint()  # the deadline of the work that it stands in is none of its own
        time.sleep(0.3)
        return len(chunks)

    asked_at = len(chunks)
    found = [line.ask(query) for _ in range(5)]
    assert all(each.result(10) <= asked_at + 1 for each in found)
    assert ended.wait(10)
    line.close()
    assert late == [], "1.5 s of others' work are not counted"


def test_long_work_goes_on_however_much_is_asked() -> None:
    line, chunks, stop = Line(), list[int](), threading.Event()

    def long() -> None:
        for number in range(10):
            chunks.append(number)
            line.let_through()

    def again() -> None:
        if not stop.is_set():
            line.ask(again)

    line.leave(long)
    line.ask(again)
    until(lambda: len(chunks) == 10)
    stop.set()
    line.close()


def test_what_fails_is_raised_where_it_was_asked() -> None:
    line = Line()
    with pytest.raises(ZeroDivisionError):
        line.ask(lambda: 1 / 0).result(10)
    assert line.ask(lambda: 3).result(10) == 3
    line.close()


def test_closing_cancels_what_waits_and_ends_long_work_at_its_checkpoint() -> None:
    line, began, ended = Line(), threading.Event(), list[type]()

    def long() -> None:
        began.set()
        try:
            while True:
                time.sleep(0.01)
                line.let_through()
        except Closing as end:
            ended.append(type(end))

    line.leave(long)
    began.wait(10)
    line.close()
    assert ended == [Closing]
    with pytest.raises(RuntimeError, match="ends"):
        line.ask(lambda: None)
    second, gate = Line(), threading.Event()
    second.ask(gate.wait)
    waiting = second.ask(lambda: None)
    closer = threading.Thread(target=second.close)
    closer.start()
    time.sleep(0.1)
    gate.set()
    closer.join(10)
    assert waiting.cancelled()
