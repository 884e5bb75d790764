"""A server that is killed in the middle of its work: what was charged stays charged, and is charged once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import small_text_service as text
from small_service import TASK, TRAIN, handler, until

import harness
from harness.service.accounts import Accounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import Server as Postgres

HERE = Path(__file__).resolve().parent


class Server:
    """The process of `fake_server`, always on the same port and book."""

    def __init__(self, folder: Path, book: str = "", *more: str) -> None:
        """Pick a port; nothing runs yet."""
        self.folder, self.book, self.more = folder, book or str(folder / "service.db"), more
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"log-{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, str(HERE / "fake_server.py"), self.book, str(self.port), *self.more]
        path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})
        until(self._answers, 60)

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health").status_code == 200
        except httpx2.TransportError:
            return False

    def end(self, sig: int) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(sig)
        return self.process.wait(60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    if made.process and made.process.poll() is None:
        made.end(signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_server_goes_on_where_it_was_and_charges_every_query_once(server: Server) -> None:
    """Two connections of one token ask while the server is killed three times and started again."""
    book = Accounts(str(server.folder / "service.db"))
    token = book.new_token("alice")
    found = book.token(token)
    assert found is not None
    server.start()
    counts, stop = {"asked": 0}, threading.Event()
    lock, problems = threading.Lock(), []

    def solve() -> None:
        try:
            with harness.connect(server.url, token, task=TASK.name, patience_s=120) as box:
                while not stop.is_set():
                    box.logits(None, box.shots.train.texts)
                    with lock:
                        counts["asked"] += 1
        except Exception as problem:  # noqa: BLE001 - shown by the test
            problems.append(problem)

    solvers = [threading.Thread(target=solve) for _ in range(2)]
    for solver in solvers:
        solver.start()
    for _ in range(3):
        before = counts["asked"]
        until(lambda before=before: counts["asked"] > before + 5 or bool(problems), 60)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        server.start()
    before = counts["asked"]
    until(lambda: counts["asked"] > before + 5 or bool(problems), 60)
    stop.set()
    for solver in solvers:
        solver.join(120)
    assert not problems
    assert server.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    place = handler(book).places[TASK.name, 1]
    account = book.account("alice", "fake 0123", TASK.name, 1, 0)
    ledger = [charged.row.rows for charged in book.ledger(account.number)]
    assert len(ledger) == counts["asked"] > 20
    assert account.rows_spent == sum(ledger) == counts["asked"] * TRAIN
    assert account.rows_total == 10_000 * len(place.shots.train)
    book.close()


@pytest.mark.slow
def test_an_output_that_a_kill_cuts_off_is_written_anew_and_charged_once(tmp_path: Path) -> None:
    """A generation takes 80 ms; the server is killed in its midst, again and again."""
    server, book = Server(tmp_path, "", "text"), Accounts(str(tmp_path / "service.db"))
    token, written, stop, problems = book.new_token("alice"), list[Any](), threading.Event(), list[Exception]()
    server.start()

    def solve() -> None:
        try:
            with harness.connect(server.url, token, task=text.TASK.name, patience_s=120) as box:
                lm: Any = box
                while not stop.is_set():
                    found = lm.generate(None, lm.shots.train.texts, stop=(), most_tokens=8)
                    written.append((found.texts, found.cut, lm.budget.rows_left))
        except Exception as problem:  # noqa: BLE001 - shown by the test
            problems.append(problem)

    solver = threading.Thread(target=solve)
    solver.start()
    for kill in range(5):
        before = len(written)
        until(lambda before=before: len(written) > before + 2 or bool(problems), 60)
        time.sleep(0.015 * kill)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        server.start()
    before = len(written)
    until(lambda: len(written) > before + 2 or bool(problems), 60)
    stop.set()
    solver.join(120)
    assert not problems
    server.end(signal.SIGTERM)
    account = book.account("alice", "fake-text 0123", text.TASK.name, 1, 0)
    ledger = [charged.row.rows for charged in book.ledger(account.number)]
    assert len(ledger) == len(written) > 15
    assert len(set(ledger)) == 1
    assert len({(texts, cut) for texts, cut, _ in written}) == 1
    assert account.rows_spent == sum(ledger) == account.rows_total - written[-1][2]
    book.close()


@pytest.mark.slow
def test_two_servers_on_one_postgresql_charge_exactly_what_they_answered_though_both_are_killed(
    tmp_path: Path, postgres: Postgres
) -> None:
    """Clients of three tokens ask both servers in turn, in one account each, while the servers are killed by turns."""
    url = postgres.database()
    book, servers = Accounts(url), [Server(tmp_path, url) for _ in range(2)]
    tokens = {name: book.new_token(name) for name in ("alice", "bob", "carol")}
    answered, stop, problems = dict.fromkeys(tokens, 0), threading.Event(), list[Exception]()
    lock = threading.Lock()

    def solve(name: str, server: Server) -> None:
        try:
            with harness.connect(server.url, tokens[name], task=TASK.name, patience_s=120) as box:
                while not stop.is_set():
                    box.logits(None, box.shots.train.texts)
                    with lock:
                        answered[name] += 1
        except Exception as problem:  # noqa: BLE001 - shown by the test
            problems.append(problem)

    for server in servers:
        server.start()
    solvers = [threading.Thread(target=solve, args=(name, server)) for name in tokens for server in servers]
    for solver in solvers:
        solver.start()
    for turn in range(6):
        before = sum(answered.values())
        until(lambda before=before: sum(answered.values()) > before + 10 or bool(problems), 90)
        assert servers[turn % 2].end(signal.SIGKILL) == -signal.SIGKILL
        servers[turn % 2].start()
    before = sum(answered.values())
    until(lambda: sum(answered.values()) > before + 10 or bool(problems), 90)
    stop.set()
    for solver in solvers:
        solver.join(120)
    for server in servers:
        server.end(signal.SIGTERM)
    assert not problems
    for name in tokens:
        account = book.account(name, "fake 0123", TASK.name, 1, 0)
        ledger = [charged.row.rows for charged in book.ledger(account.number)]
        assert len(ledger) == account.queries == answered[name] > 5, name
        assert account.rows_spent == sum(ledger) == answered[name] * TRAIN
    book.close()


def test_the_log_has_no_token_whatever_is_sent(server: Server) -> None:
    book = Accounts(str(server.folder / "service.db"))
    token = book.new_token("alice")
    server.start()
    secret, wrong = token.split(".")[1], "alice.wr0ngs3cret"
    with harness.connect(server.url, token, task=TASK.name) as box:
        box.logits(None, box.shots.train.texts)
    for given in (token, wrong):
        headers = {"Authorization": f"Bearer {given}"}
        for path in ("/v1/cells", "/v1/cells/fake/1", "/v1/cells/x/1", "/nothing", "/v1/cells/fake/1/query"):
            for method in ("GET", "POST", "PUT"):
                httpx2.request(
                    method, server.url + path, headers=headers, content=b"junk" if method == "POST" else None
                )
    (server.folder / "service.db").chmod(0o600)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(f"GET /v1/cells HTTP/1.1\r\nAuthorization: Bearer {token}\r\nbad header\r\n\r\n".encode())
        time.sleep(0.2)
    server.end(signal.SIGTERM)
    log = server.log.read_text()
    assert "/v1/cells/fake/1/query" in log  # it is a log
    assert secret not in log
    assert "wr0ngs3cret" not in log
    assert "Bearer" not in log
    book.close()


def test_a_retry_after_the_restart_is_answered_bit_for_bit(server: Server) -> None:
    book = Accounts(str(server.folder / "service.db"))
    headers = {"Authorization": f"Bearer {book.new_token('alice')}", "Idempotency-Key": "a"}
    url = f"{server.url}/v1/cells/fake/1/query"
    server.start()
    first = httpx2.post(url, json={"texts": "train"}, headers=headers)
    server.end(signal.SIGKILL)
    server.start()
    assert httpx2.post(url, json={"texts": "train"}, headers=headers).content == first.content
    assert book.account("alice", "fake 0123", TASK.name, 1, 0).rows_spent == TRAIN
    book.close()
