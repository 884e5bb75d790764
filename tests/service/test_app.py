"""The service over HTTP: who may ask, what it costs, in which format, and what is said of what went wrong."""

from __future__ import annotations

import base64
import dataclasses
import re
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest
from fastapi.testclient import TestClient
from small_service import CALLS, FAST, ROWS, TASK, TRAIN, WHERE, House, served, until

from harness.blackbox import wire
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.contract import Answer, Prompt, Subspace
from harness.errors import DeviceMemoryError, StoreError
from harness.service import messages
from harness.service.app import STATUS
from harness.service.messages import JSON, MSGPACK, Fault, QueryBody
from harness.solving.answers import to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUERY = f"{WHERE}/query"


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(house.app, headers={"Authorization": f"Bearer {house.token}"}) as made:
        yield made


def asked(client: TestClient, value: Any, media: Any = MSGPACK, path: str = QUERY, **headers: str) -> Any:
    return client.post(
        path, content=messages.encode(value, media), headers={"Content-Type": media, "Accept": media, **headers}
    )


def result(response: Any) -> wire.Result:
    assert response.status_code == 200, response.content
    return messages.decode(response.content, MSGPACK, wire.Result)


def fault(response: Any) -> Fault:
    found = messages.decode(response.content, response.headers["content-type"], Fault)
    assert response.status_code == STATUS[found.code]
    return found


def test_a_query_is_charged_by_the_row_until_the_budget_refuses_it(client: TestClient, house: House) -> None:
    left = [result(asked(client, QueryBody("train"))).rows_left for _ in range(CALLS)]
    assert left == [ROWS - TRAIN * (n + 1) for n in range(CALLS)]
    refused = asked(client, QueryBody("train"))
    assert refused.status_code == 402
    assert fault(refused) == Fault("budget_exhausted", "4 rows asked, 0 left", TRAIN, 0, ROWS)
    assert house.spent == ROWS == sum(house.ledger)


def test_the_logits_are_those_of_the_model(client: TestClient, house: House) -> None:
    place = house.handler.places[TASK.name, 1]
    space = Subspace(3, (0.5, 0.5), 2, seed=5)
    z = np.random.default_rng(0).standard_normal((2, 2, 3)).astype(np.float32)
    got = result(asked(client, QueryBody("train", prompt=wire.Array.of(z), space=space)))
    want = house.lm.fake.outputs(space.at(z), place.shots.train.texts, TASK.template, TASK.words).logits
    np.testing.assert_array_equal(got.logits.values(3), want)
    values = np.ones((3, 1, 2, 16), dtype=np.float32)
    got = result(asked(client, QueryBody("dev", prompt=wire.Array.of(values), features="mask")))
    out = house.lm.fake.outputs(Prompt(values), place.shots.dev.texts, TASK.template, TASK.words)
    np.testing.assert_array_equal(got.logits.values(3), out.logits)
    assert got.features is not None
    np.testing.assert_array_equal(got.features.values(3), out.features)
    assert house.ledger == [2 * TRAIN, 3 * TRAIN]


def test_json_says_what_msgpack_says(client: TestClient) -> None:
    packed = result(asked(client, QueryBody("train"), Accept=MSGPACK))
    plain = client.post(QUERY, json={"texts": "train"}).json()
    shape, data = plain["logits"]
    assert np.frombuffer(base64.b64decode(data), "<f4").tobytes() == packed.logits.data
    assert tuple(shape) == packed.logits.shape


def test_a_retry_is_answered_bit_for_bit_and_charged_once(client: TestClient, house: House) -> None:
    first = asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    asked(client, QueryBody("dev"))
    again = asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    assert again.content == first.content
    assert house.ledger == [TRAIN, TRAIN]
    assert house.lm.forwards == 2


def test_a_retry_may_come_in_another_format(client: TestClient, house: House) -> None:
    first = result(asked(client, QueryBody("train"), **{"Idempotency-Key": "a"}))
    again = asked(client, QueryBody("train"), JSON, **{"Idempotency-Key": "a"})
    assert messages.decode(again.content, JSON, wire.Result) == first
    assert house.ledger == [TRAIN]


def test_a_key_is_good_for_one_query_alone(client: TestClient, house: House) -> None:
    asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    refused = asked(client, QueryBody("dev"), **{"Idempotency-Key": "a"})
    assert (refused.status_code, fault(refused).code) == (409, "key_reused")
    assert house.ledger == [TRAIN]


def test_keys_of_different_tokens_and_cells_have_nothing_to_do_with_each_other(
    client: TestClient, house: House
) -> None:
    other = f"Bearer {house.book.new_token('bob')}"
    asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    assert result(asked(client, QueryBody("dev"), Authorization=other, **{"Idempotency-Key": "a"})).rows_left == 36
    path = QUERY.replace("/1/", "/2/")
    assert result(asked(client, QueryBody("dev"), path=path, **{"Idempotency-Key": "a"})).rows_left == 36
    assert house.spent == TRAIN


