"""Text tasks over HTTP: likelihoods and outputs as without it, charged while they are written, answered once."""

from __future__ import annotations

import base64
import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from fastapi.testclient import TestClient
from small_service import TASK as CLASSES
from small_service import WHERE as ELSEWHERE
from small_service import House, served
from small_text_service import CALLS, ROWS, SHOTS, TASK, TRAIN, WHERE, TextHouse

import harness
from harness import testing
from harness.blackbox import wire
from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.fake_text_lm import FakeTextLM
from harness.contract import Answer, Member, Prompt, WeightSpace
from harness.errors import AnswerError, BudgetExhausted, QueryError
from harness.service.accounts import Accounts
from harness.service.client import ServiceTextBlackBox
from harness.service.messages import CellPage, QueryBody
from harness.testing import TextSubject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPT = Prompt(np.full((2, 1, 2, 16), 0.3, dtype=np.float32))
TARGETS = TASK.targets(SHOTS[1].train)
SEARCH = Path(__file__).resolve().parents[2] / "submissions" / "random_search"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[TextHouse]:
    made = TextHouse(tmp_path)
    yield made
    made.book.close()


def near(calls: int = CALLS) -> FakeTextLM:
    """The same cell without HTTP."""
    return FakeTextLM.for_task(TASK, SHOTS[1], calls, row_tokens=4)


def open_box(url: str, house: TextHouse) -> Any:
    return harness.connect(url, house.token, task=TASK.name, split=1)


