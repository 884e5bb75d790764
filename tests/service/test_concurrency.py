"""Many connections of one token at once, retries, lost replies: the budget is exact whatever the order."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_service import ROWS, TASK, TRAIN, WHERE, House, handler, served

from harness.contract import Answer
from harness.service import messages
from harness.service.accounts import Accounts
from harness.service.messages import MSGPACK, QueryBody
from harness.service.queries import Refusal
from harness.solving.answers import to_bytes

if TYPE_CHECKING:
    from harness.service.queries import QueryHandler

TEXTS = [(f"w{n}",) for n in range(ROWS + 5)]
_ONE = st.tuples(st.integers(0, 7), st.integers(1, 2 * TRAIN))  # key, texts
_CLIENTS = st.lists(st.lists(_ONE, min_size=1, max_size=6), min_size=2, max_size=5)


def run_all(clients: list[list[Any]], ask: Any) -> list[Any]:
    """Start all clients at once, and return all their replies in one list."""
    gate = threading.Barrier(len(clients))

    def work(mine: list[Any]) -> list[Any]:
        gate.wait(30)
        return [(one, ask(*one)) for one in mine]

    with ThreadPoolExecutor(len(clients)) as pool:
        return [got for part in pool.map(work, clients) for got in part]


def check(replies: list[Any], spent: int, ledger: list[int]) -> None:
    """Every key was charged once at most, for what it asked, and its reply is always the same bytes."""
    charged: dict[int, tuple[int, bytes]] = {}
    for (key, count), (code, reply) in replies:
        if code == "ok":
            assert charged.setdefault(key, (count, reply)) == (count, reply)
    assert sorted(count for count, _ in charged.values()) == sorted(ledger)
    assert sum(ledger) == spent <= ROWS
    for (key, count), (code, _) in replies:
        if code == "key_reused":
            assert charged[key][0] != count
        if code == "budget_exhausted":
            assert count > ROWS - spent  # what is left only shrinks, so it did not fit when it was refused


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_CLIENTS)
def test_any_interleaving_of_two_servers_on_one_database_charges_each_key_once(clients: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        books = [Accounts(str(Path(folder) / "service.db")) for _ in range(2)]
        token = books[0].token(books[0].new_token("alice"))
        assert token is not None
        handlers, turns = [handler(book) for book in books], [threading.Lock() for _ in books]

        def ask(key: int, count: int) -> tuple[str, bytes]:
            here = (key + count) % 2
            asked, served_by = QueryBody(TEXTS[:count]), handlers[here]
            try:
                with turns[here]:
                    found = served_by.query(token, place_of(served_by), asked, b"", str(key))
            except Refusal as refused:
                return refused.fault.code, b""
            return "ok", found.reply

        replies = run_all(clients, ask)
        account = handlers[0].account(token, place_of(handlers[0]))
        check(replies, account.rows_spent, [charged.row.rows for charged in books[1].ledger(account.number)])
        for book in books:
            book.close()


def place_of(served_by: QueryHandler) -> Any:
    return served_by.places[TASK.name, 1]


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(_CLIENTS)
def test_any_interleaving_over_http_charges_each_key_once(clients: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        headers = {"Authorization": f"Bearer {house.token}", "Content-Type": MSGPACK, "Accept": MSGPACK}
        with served(house.app) as url, httpx2.Client(base_url=url, headers=headers) as http:

            def ask(key: int, count: int) -> tuple[str, bytes]:
                body = messages.encode(QueryBody(TEXTS[:count]), MSGPACK)
                got = http.post(f"{WHERE}/query", content=body, headers={"Idempotency-Key": str(key)})
                if got.status_code == 200:
                    return "ok", got.content
                return messages.decode(got.content, MSGPACK, messages.Fault).code, b""

            check(run_all(clients, ask), house.spent, house.ledger)
        house.book.close()


@pytest.mark.parametrize("together", [2, 12])
def test_queries_that_all_fit_alone_but_not_together_are_refused_to_the_row(house: House, together: int) -> None:
    """Each asks for three quarters of the budget at the same instant: one gets it."""
    count = ROWS * 3 // 4
    with served(house.app) as url, httpx2.Client(base_url=url) as http:

        def ask(key: int, texts: int) -> int:
            return http.post(
                f"{WHERE}/query",
                json={"texts": [list(text) for text in TEXTS[:texts]]},
                headers={"Authorization": f"Bearer {house.token}", "Idempotency-Key": str(key)},
            ).status_code

        got = sorted(code for _, code in run_all([[(n, count)] for n in range(together)], ask))
    assert got == [200] + [402] * (together - 1)
    assert house.ledger == [count]


def test_the_same_query_sent_many_times_at_once_is_forwarded_once(house: House) -> None:
    with served(house.app) as url, httpx2.Client(base_url=url) as http:

        def ask() -> bytes:
            headers = {"Authorization": f"Bearer {house.token}", "Idempotency-Key": "the same"}
            got = http.post(f"{WHERE}/query", json={"texts": "train"}, headers=headers)
            assert got.status_code == 200
            return got.content

        replies = {reply for _, reply in run_all([[()]] * 10, ask)}
    assert len(replies) == 1
    assert house.lm.forwards == 1
    assert house.ledger == [TRAIN]


def test_an_answer_and_queries_at_once_leave_nothing_charged_after_the_end(house: House) -> None:
    token = house.book.token(house.token)
    assert token is not None
    blob = to_bytes(Answer.of(TASK))
    with served(house.app) as url, httpx2.Client(base_url=url) as http:

        def ask(what: str) -> Any:
            headers = {"Authorization": f"Bearer {house.token}", "Content-Type": MSGPACK, "Accept": MSGPACK}
            value = messages.Handed(blob) if what == "answer" else QueryBody("train")
            return http.post(f"{WHERE}/{what}", content=messages.encode(value, MSGPACK), headers=headers)

        got = run_all([[("query",)] * 4, [("query",), ("answer",), ("query",)]], ask)
    done = [response for (what,), response in got if what == "query" and response.status_code == 200]
    (receipt,) = [r for (what,), r in got if what == "answer"]
    assert messages.decode(receipt.content, MSGPACK, messages.Receipt).rows_spent == house.spent == TRAIN * len(done)
