"""`harness.connect` is a black box like the others, even over a network that loses messages."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_service import CALLS, ROWS, TASK, TRAIN, House, served, until

import harness
from harness.blackbox.fake import FakeLM
from harness.blackbox.meter import Meter
from harness.contract import Answer, BlackBox, Member, Prompt, Subspace
from harness.errors import AnswerError, BudgetExhausted, InputError, QueryError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.service.client import ServiceBlackBox

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"
Fate = str


class Lossy(httpx2.BaseTransport):
    """A network with a result for each request: ``ok``, request ``lost``, reply ``cut``, or server ``busy``."""

    def __init__(self, fates: list[Fate]) -> None:
        """After these results, every request succeeds."""
        self.fates, self.inner, self.keys = list(fates), httpx2.HTTPTransport(), []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Apply the next result."""
        fate = self.fates.pop(0) if self.fates and request.method == "POST" else "ok"
        self.keys.append(request.headers.get("Idempotency-Key"))
        if fate == "lost":
            raise httpx2.ConnectError("made up")
        if fate == "busy":
            return httpx2.Response(503, request=request)
        response = self.inner.handle_request(request)
        if fate == "cut":
            response.read()
            response.close()
            raise httpx2.ReadError("made up")
        return response

    def close(self) -> None:
        """Close the real one."""
        self.inner.close()


@pytest.fixture
def url(house: House) -> Iterator[str]:
    with served(house.app) as address:
        yield address


@pytest.fixture
def box(house: House, url: str) -> Iterator[ServiceBlackBox]:
    with harness.connect(url, house.token, task="fake", split=1) as made:
        yield made


def here(house: House) -> FakeLM:
    """The same cell without a network."""
    return FakeLM(house.lm.fake, Meter(CALLS, TRAIN))


def test_it_is_a_black_box(box: ServiceBlackBox, house: House) -> None:
    typed: BlackBox = box
    place = house.handler.places[TASK.name, 1]
    assert typed.info == place.info
    assert box.task == TASK
    assert box.shots.train.texts == place.shots.train.texts
    np.testing.assert_array_equal(box.shots.dev.labels, place.shots.dev.labels)
    assert (typed.budget.rows_total, typed.budget.rows_left, typed.budget.train_rows) == (ROWS, ROWS, TRAIN)


def test_it_answers_what_the_model_answers(box: ServiceBlackBox, house: House) -> None:
    near, space = here(house), Subspace(3, (0.5, 0.5), 2, seed=1)
    z = np.random.default_rng(0).standard_normal((2, 2, 3))
    shots = box.shots
    np.testing.assert_array_equal(
        box.logits(space.at(z), shots.train.texts), near.logits(space.at(z), shots.train.texts)
    )
    prompt = Prompt(np.full((1, 1, 2, 16), 0.3, dtype=np.float32))
    for kind in ("mask", "cls", "all"):
        far, close = (lm.outputs(prompt, [("w1 w2",), ("w3",)], features=kind) for lm in (box, near))
        np.testing.assert_array_equal(far.logits, close.logits)
        np.testing.assert_array_equal(far.features, close.features)
        np.testing.assert_array_equal(far.lengths, close.lengths)
    other = {"template": "{mask} : {a}", "words": [" class1"], "normalize": True}
    np.testing.assert_array_equal(
        box.logits(None, shots.dev.texts[:2], **other), near.logits(None, shots.dev.texts[:2], **other)
    )
    assert box.word_ids([" class0", "a b"]) == near.word_ids([" class0", "a b"])
    assert box.vocabulary() == near.vocabulary()
    assert box.budget == near.budget


def test_it_refuses_as_the_others_do(box: ServiceBlackBox) -> None:
    with pytest.raises(QueryError, match="mask"):
        box.logits(None, box.shots.train.texts, template="nothing")
    with pytest.raises(QueryError, match="string expected"):
        box.logits(None, [(3,)])  # type: ignore[list-item]
    with pytest.raises(QueryError):
        box.logits(None, [])
    with pytest.raises(QueryError, match="candidates"):
        box.logits(Prompt(np.ones((2, 2))), box.shots.train.texts)
    with pytest.raises(BudgetExhausted) as caught:
        box.logits(None, [("w1",)] * (ROWS + 1))
    assert (caught.value.rows_asked, caught.value.rows_left, caught.value.rows_total) == (ROWS + 1, ROWS, ROWS)
    assert box.budget.rows_left == ROWS


@pytest.mark.parametrize("name", ["bbt", "house"])
def test_a_submission_runs_unchanged_and_alike(house: House, url: str, name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"far_{name}", SUBMISSIONS / name / "submission.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def answers(lm: Any, shots: Any) -> list[Answer]:
        found = []
        try:
            for answer in islice(module.tune(lm, TASK, shots, np.random.default_rng(0), module.Config()), 20):
                found.append(answer)  # noqa: PERF402 - what came before the budget's end is kept
        except BudgetExhausted:
            pass
        return found

    from harness.solving.answers import to_bytes

    rich = house.book.new_token("rich", calls=60)
    with harness.connect(url, rich, task="fake") as box:
        far = answers(box, box.shots)
        near = answers(FakeLM(house.lm.fake, Meter(60, TRAIN)), box.shots)
        assert [to_bytes(a) for a in far] == [to_bytes(a) for a in near]
        assert far
        assert box.submit(far[-1])
    until(lambda: house.settled == 2)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(["ok", "lost", "cut", "busy"]), max_size=6))