def test_a_query_that_was_refused_may_be_sent_anew_under_its_key(client: TestClient, house: House) -> None:
    asked(client, QueryBody("train", template="no mask"), **{"Idempotency-Key": "a"})
    assert result(asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})).rows_left == ROWS - TRAIN
    assert house.ledger == [TRAIN]


def test_a_reply_that_is_no_longer_kept_is_refused_and_not_charged_again(
    client: TestClient, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.service.accounts.KEPT_REPLIES", 1)
    for key in "ab":
        asked(client, QueryBody("train"), **{"Idempotency-Key": key})
    gone = asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    assert (gone.status_code, fault(gone).code) == (410, "reply_gone")
    assert house.ledger == [TRAIN, TRAIN]


@pytest.mark.parametrize(
    "wrong",
    [
        QueryBody([("a", "b")]), QueryBody([("a",) * 2, ("a",)]), QueryBody("train", template="no mask"),
        QueryBody("train", words=("two words",)), QueryBody("train", prompt=wire.Array((1, 1, 2, 16), b"")),
        QueryBody("train", prompt=wire.Array((1, 1, 2, 16), np.full(32, np.nan, "<f4").tobytes())),
        QueryBody("train", prompt=wire.Array((0, 1, 2, 16), b"")),
        QueryBody("train", prompt=wire.Array((1, 1, 1), b"\0" * 4), space=Subspace(1 << 31, (1.0,), 1, 0)),
        QueryBody("train", prompt=wire.Array((1, 9, 1), b"\0" * 36), space=Subspace(1, (1.0,) * 9, 1, 0)),
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_rejected_and_costs_nothing(
    client: TestClient, house: House, wrong: QueryBody
) -> None:
    refused = asked(client, wrong)
    assert (refused.status_code, fault(refused).code) == (422, "rejected")
    assert house.spent == 0


def test_a_text_that_is_too_long_is_cut(client: TestClient, house: House) -> None:
    """As everywhere: it was refused."""
    replies = [asked(client, QueryBody([("w1 " * count,)])) for count in (10_000, 6_667)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert house.ledger == [1, 1]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"{}", b"[]", b"null", b'{"texts": "test"}', b'{"texts": "train", "x": 1}']
)
@pytest.mark.parametrize("media", [MSGPACK, JSON])
def test_a_body_that_cannot_be_read_is_refused(client: TestClient, house: House, body: bytes, media: str) -> None:
    refused = client.post(QUERY, content=body, headers={"Content-Type": media})
    assert (refused.status_code, fault(refused).code) == (400, "unreadable")
    assert house.spent == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-msgpack-but-not", "multipart/form-data"])
def test_another_format_is_refused(client: TestClient, kind: str) -> None:
    assert fault(client.post(QUERY, content=b"{}", headers={"Content-Type": kind})).code == "media_type"
    zipped = client.post(QUERY, content=b"{}", headers={"Content-Type": JSON, "Content-Encoding": "gzip"})
    assert fault(zipped).code == "media_type"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer alice", "Basic YTpi", "Bearer alice.wrong", "x" * 5000]
)
def test_without_a_token_nothing_but_health_and_metrics_is_to_be_had(house: House, header: str) -> None:
    with TestClient(house.app) as client:
        for method, path in (("GET", "/v1/cells"), ("GET", WHERE), ("GET", "/v1/vocabulary"), ("POST", QUERY),
                             ("POST", f"{WHERE}/words"), ("POST", f"{WHERE}/answer")):  # fmt: skip
            refused = client.request(method, path, headers={"Authorization": header} if header else {})
            assert (refused.status_code, fault(refused).code) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").json() == {"status": "ok", "track": "fake", "waiting": 0}
        assert client.get("/metrics").status_code == 200


def test_a_token_that_is_revoked_opens_nothing_from_then_on(client: TestClient, house: House) -> None:
    assert client.get("/v1/cells").status_code == 200
    house.book.revoke("alice")
    assert fault(client.get("/v1/cells")).code == "unauthorized"


@pytest.mark.parametrize(
    "path", ["/v1/cells/fake/3", "/v1/cells/other/1", "/v1/cells/fake/x", "/v1/cells/fake/99999999999999999999"]
)
def test_a_cell_that_is_not_there_is_said_so(client: TestClient, path: str) -> None:
    assert fault(client.get(path)).code == "unknown_cell"


def test_a_page_tells_all_of_a_cell_and_nothing_of_its_test_set(client: TestClient, house: House) -> None:
    page = msgspec.json.decode(client.get(WHERE).content, type=messages.CellPage)
    place = house.handler.places[TASK.name, 1]
    assert page.task == TASK
    assert tuple(page.train.texts) == place.shots.train.texts
    assert page.dev.labels == place.shots.dev.labels.tolist()
    assert page.budget.rows_left == ROWS
    assert {f.name for f in msgspec.structs.fields(page)} == {
        "track", "task", "split", "train", "dev", "info", "budget", "submitted", "text_task",
    }  # fmt: skip


def test_a_token_may_have_a_budget_of_its_own(client: TestClient, house: House) -> None:
    rich = house.book.new_token("bob", calls=1000)
    cells = client.get("/v1/cells", headers={"Authorization": f"Bearer {rich}"}).json()
    assert [c["budget"]["rows_total"] for c in cells] == [1000 * TRAIN] * 2


def test_words_are_free(client: TestClient, house: House) -> None:
    ids = asked(client, messages.WordsAsked((" class0", "two words")), JSON, f"{WHERE}/words").json()["ids"]
    assert ids == house.lm.word_ids([" class0", "two words"])
    assert fault(asked(client, messages.WordsAsked(("x" * 300,)), path=f"{WHERE}/words")).code == "rejected"
    assert len(client.get("/v1/vocabulary").json()["words"]) == house.lm.fake.info.vocabulary
    assert house.spent == 0


def hand_in(client: TestClient, answer: Answer) -> Any:
    return asked(client, messages.Handed(to_bytes(answer)), path=f"{WHERE}/answer")


def test_an_answer_closes_the_cell_and_its_score_is_not_told(client: TestClient, house: House) -> None:
    asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    until(lambda: house.settled == 1)  # at the start
    taken = hand_in(client, Answer.of(TASK))
    assert taken.status_code == 202
    receipt = messages.decode(taken.content, MSGPACK, messages.Receipt)
    assert receipt.rows_spent == TRAIN
    until(lambda: house.settled == 2)
    assert fault(asked(client, QueryBody("train"))).code == "closed"
    assert result(asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})).rows_left == ROWS - TRAIN
    assert hand_in(client, Answer.of(TASK)).content == taken.content
    assert fault(hand_in(client, Answer.of(TASK, loss=1.0))).code == "closed"
    assert house.spent == TRAIN


