"""A line of JSON for each request, and what a reply says of the line for the model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from small_service import TRAIN, WHERE, House, served, until

from harness.blackbox.fake import fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.service.messages import QUEUE_AHEAD, QUEUE_SECONDS
from harness.service.request_log import RequestLog, writer

if TYPE_CHECKING:
    from pathlib import Path


class Slow(FakeLanguageModel):
    """Takes 50 ms for a query, and remembers when it was asked."""

    asked = 0

    def forward(self, *given: Any, **named: Any) -> Any:
        """Count and wait."""
        self.asked += 1
        time.sleep(0.05)
        return super().forward(*given, **named)


@pytest.fixture
def slow(tmp_path: Path) -> House:
    return House(tmp_path, lm=Slow(fake_task()), calls=10_000)


def test_every_request_has_a_line_that_says_who_asked_for_what_and_how_it_ended(slow: House) -> None:
    lines: list[str] = []
    with served(RequestLog(slow.app, lines.append)) as where, httpx2.Client(base_url=where) as client:  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {slow.token}", "Idempotency-Key": "a"}
        for _ in range(2):
            client.post(f"{WHERE}/query", json={"texts": "train"}, headers=headers)
        client.get(f"/v1/cells?token={slow.token}", headers={"Authorization": "Bearer alice.wrong"})
        client.get("/v1/cells/none/1", headers=headers)
        until(lambda: len(lines) == 4)
    first, retry, unknown, nowhere = map(json.loads, lines)
    assert (first["token"], first["cell"], first["rows"], first["status"]) == ("alice", "fake/1", TRAIN, 200)
    assert first["path"] == f"{WHERE}/query"
    assert first["seconds"] >= 0.05 > first["waited_s"] >= 0
    assert first["ahead"] == 0
    assert (retry["rows"], retry["status"]) == (0, 200)
    assert (unknown["token"], unknown["status"], unknown["path"]) == (None, 401, "/v1/cells")
    assert (nowhere["token"], nowhere["cell"], nowhere["rows"], nowhere["status"]) == ("alice", "none/1", None, 404)
    assert not [line for line in lines if slow.token.split(".")[1] in line or "wrong" in line]


def test_a_reply_says_how_long_the_line_was(slow: House) -> None:
    with served(slow.app) as where:
        headers = {"Authorization": f"Bearer {slow.token}"}

        def ask(_: int) -> tuple[int, float]:
            reply = httpx2.post(f"{where}{WHERE}/query", json={"texts": "train"}, headers=headers, timeout=60)
            return int(reply.headers[QUEUE_AHEAD]), float(reply.headers[QUEUE_SECONDS])

        with ThreadPoolExecutor(6) as pool:
            found = sorted(pool.map(ask, range(6)))
    assert found[0][0] == 0
    assert found[-1][0] >= 3
    assert found[-1][1] >= 0.1


def test_a_greedy_token_does_not_take_the_share_of_a_modest_one(slow: House) -> None:
    """Eight connections of one token with 32 texts a query against one connection of another with 4."""
    tokens = {"greedy": slow.token, "modest": slow.book.new_token("modest")}
    rows, stop = dict.fromkeys(tokens, 0), threading.Event()
    lock, waits = threading.Lock(), []
    with served(slow.app) as where:

        def ask(name: str, texts: int) -> None:
            headers = {"Authorization": f"Bearer {tokens[name]}"}
            body = {"texts": [[f"w{n}"] for n in range(texts)]}
            with httpx2.Client(base_url=where, headers=headers, timeout=60) as client:
                while not stop.is_set():
                    began = time.monotonic()
                    assert client.post(f"{WHERE}/query", json=body).status_code == 200
                    with lock:
                        rows[name] += texts
                        if name == "modest":
                            waits.append(time.monotonic() - began)

        threads = [threading.Thread(target=ask, args=("greedy", 4)) for _ in range(7)]
        threads.append(threading.Thread(target=ask, args=("modest", 4)))
        for thread in threads:
            thread.start()
        until(lambda: rows["modest"] >= 4 * 30, 60)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert rows["greedy"] / rows["modest"] < 1.5, "seven connections get as much as one"


def test_a_query_without_a_key_is_dropped_when_its_client_has_gone_and_with_a_key_it_is_answered(slow: House) -> None:
    model: Any = slow.lm
    with served(slow.app) as where:
        host, port = where.removeprefix("http://").split(":")

        def leave(key: str) -> None:
            body = b'{"texts": "train"}'
            head = f"POST {WHERE}/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow.token}\r\n{key}"
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(
                    f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                )
                time.sleep(0.1)

        gate = threading.Event()
        usual = model.forward
        model.forward = lambda *given, **named: (gate.wait(20), usual(*given, **named))[1]
        holder = threading.Thread(target=lambda: httpx2.post(f"{where}{WHERE}/query", json={"texts": "train"},
                                  headers={"Authorization": f"Bearer {slow.token}"}, timeout=60))  # fmt: skip
        holder.start()
        time.sleep(0.3)
        for key in ("", "", "Idempotency-Key: k\r\n"):
            leave(key)
        time.sleep(1.0)
        gate.set()
        holder.join(30)
        until(lambda: slow.spent == 2 * TRAIN)
        time.sleep(0.3)
    assert slow.ledger == [TRAIN, TRAIN], "the holder's and the one with a key"


def test_a_log_that_cannot_be_written_is_told_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = writer(tmp_path)  # a folder
    write("{}")
    write("{}")
    assert capsys.readouterr().err.count("requests are not logged") == 1
    there = tmp_path / "log.jsonl"
    for line in "ab":
        writer(there)(line)
    assert there.read_text() == "a\nb\n"


def test_a_client_that_leaves_before_a_reply_has_a_line_without_a_status() -> None:
    lines: list[str] = []

    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ConnectionResetError

    async def nothing(*_: Any) -> None:
        """Neither receives nor sends."""

    scope = {"type": "http", "method": "GET", "path": "/" + "x" * 999}
    with contextlib.suppress(ConnectionResetError):
        asyncio.run(RequestLog(broken, lines.append)(scope, nothing, nothing))
    (line,) = map(json.loads, lines)
    assert line["status"] is None
    assert len(line["path"]) == 200
