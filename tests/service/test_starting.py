"""A server that listens while its model is still being loaded, and clients that wait for it."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx2
import pytest
from small_service import TASK, House, served, until

import harness
from harness.errors import InputError, ModelError, ServiceError
from harness.service.serve import run
from harness.service.starting import Starting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI


class Slow:
    """A service whose model is loaded when `ready` is set."""

    def __init__(self, house: House) -> None:
        self.house, self.ready, self.began = house, threading.Event(), threading.Event()

    def make(self) -> FastAPI:
        """Load the model."""
        self.began.set()
        assert self.ready.wait(60)
        return self.house.app


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    made = Slow(House(tmp_path))
    yield made
    made.ready.set()
    made.house.book.close()


def test_while_the_model_is_loaded_health_says_so_and_the_rest_is_told_to_wait(slow: Slow) -> None:
    with served(Starting(slow.make, "fake")) as url:
        assert slow.began.wait(30)
        health = httpx2.get(f"{url}/health")
        assert (health.status_code, health.json()["status"]) == (200, "starting")
        for method, path in (("GET", "/v1/cells"), ("POST", f"/v1/cells/{TASK.name}/1/query"), ("GET", "/metrics")):
            refused = httpx2.request(method, f"{url}{path}", content=b"x" if method == "POST" else None)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.json()["code"] == "unavailable"
            assert "still being loaded" in refused.json()["message"]
        slow.ready.set()
        until(lambda: httpx2.get(f"{url}/health").json()["status"] == "ok")
        assert httpx2.get(f"{url}/v1/cells").status_code == 401
        until(lambda: slow.house.settled == 1)  # the service's own start has run, too


def test_a_client_waits_for_the_model(slow: Slow) -> None:
    with served(Starting(slow.make, "fake")) as url:
        threading.Timer(1.0, slow.ready.set).start()
        began = time.monotonic()
        with harness.connect(url, slow.house.token, task=TASK.name) as box:
            assert time.monotonic() - began > 0.5
            assert box.logits(None, box.shots.train.texts).shape[0] == 1


def test_a_client_whose_patience_ends_is_told_what_it_waited_for(slow: Slow) -> None:
    with served(Starting(slow.make, "fake")) as url:
        with pytest.raises(ServiceError, match=r"status 503: the model is still being loaded.*patience_s=0\.2"):
            harness.connect(url, slow.house.token, task=TASK.name, patience_s=0.2)
        slow.ready.set()


def test_a_server_that_does_not_ask_to_wait_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program at that address, or a proxy without its server."""
    monkeypatch.setattr("harness.service.client._LONGEST_WAIT_S", 0.3)
    other = httpx2.MockTransport(lambda request: httpx2.Response(503, text="no backend", request=request))
    began = time.monotonic()
    with pytest.raises(ServiceError, match="status 503"):
        harness.connect("http://x", "alice.secret", task="fake", transport=other, patience_s=60)
    assert time.monotonic() - began < 30


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error() -> None:
    def make() -> FastAPI:
        raise ModelError("no such weights")

    with pytest.raises(ModelError, match="no such weights"):
        run(Starting(make, "fake"), "127.0.0.1", 0)


def test_a_server_that_is_ended_while_it_loads_closes_what_it_loaded(slow: Slow) -> None:
    app = Starting(slow.make, "fake")
    threading.Timer(0.3, slow.ready.set).start()
    with served(app):
        pass
    assert slow.house.settled <= 1
    assert app.problem is None


def test_a_port_in_use_is_told_before_anything_is_loaded(slow: Slow) -> None:
    """It was told after "startup complete", when the model was being loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port} cannot be listened on: .*in use.*--port"):
            run(Starting(slow.make, "fake"), "127.0.0.1", port)
    assert not slow.began.is_set()