def test_an_answer_that_does_not_fit_leaves_the_cell_open(client: TestClient, house: House) -> None:
    for blob in (b"", b"junk" * 10, to_bytes(Answer(())), to_bytes(Answer.of(TASK, Prompt(np.ones((2, 1, 1, 16)))))):
        refused = asked(client, messages.Handed(blob), path=f"{WHERE}/answer")
        assert fault(refused).code == "rejected"
    assert result(asked(client, QueryBody("train"))).rows_left == ROWS - TRAIN


def test_one_token_cannot_ask_faster_than_it_may(tmp_path: Path) -> None:
    house = House(tmp_path, limits=limits(per_s=0.01, burst=3))
    with TestClient(house.app, headers={"Authorization": f"Bearer {house.token}"}) as client:
        codes = [client.get("/v1/cells").status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        assert client.get("/v1/cells").headers["retry-after"] == "1"
        other = house.book.new_token("bob")
        assert client.get("/v1/cells", headers={"Authorization": f"Bearer {other}"}).status_code == 200
    house.book.close()


def limits(**changes: Any) -> Any:
    return dataclasses.replace(FAST, **changes)


def test_a_book_that_cannot_be_written_charges_nothing_and_says_so(
    client: TestClient, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("disk full at /secret/place")

    with monkeypatch.context() as patched:
        patched.setattr(house.book, "charge", full)
        refused = asked(client, QueryBody("train"))
    assert (refused.status_code, fault(refused).code) == (503, "unavailable")
    assert b"secret" not in refused.content
    assert house.spent == 0
    assert result(asked(client, QueryBody("train"))).rows_left == ROWS - TRAIN


def test_counters_count_and_know_no_token(client: TestClient, house: House) -> None:
    asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    asked(client, QueryBody("train"), **{"Idempotency-Key": "a"})
    asked(client, QueryBody("train", template="x"))
    page = client.get("/metrics").text
    for line in (
        'harness_queries_total{task="fake"} 1.0', f'harness_rows_total{{task="fake"}} {TRAIN}.0',
        "harness_replays_total 1.0", 'harness_refusals_total{reason="rejected"} 1.0',
        "harness_query_seconds_count 2.0", "harness_waiting 0.0",
    ):  # fmt: skip
        assert line in page.splitlines(), line
    assert re.search(r'harness_tokens_total\{task="fake"\} [1-9]', page)
    assert "alice" not in page
    assert house.token.split(".")[1] not in page


def test_health_answers_while_the_model_computes(tmp_path: Path) -> None:
    lm = FakeLanguageModel(TASK, service_s=1.5)
    house = House(tmp_path, lm)
    with served(house.app) as url, httpx2.Client(base_url=url) as client:
        ask = threading.Thread(
            target=lambda: httpx2.post(
                url + QUERY, json={"texts": "train"}, headers={"Authorization": f"Bearer {house.token}"}
            )
        )
        ask.start()
        until(lambda: lm.forwards == 1)
        assert client.get("/health").json()["waiting"] == 1
        assert house.spent == 0  # it had an answer before the forward pass had
        ask.join(30)
        assert client.get("/health").json()["waiting"] == 0
        assert house.spent == TRAIN
    house.book.close()


def test_a_model_without_memory_for_a_query_says_what_to_do_and_charges_nothing(
    client: TestClient, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DeviceMemoryError("20 candidates at once; ask for fewer")

    monkeypatch.setattr(house.lm, "forward", full)
    assert fault(asked(client, QueryBody("train"))) == Fault("rejected", "20 candidates at once; ask for fewer")
    assert house.spent == 0
