"""Half-open connections, replies that nobody reads, and crowds: others are answered, and `/health` always."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from small_service import WHERE, House, served

from harness.service import messages
from harness.service.connections import AtOnce, connections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HALF = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.book.close()


def opened(where: str, sent: bytes = b"") -> socket.socket:
    host, port = where.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=60)
    made.sendall(sent)
    return made


def ended(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(4096):
            found += part
    return found


@pytest.mark.parametrize("sent", [b"", HALF, b"GET"])
def test_headers_that_do_not_come_are_not_waited_for(house: House, sent: bytes) -> None:
    with served(house.app, http=connections(header_s=0.5)) as where, opened(where, sent) as sock:
        began = time.monotonic()
        assert ended(sock).startswith(b"HTTP/1.1 408 ")
        assert 0.3 < time.monotonic() - began < 9


def test_headers_that_drip_have_no_more_time(house: House) -> None:
    with served(house.app, http=connections(header_s=0.5)) as where, opened(where, HALF) as sock:
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 30:
                sock.sendall(b"x: y\r\n")
                time.sleep(0.05)
        assert time.monotonic() - began < 20


def test_a_connection_is_kept_between_two_requests_for_longer_than_headers_may_take(house: House) -> None:
    with served(house.app, http=connections(header_s=0.3)) as where, httpx2.Client(base_url=where) as client:
        for _ in range(2):
            assert client.get("/health").status_code == 200
            time.sleep(0.6)
        with opened(where, HALF + b"\r\n") as sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
            sock.sendall(HALF)  # half of the next one
            began = time.monotonic()
            assert b"408" in ended(sock)
            assert time.monotonic() - began < 20


def test_a_thousand_half_open_connections_keep_nobody_out(house: House) -> None:
    """The service keeps 256 of them, for 10 s at most; who comes is answered at once."""
    with served(AtOnce(house.app, 256), http=connections()) as where, contextlib.ExitStack() as stack:  # type: ignore[arg-type]
        half = []
        for number in range(400):
            half.append(stack.enter_context(opened(where, HALF)))
            if number % 50 == 0:
                began = time.monotonic()
                assert httpx2.get(f"{where}/health").status_code == 200
                assert time.monotonic() - began < 8
        found = httpx2.get(f"{where}{WHERE}", headers={"Authorization": f"Bearer {house.token}"})
        assert found.status_code == 200
        half[0].settimeout(5)
        assert ended(half[0]) == b"", "the oldest made room"


def test_a_reply_that_nobody_reads_is_given_up(house: House) -> None:
    """Many requests at once on one connection, whose replies fill every buffer on the way.

    The service's side of the connection is what ends. When the client hears of it depends on the two kernels' buffers.
    """
    paused, lost = threading.Event(), threading.Event()

    class Watched(connections(read_s=0.5)):  # type: ignore[misc]  # a class made at run time
        def pause_writing(self) -> None:
            super().pause_writing()
            paused.set()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if paused.is_set():
                lost.set()

    with served(house.app, http=Watched) as where, opened(where) as sock:
        page, began = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", time.monotonic()
        sock.settimeout(0.2)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not lost.is_set() and time.monotonic() - began < 60:
                with contextlib.suppress(TimeoutError):
                    sock.sendall(page * 100)
        assert lost.wait(60)
        assert httpx2.get(f"{where}/health").status_code == 200


def test_health_is_answered_however_many_requests_are_worked_on() -> None:
    asyncio.run(health_within_a_crowd())


async def health_within_a_crowd() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/inner":
            await send({"type": "inner"})
            return
        await front({"type": "http", "path": "/inner", "headers": []}, never, send)
        await front({"type": "http", "path": "/inner", "headers": [(b"accept", b"application/msgpack")]}, never, send)
        if scope["path"] != "/health":
            await front({"type": "http", "path": "/health", "headers": []}, never, send)

    front = AtOnce(app, 1)
    await front({"type": "http", "path": "/outer", "headers": []}, never, send)
    bodies = [each["body"] for each in sent if each["type"] == "http.response.body"]
    starts = [each for each in sent if each["type"] == "http.response.start"]
    assert [each["status"] for each in starts] == [503] * 4, "two of them asked within /health, which is let through"
    assert all((b"retry-after", b"1") in each["headers"] for each in starts)
    fault = messages.decode(bodies[0], messages.JSON, messages.Fault)
    assert fault.code == "unavailable"
    assert "1 requests are being worked on" in fault.message
    assert messages.decode(bodies[1], messages.MSGPACK, messages.Fault) == fault
    await front({"type": "http", "path": "/inner", "headers": []}, never, send)
    assert sent[-1] == {"type": "inner"}, "it is done, and the next one is let through"