def test_whatever_gets_lost_each_query_is_charged_once(tmp_path_factory: Any, fates: list[Fate]) -> None:
    house = House(tmp_path_factory.mktemp("lossy"))
    with served(house.app) as url, harness.connect(url, house.token, task="fake", transport=Lossy(fates)) as box:
        rows = [1, 2, 3]
        got = [box.logits(None, box.shots.train.texts[:n]) for n in rows]
        assert house.ledger == rows
        assert box.budget.rows_left == ROWS - 6
        for n, logits in zip(rows, got, strict=True):
            np.testing.assert_array_equal(logits, here(house).logits(None, box.shots.train.texts[:n]))
    house.book.close()


def test_each_query_has_a_key_of_its_own_and_its_retries_the_same(house: House, url: str) -> None:
    lossy = Lossy(["lost", "cut", "ok", "ok"])
    with harness.connect(url, house.token, task="fake", transport=lossy) as box:
        box.logits(None, box.shots.train.texts)
        box.logits(None, box.shots.train.texts)
    first, second, third, fourth = lossy.keys[-4:]
    assert first == second == third
    assert fourth not in {None, first}


def test_an_answer_is_handed_in_once_however_often_it_travels(house: House, url: str) -> None:
    with harness.connect(url, house.token, task="fake", transport=Lossy(["cut", "lost"])) as box:
        digest = box.submit(Answer.of(TASK))
        assert len(digest) == 64
        with pytest.raises(AnswerError, match="handed in"):
            box.submit(Answer.of(TASK, loss=1.0))
        with pytest.raises(QueryError, match="closed"):
            box.logits(None, box.shots.train.texts)


def test_an_answer_that_breaks_the_contract_is_refused(box: ServiceBlackBox) -> None:
    for answer in (Answer(()), Answer((Member("no mask", TASK.words),)), Answer((Member(TASK.template, ("a",)),))):
        with pytest.raises(AnswerError):
            box.submit(answer)
    box.logits(None, box.shots.train.texts)  # the cell is open


def test_the_budget_that_another_connection_spent_is_seen_on_reload(house: House, url: str, box: Any) -> None:
    with harness.connect(url, house.token, task="fake") as other:
        other.logits(None, other.shots.train.texts)
    assert box.budget.rows_left == ROWS
    box.reload()
    assert box.budget.rows_left == ROWS - TRAIN


def test_the_budget_that_another_connection_spent_is_seen_when_a_query_does_not_fit(
    house: House, url: str, box: ServiceBlackBox
) -> None:
    with harness.connect(url, house.token, task="fake") as other:
        other.logits(None, [("w1",)] * (ROWS - 1))
    with pytest.raises(BudgetExhausted):
        box.logits(None, box.shots.train.texts)
    assert box.budget.rows_left == 1


def test_a_server_that_is_not_there_is_said_so_when_patience_ends() -> None:
    with pytest.raises(ServiceError, match=r"no answer.*harness serve"):
        harness.connect("http://127.0.0.1:9", "alice.secret-of-alice", task="fake", patience_s=0.2)


def test_what_is_no_service_is_said_so() -> None:
    other = httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>welcome", request=request))
    with pytest.raises(ServiceError, match="something else"):
        harness.connect("http://x", "alice.secret", task="fake", transport=other)


def test_a_wrong_token_cell_or_address_is_an_input_error_that_does_not_show_the_token(house: House, url: str) -> None:
    for where, token, task in (
        (url, "alice.wrong-secret", "fake"), (url, house.token, "nosuchtask"), ("nonsense", "alice.wrong-secret", "x"),
        (url, "alice.wröng-secret€", "fake"),
        ("ftp://127.0.0.1", "alice.wrong-secret", "x"),
    ):  # fmt: skip
        with pytest.raises((InputError, ServiceError)) as caught:
            harness.connect(where, token, task=task, patience_s=0.1)
        assert "secret" not in str(caught.value)
        assert token.split(".")[1] not in repr(caught.value)


def test_it_does_not_show_its_token(box: ServiceBlackBox, house: House) -> None:
    secret = house.token.split(".")[1]
    assert secret not in repr(box)
    assert secret not in str(vars(box))
    assert "fake/1" in repr(box)


def test_importing_harness_does_not_import_http() -> None:
    program = (
        "import harness, sys; sys.exit(bool({'httpx2', 'fastapi', 'uvicorn', 'prometheus_client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(InputError, match=r"\.\[service\]"):
        harness.connect("http://x", "t", task="fake")


@pytest.mark.parametrize(
    "token", ["alice.SEC\rRET", "alice.SEC RET", "", "\n", "alice.S\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_token_that_cannot_be_one_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InputError, match="copy it anew") as caught:
        harness.connect("http://127.0.0.1:9", token, task="sst2")
    assert "SEC" not in str(caught.value)


def test_a_token_read_from_a_file_may_end_in_a_new_line(house: House, url: str) -> None:
    with harness.connect(url, f"{house.token}\n", task=TASK.name) as box:
        assert box.budget.rows_left > 0


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x"])
def test_no_proxy_of_the_environment_comes_between(
    house: House, url: str, name: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It broke a connection to this machine, or was sent the token."""
    monkeypatch.setenv(name, proxy)
    with harness.connect(url, house.token, task="fake", split=1) as box:
        assert box.task == TASK


def test_in_plain_http_no_proxy_gets_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for another machine; the proxy here would note the request."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with pytest.raises(ServiceError):
            harness.connect("http://harness.invalid", "t.x", task="fake", patience_s=0.1)
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_certificates_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(InputError, match=r"certificates cannot be read: .*SSL_CERT_FILE=/nowhere/ca\.pem"):
        harness.connect("https://harness.invalid", "t.x", task="fake")