def asked(house: TextHouse, **more: str) -> tuple[TestClient, dict[str, str]]:
    return TestClient(house.app), {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json", **more}


@pytest.mark.parametrize("check", testing.TEXT_CHECKS, ids=lambda check: check.__name__)
def test_the_services_client_keeps_the_contract_of_text(check: Callable[[TextSubject], None], tmp_path: Path) -> None:
    house = TextHouse(tmp_path, calls=60)
    with served(house.app) as url, open_box(url, house) as box:
        check(TextSubject(lambda: box, TASK, SHOTS[1]))
    house.book.close()


def test_text_is_answered_over_http_as_without_it(tmp_path: Path) -> None:
    house, here = TextHouse(tmp_path, calls=60), near(60)
    with served(house.app) as url, open_box(url, house) as box:
        assert isinstance(box, ServiceTextBlackBox)
        assert (box.task, box.info.kind) == (TASK, "causal")
        assert box.shots.train.references == SHOTS[1].train.references
        texts = box.shots.train.texts
        for prompts in (None, PROMPT):
            a, b = (lm.score(prompts, texts, TARGETS) for lm in (box, here))
            np.testing.assert_array_equal(a.values, b.values)
            np.testing.assert_array_equal(a.lengths, b.lengths)
            assert box.budget == here.budget
        for more in ({}, {"temperature": 1.0, "seed": 3}, {"stop": (), "most_tokens": 3}, {"template": "{a} so"}):
            a, b = (lm.generate(None, box.shots.dev.texts, **more) for lm in (box, here))
            assert a.texts == b.texts
            assert (a.tokens == b.tokens).all()
            assert box.budget == here.budget
        np.testing.assert_array_equal(box.logits(None, texts), here.logits(None, texts))
        assert box.word_ids([" said"]) == here.word_ids([" said"])
    assert house.ledger == [row.rows for row in here.ledger]
    assert house.spent == here.meter.spent
    house.book.close()


def test_a_submission_for_classes_searches_a_text_task_over_http(house: TextHouse) -> None:
    sys.path.insert(0, str(SEARCH))
    try:
        import submission
    finally:
        sys.path.pop(0)
        sys.modules.pop("submission", None)
    with served(house.app) as url, open_box(url, house) as box:
        config, last = submission.Config(dim=4, population=2), None
        with contextlib.suppress(BudgetExhausted):
            for answer in submission.tune(box, box.task, box.shots, np.random.default_rng(0), config):
                last = answer
        assert last is not None
        box.submit(last)
        assert box.budget.rows_left < ROWS


def test_a_problem_over_http_learns_what_its_texts_cost(house: TextHouse) -> None:
    with served(house.app) as url, harness.problem(TASK.name, url=url, token=house.token, dim=3) as problem:
        assert problem.budget_left == CALLS
        problem(np.zeros((1, 3)))
        assert problem.budget_left == (ROWS - 16) // 16  # nine words and five tokens are four rows
        problem(np.ones((problem.budget_left, 3)))
        assert problem.budget_left == 0
        assert problem.test_score() is None
    assert house.spent == ROWS
    with served(house.app) as url, open_box(url, house) as box, pytest.raises(QueryError, match="closed"):
        box.generate(None, box.shots.dev.texts)


def test_an_output_that_the_budget_ends_is_billed_as_far_as_it_went(tmp_path: Path) -> None:
    house, here = TextHouse(tmp_path, calls=3), near(3)  # 12 rows, which the four texts of nine words take
    with served(house.app) as url, open_box(url, house) as box:
        cut = box.generate(None, box.shots.train.texts, stop=(), most_tokens=30)
        same = here.generate(None, SHOTS[1].train.texts, stop=(), most_tokens=30)
        assert cut.cut
        assert cut.texts == same.texts
        assert cut.tokens.max() == 3  # the third token fills the third row of a text
        assert house.ledger == [here.meter.spent] == [12]
        assert box.budget.rows_left == 0
        with pytest.raises(BudgetExhausted):
            box.generate(None, box.shots.train.texts)
        assert len(house.ledger) == 1
    house.book.close()


def test_a_retry_is_answered_bit_for_bit_and_charged_once(house: TextHouse) -> None:
    client, head = asked(house, **{"Idempotency-Key": "one"})
    body = b'{"texts": "train", "temperature": 1.0, "seed": 7}'
    first, again = (client.post(f"{WHERE}/generate", content=body, headers=head) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    packed = client.post(f"{WHERE}/generate", content=body, headers=head | {"Accept": "application/msgpack"})
    assert msgspec.json.decode(first.content) == msgspec.msgpack.decode(packed.content)
    assert len(house.ledger) == 1
    other = client.post(f"{WHERE}/score", content=b'{"texts": "train", "targets": "train"}', headers=head)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    assert len(house.ledger) == 1


def test_json_and_msgpack_are_one_query(house: TextHouse) -> None:
    client, head = asked(house)
    plain = client.post(f"{WHERE}/score", content=b'{"texts": "train", "targets": "train"}', headers=head).json()
    whole = {"texts": SHOTS[1].train.texts, "targets": TARGETS, "template": TASK.template}
    packed = client.post(
        f"{WHERE}/score", content=msgspec.msgpack.encode(whole),
        headers=head | {"Content-Type": "application/msgpack", "Accept": "application/msgpack"},
    )  # fmt: skip
    found = msgspec.msgpack.decode(packed.content, type=wire.Scored)
    shape, data = plain["values"]
    assert found.values.data == base64.b64decode(data)
    assert list(found.values.shape) == shape
    assert plain["lengths"] == found.lengths
    assert plain["rows_left"] > found.rows_left


def test_what_is_refused_costs_nothing(house: TextHouse) -> None:
    client, head = asked(house)
    for path, body, said in (
        ("score", {"texts": "train", "targets": ["no"]}, "1 targets for 4 texts"),
        ("score", {"texts": "dev", "targets": "train", "template": "{a} {mask}"}, "mask"),
        ("score", {"texts": [["a", "b"]], "targets": ["no"]}, "fields"),
        ("generate", {"texts": "train", "stop": [""]}, "a stop has 0 characters"),
        ("generate", {"texts": "train", "most_tokens": 60_000}, "could have"),
        ("query", {"texts": "train"}, "0 label words"),
    ):
        reply = client.post(f"{WHERE}/{path}", content=msgspec.json.encode(body), headers=head)
        assert reply.status_code == 422, reply.text
        assert said in reply.json()["message"]
    for path, body in (
        ("score", {"texts": "train"}),
        ("generate", {"texts": "train", "temperature": -1}),
        ("generate", {"texts": "train", "seed": -1}),
        ("generate", {"texts": "train", "words": ["a"]}),
    ):
        reply = client.post(f"{WHERE}/{path}", content=msgspec.json.encode(body), headers=head)
        assert (reply.status_code, reply.json()["code"]) == (400, "unreadable")
    assert not house.ledger
    with served(house.app) as url, open_box(url, house) as box:
        with pytest.raises(QueryError, match="neither of train nor of dev"):
            box.logits(None, [("unheard of",)])
        with pytest.raises(AnswerError, match="words"):
            box.submit(Answer((Member("{a}", (" no",)),)))
    assert not house.ledger


def test_candidates_may_change_weights(house: TextHouse) -> None:
    texts, space = SHOTS[1].train.texts, WeightSpace("norms", 1, 0.1, 1)
    with served(house.app) as url, open_box(url, house) as box:
        bare = box.score(None, texts, TARGETS)
        moved = box.score(space.at([[0.0], [1.0]]), texts, TARGETS)
        assert moved.values.shape == (2, *bare.values.shape[1:])
        np.testing.assert_allclose(moved.values[0], bare.values[0], rtol=1e-5)
        assert not np.allclose(moved.values[1], bare.values[0])
        assert len(box.generate(space.at([1.0]), texts).texts) == 1
    here = near()
    here.score(None, texts, TARGETS)
    here.score(space.at([[0.0], [1.0]]), texts, TARGETS)
    here.generate(space.at([1.0]), texts)
    assert house.ledger == [row.rows for row in here.ledger], "the prices are those without HTTP"
    assert house.ledger[1] == 2 * house.ledger[0], "a change of weights costs what a prompt does"


def test_a_task_with_classes_has_no_text(tmp_path: Path) -> None:
    house = House(tmp_path)
    client = TestClient(house.app)
    head = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    for path, body in (("score", b'{"texts": "train", "targets": ["a"]}'), ("generate", b'{"texts": "train"}')):
        reply = client.post(f"{ELSEWHERE}/{path}", content=body, headers=head)
        assert reply.status_code == 422
        assert "this task has classes" in reply.json()["message"]
    assert not house.ledger
    house.book.close()


def test_the_page_of_a_cell_with_classes_is_as_it_was(tmp_path: Path) -> None:
    """Clients of older versions read it, and refuse fields that they do not know."""
    house = House(tmp_path)
    page = TestClient(house.app).get(ELSEWHERE, headers={"Authorization": f"Bearer {house.token}"}).json()
    assert set(page) == {"track", "task", "split", "train", "dev", "info", "budget", "submitted"}
    assert set(page["train"]) == {"texts", "labels"}
    assert page["task"]["name"] == CLASSES.name
    house.book.close()


def test_a_text_task_is_told_in_a_field_of_its_own(house: TextHouse) -> None:
    client, head = asked(house)
    page = msgspec.json.decode(client.get(WHERE, headers=head).content, type=CellPage)
    assert page.task is None
    assert page.text_task == TASK
    assert page.train.references == list(SHOTS[1].train.references)
    assert b"references" in client.get(WHERE, headers=head).content
    described = client.get("/openapi.json").json()
    assert {"ScoreBody", "GenerateBody", "Scored", "Written", "TextTask"} <= set(described["components"]["schemas"])


class Slow(FakeLanguageModel):
    """Writes for ever, with a checkpoint at each step."""

    def text_model(self) -> Any:
        """A model that never ends."""
        own = super().text_model()

        class Endless:
            encode, target_ids, score = own.encode, own.target_ids, own.score

            def generate(self, *_: Any) -> Any:
                while True:
                    checkpoint()

        return Endless()


def test_writing_without_end_is_given_up_and_costs_nothing(tmp_path: Path) -> None:
    house = TextHouse(tmp_path, lm=Slow(TASK), query_s=0.2)
    with served(house.app) as url, open_box(url, house) as box:
        with pytest.raises(QueryError, match=r"more than 0\.2 s, and nothing was charged"):
            box.generate(None, box.shots.train.texts)
        assert house.spent == 0
        box.score(None, box.shots.train.texts, TARGETS)
    assert house.spent == 3 * 4 + sum(TRAIN * [1])  # nine words and five tokens are four rows
    house.book.close()


def test_two_servers_on_one_book_charge_a_text_once(tmp_path: Path) -> None:
    """A charge that another server overtook is priced and written anew, from what is left then."""
    first = TextHouse(tmp_path, calls=2)
    second = Accounts(str(tmp_path / "service.db"))
    with served(first.app) as url, open_box(url, first) as box:
        token = second.token(first.token)
        assert token is not None
        account = second.account(token.name, first.handler.track, TASK.name, 1, 8)
        own, moved = first.book.charge, list[bool]()

        def overtaken(account_: Any, charge: Any) -> None:
            if not moved:
                moved.append(True)
                second.charge(account, replace(charge, key="of another server"))
            own(account_, charge)

        first.book.charge = overtaken  # type: ignore[method-assign]
        written = box.generate(None, box.shots.train.texts[:1], stop=(), most_tokens=30)
    assert moved
    assert len(first.ledger) == 2
    assert first.ledger == [5, 3]
    assert box.budget.rows_left == 0
    assert written.cut
    second.close()
    first.book.close()


def test_a_body_of_a_query_is_what_it_was() -> None:
    """Bodies are digested for retries; those of older clients stay the same."""
    body = QueryBody("train")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(body)).keys() == {
        "texts", "template", "words", "prompt", "mode", "space", "features", "normalize",
    }  # fmt: skip
