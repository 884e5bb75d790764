"""Clients that are slow, gone, or lie about their size, over raw sockets."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from small_service import FAST, TASK, TRAIN, WHERE, House, served, until

from harness.blackbox.fake_language_model import FakeLanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = json.dumps({"texts": "train"}).encode()
LENGTH = len(BODY)


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[tuple[House, tuple[str, int]]]:
    """A service that waits half a second for a body of 10,000 bytes at most; its forward passes take 0.3 s."""
    lm = FakeLanguageModel(TASK, service_s=0.3)
    made = House(tmp_path, lm, dataclasses.replace(FAST, read_s=0.5, frame_bytes=10_000, at_once=2))
    with served(made.app) as url:
        host, port = url.removeprefix("http://").split(":")
        yield made, (host, int(port))
    made.book.close()


def line(where: tuple[str, int]) -> socket.socket:
    return socket.create_connection(where, timeout=60)


def head(house: House, length: Any = LENGTH, *more: str) -> bytes:
    lines = [
        f"POST {WHERE}/query HTTP/1.1", "Host: x", f"Authorization: Bearer {house.token}",
        "Content-Type: application/json", *([] if length is None else [f"Content-Length: {length}"]), *more,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def status(sock: socket.socket) -> int:
    got = b""
    while b"\r\n" not in got:
        part = sock.recv(1000)
        assert part, got
        got += part
    return int(got.split(b" ")[1])


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(open_house: Any) -> None:
    house, where = open_house
    with line(where) as sock:
        sock.sendall(head(house, 1 << 40))
        assert status(sock) == 413


def test_a_body_that_grows_too_large_in_chunks_is_refused_on_the_way(open_house: Any) -> None:
    house, where = open_house
    with line(where) as sock:
        sock.sendall(head(house, None, "Transfer-Encoding: chunked"))
        try:
            for _ in range(100):
                sock.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up on us
        else:
            assert status(sock) == 413
    assert house.spent == 0


def test_a_body_that_drips_is_not_waited_for(open_house: Any) -> None:
    house, where = open_house
    with line(where) as sock:
        sock.sendall(head(house) + BODY[:3])
        began = time.monotonic()
        assert status(sock) == 408
        assert time.monotonic() - began < 10
    assert house.spent == 0


def test_a_request_that_is_cut_off_costs_nothing(open_house: Any) -> None:
    house, where = open_house
    for cut in (0, 5, len(BODY) - 1):
        with line(where) as sock:
            sock.sendall(head(house) + BODY[:cut])
    with line(where) as sock:
        sock.sendall(head(house) + BODY)
        assert status(sock) == 200
    assert house.ledger == [TRAIN]


def test_a_client_that_leaves_before_the_reply_is_charged_and_gets_it_by_a_retry(open_house: Any) -> None:
    house, where = open_house
    with line(where) as sock:
        sock.sendall(head(house, len(BODY), "Idempotency-Key: a") + BODY)
        until(lambda: house.lm.forwards == 1)
    until(lambda: house.spent == TRAIN)
    with line(where) as sock:
        sock.sendall(head(house, len(BODY), "Idempotency-Key: a") + BODY)
        assert status(sock) == 200
    assert house.lm.forwards == 1
    assert house.ledger == [TRAIN]


def test_slots_of_clients_that_left_are_free_again(open_house: Any) -> None:
    house, where = open_house
    for _ in range(4):
        with line(where) as sock:
            sock.sendall(head(house) + BODY[:3])
    time.sleep(0.1)
    deadline = time.monotonic() + 20
    while True:
        with line(where) as sock:
            sock.sendall(head(house) + BODY)
            got = status(sock)
        if got != 429 or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert got == 200


def test_more_requests_of_one_token_than_may_be_worked_on_are_refused(open_house: Any) -> None:
    house, where = open_house
    with line(where) as first, line(where) as second, line(where) as third:
        for sock in (first, second):
            sock.sendall(head(house) + BODY)
        until(lambda: house.lm.forwards == 1)
        time.sleep(0.05)
        third.sendall(head(house) + BODY)
        assert status(third) == 429
        assert (status(first), status(second)) == (200, 200)
    assert house.ledger == [TRAIN, TRAIN]


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100, b"A" * 100_000,
        b"POST /v1/cells/fake/1/query HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/cells/fake/1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/cells/fake/1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_hurts_nobody(open_house: Any, junk: bytes) -> None:
    house, where = open_house
    with line(where) as sock:
        sock.sendall(junk)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(1000):
                pass
        except ConnectionResetError:
            pass
    with line(where) as sock:
        sock.sendall(head(house) + BODY)
        assert status(sock) == 200
