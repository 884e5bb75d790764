"""The model's line: what is asked goes before what may wait, also in the midst of it."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_service import until

from harness.blackbox.checkpoints import Deadline, at_checkpoints, checkpoint
from harness.service.line import LEAST_PRICE, Closing, Line


def test_what_is_asked_is_done_in_order_and_before_what_may_wait() -> None:
    line, gate, done = Line(), threading.Event(), list[str]()
    line.ask(gate.wait)
    line.leave(lambda: done.append("later"))
    last = [line.ask(lambda name=name: done.append(name)) for name in "abc"][-1]  # type: ignore[misc]
    gate.set()
    last.future.result(10)
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
    assert began.wait(60)

    def query() -> int:
        checkpoint()  # the deadline of the work that it stands in is none of its own
        time.sleep(0.3)
        return len(chunks)

    asked_at = len(chunks)
    found = [line.ask(query) for _ in range(5)]
    assert all(each.future.result(10) <= asked_at + 1 for each in found)
    assert ended.wait(60)
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
        line.ask(lambda: 1 / 0).future.result(10)
    assert line.ask(lambda: 3).future.result(10) == 3
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
    began.wait(60)
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
    assert waiting.future.cancelled()


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 640), min_size=1, max_size=12), min_size=2))
def test_rows_are_shared_equally_among_those_who_wait(asked: dict[str, list[int]]) -> None:
    """Of two who both have work waiting, none is ever ahead by more than one piece of work."""
    line, gate, done = Line(), threading.Event(), list[tuple[str, int]]()
    line.ask(gate.wait, "gate")

    def one(owner: str, rows: int) -> None:
        def work() -> int:
            done.append((owner, rows))
            return rows

        line.ask(work, owner, float)

    for owner, all_rows in asked.items():
        for rows in all_rows:
            one(owner, rows)
    gate.set()
    until(lambda: len(done) == sum(map(len, asked.values())))
    line.close()
    served, left = dict.fromkeys(asked, 0), {owner: len(rows) for owner, rows in asked.items()}
    largest = {owner: max(rows) for owner, rows in asked.items()}
    for owner, rows in done:
        waiting = [each for each in asked if left[each]]
        assert served[owner] == min(served[each] for each in waiting)
        assert all(abs(served[a] - served[b]) <= max(largest[a], largest[b]) for a in waiting for b in waiting)
        served[owner] += rows
        left[owner] -= 1
    assert {owner: [rows for whose, rows in done if whose == owner] for owner in asked} == asked, "in order"


def test_who_comes_back_after_a_pause_has_not_saved_up_a_share() -> None:
    line, done, gate = Line(), list[str](), threading.Event()
    for _ in range(5):
        line.ask(lambda: None, "busy", lambda _: 100.0).future.result(10)
    line.ask(gate.wait, "gate")
    for owner in ("busy", "idle"):
        for _ in range(3):
            line.ask(lambda owner=owner: done.append(owner), owner, lambda _: 100.0)  # type: ignore[misc]
    gate.set()
    until(lambda: len(done) == 6)
    line.close()
    assert done[:4].count("idle") in {2, 3}
    assert done[-1] == "busy"


def test_what_is_refused_or_free_has_a_price_too_and_what_was_cancelled_is_not_done() -> None:
    line, gate, done = Line(), threading.Event(), list[str]()
    line.ask(gate.wait)
    failing = [line.ask(lambda: 1 / 0, "a") for _ in range(2)]
    others = [line.ask(lambda: done.append("b"), "b", lambda _: 0.0) for _ in range(2)]
    gone = line.ask(lambda: done.append("gone"), "c")
    assert [each.ahead for each in (*failing, *others, gone)] == [1, 2, 3, 4, 5]
    assert gone.future.cancel()
    gate.set()
    others[-1].future.result(10)
    assert all(each.future.done() for each in failing)
    assert LEAST_PRICE > 0
    line.close()
    assert done == ["b", "b"]
