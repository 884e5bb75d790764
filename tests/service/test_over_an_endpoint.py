"""A service whose model is on a server: the same meter, levels and refusals, and the tokens that were exchanged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from endpoints import CALLS, SECRET, TRAIN, fake_server, save_track
from fastapi.testclient import TestClient
from small_service import served, until
from typer.testing import CliRunner

import harness
from harness.blackbox.checkpoints import without_checkpoints
from harness.cli import app as cli
from harness.contract import Answer, Subspace
from harness.errors import AnswerError, BudgetExhausted, InputError, QueryError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.lm.endpoint.requests import KEY
from harness.results.audit import audit
from harness.results.store import Store
from harness.service import serve
from harness.service.accounts import Accounts
from harness.service.serve import service_of, settle, track_id
from harness.service.spending import spending
from harness.solving.answers import to_bytes
from harness.tracks.tiers import ELSEWHERE
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fake_openai_server import FakeServer

    from harness.results.records import CellRecord

BUDGET = CALLS * TRAIN


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `endpoints.save_track`."""
    return save_track(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def server(track: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """See `endpoints.fake_server`."""
    monkeypatch.setenv(KEY, SECRET)
    with fake_server(track) as made:
        yield made


@pytest.fixture
def evaluation(track: Path, server: FakeServer, tmp_path: Path) -> Iterator[Evaluation]:
    """The track over the server."""
    store = Store(str(tmp_path / "results.db"))
    made = Evaluation(load_track(str(track)), Overrides(backend="openai", endpoint=server.url), store)
    yield made
    made.close()
    store.close()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(str(tmp_path / "service.db"))
    yield made
    made.close()


def the_record(evaluation: Evaluation) -> CellRecord:
    """The only stored cell."""
    (run,) = evaluation.store.runs()
    (cell,) = evaluation.store.cells(run.id)
    return cell.record


def test_a_solver_elsewhere_asks_a_model_that_is_on_a_server(
    evaluation: Evaluation, book: Accounts, server: FakeServer, tmp_path: Path
) -> None:
    token = book.new_token("alice")
    with served(service_of(evaluation, book, 1000, 1000)) as url:
        with harness.connect(url, token, task="sst2") as box:
            assert (box.info.layers, box.budget.rows_left) == (0, BUDGET)
            before = len(server.asked)
            with pytest.raises(QueryError, match="takes text and no soft prompts"):
                box.logits(Subspace(4, (1.0,), 2, seed=1).at(np.zeros((1, 4), dtype=np.float32)), box.shots.train.texts)
            with pytest.raises(QueryError, match="returns no hidden states"):
                box.outputs(None, box.shots.train.texts)
            assert (len(server.asked), box.budget.rows_left) == (before, BUDGET), "refused before anything is charged"

            logits = box.logits(None, box.shots.train.texts)
            cell = evaluation.cells[0]
            ours = evaluation.lm.outputs(None, box.shots.train.texts, cell.task.template, cell.task.words, "mask")
            np.testing.assert_array_equal(logits, ours.logits)
            box.logits(None, box.shots.train.texts, "no , {a} . It was{mask}")
            with pytest.raises(BudgetExhausted):
                box.logits(None, box.shots.train.texts + box.shots.dev.texts)
            assert box.budget.rows_left == BUDGET - 2 * TRAIN
            zero = Subspace(4, (1.0,), 2, seed=1).at(np.zeros((1, 4), dtype=np.float32))
            with pytest.raises(AnswerError, match="no soft prompts"):
                box.submit(Answer.of(box.task, zero))
            box.submit(Answer.of(box.task))
        until(lambda: not book.unscored(track_id(evaluation)), 60)

    (run,) = evaluation.store.runs()
    assert run.key.device == "endpoint llama.cpp b1, tiny-model, label log-probabilities"
    record = the_record(evaluation)
    assert (record.rows_spent, record.queries, record.level, record.sandbox) == (2 * TRAIN, 2, 0, ELSEWHERE)
    test = evaluation.store.cells(run.id)[0].labels
    assert record.billed is not None
    assert (record.billed.requests, record.billed.resent) == (2 * TRAIN + len(test), 0)
    assert record.billed.sent == record.tokens > 0
    assert (record.billed.received, record.billed.test_received) == (2 * TRAIN, len(test))
    assert audit(evaluation.store).findings == ()
    (spent,) = spending(book)
    assert (spent.sent, spent.received) == (record.billed.sent, record.billed.received)
    shown = CliRunner().invoke(cli, ["serve", "--book", str(tmp_path / "service.db"), "--usage", "--json"])
    assert json.loads(shown.output)["sent"] == spent.sent
    shown = CliRunner().invoke(cli, ["serve", "--book", str(tmp_path / "service.db"), "--usage"])
    assert "received" in shown.output
    assert not [file.name for file in tmp_path.iterdir() if SECRET.encode() in file.read_bytes()]


def test_a_retry_is_answered_from_the_book_and_asks_the_server_nothing(
    evaluation: Evaluation, book: Accounts, server: FakeServer
) -> None:
    headers = {"Authorization": f"Bearer {book.new_token('alice')}", "Idempotency-Key": "one"}
    with TestClient(service_of(evaluation, book, 1000, 1000)) as client:
        first = client.post("/v1/cells/sst2/1/query", json={"texts": "train"}, headers=headers)
        asked = len(server.asked)
        again = client.post("/v1/cells/sst2/1/query", json={"texts": "train"}, headers=headers)
    assert (first.status_code, again.content, len(server.asked)) == (200, first.content, asked)
    (spent,) = spending(book)
    assert (spent.rows_spent, spent.received) == (TRAIN, TRAIN)


def test_a_server_that_fails_charges_nothing_and_the_next_query_goes_on(
    evaluation: Evaluation, book: Accounts, server: FakeServer
) -> None:
    told: list[str] = []
    evaluation.tell(told.extend, patience_s=0.3)
    assert any("gives label log-probabilities" in line for line in told)
    headers = {"Authorization": f"Bearer {book.new_token('alice')}"}
    with TestClient(service_of(evaluation, book, 1000, 1000)) as client:

        def ask() -> Any:
            return client.post("/v1/cells/sst2/1/query", json={"texts": "train"}, headers=headers)

        server.before = lambda *_: (500, {"error": SECRET}, {})
        failed = ask()
        assert (failed.status_code, failed.headers["Retry-After"]) == (503, "1")
        assert "nothing was charged" in failed.json()["message"]
        assert SECRET not in failed.text
        server.before = lambda *_: None
        assert ask().status_code == 200
    (spent,) = spending(book)
    assert (spent.rows_spent, spent.queries, spent.received) == (TRAIN, 1, TRAIN)


def test_queries_in_the_midst_of_a_scoring_are_no_part_of_its_bill(evaluation: Evaluation, book: Accounts) -> None:
    """They share a thread, and the thread counts what it exchanges."""
    cell = evaluation.cells[0]
    for name in ("alice", "bob"):
        book.new_token(name)
        book.account(name, track_id(evaluation), cell.task.name, cell.split, BUDGET)
    account = book.account("alice", track_id(evaluation), cell.task.name, cell.split, BUDGET)
    book.submit(account, to_bytes(Answer.of(cell.task)))
    app = service_of(evaluation, book, 1000, 1000)
    handler = app.state.service.handler
    place, texts = handler.places[cell.task.name, cell.split], '{"texts": "train"}'
    (bob,) = [token for token in book.tokens() if token.name == "bob"]
    left = [1, 1]

    def others() -> None:
        from harness.service import messages

        if left:
            left.pop()
            asked = messages.decode(texts.encode(), messages.JSON, messages.QueryBody)
            with without_checkpoints():  # as `Line.let_through` does it
                handler.query(bob, place, asked, texts.encode(), None)

    assert settle(evaluation, book, set(), others)
    billed = the_record(evaluation).billed
    assert billed is None, "alice asked no query, so there is nothing that her tuning exchanged"
    assert not left
    (_, spent) = spending(book)
    assert (spent.token, spent.received) == ("bob", 2 * TRAIN)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--endpoint", "http://127.0.0.1:1"), "--endpoint names a server, and the model is computed here"),
        (("--backend", "openai"), "name it with --endpoint"),
        (("--backend", "openai", "--endpoint", "http://127.0.0.1:1", "--device", "cuda"), "--device"),
    ],
)
def test_choices_that_do_not_go_together_are_refused_at_once(
    track: Path, tmp_path: Path, more: tuple[str, ...], why: str
) -> None:
    given = ["serve", "--track", str(track), "--book", str(tmp_path / "b.db"), "--store", str(tmp_path / "r.db")]
    shown = CliRunner().invoke(cli, [*given, *more])
    assert shown.exit_code != 0
    assert why in " ".join(str(shown.exception or shown.output).split())
    assert isinstance(shown.exception, InputError | SystemExit)


def test_the_command_serves_what_is_on_a_server_and_says_what_it_gives(
    track: Path, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(serve, "run", lambda app, *_: made.append(app._make()))
    given = ["serve", "--track", str(track), "--backend", "openai", "--endpoint", server.url, "--concurrency", "2"]
    shown = CliRunner().invoke(cli, [*given, "--book", str(tmp_path / "b.db"), "--store", str(tmp_path / "r.db")])
    assert shown.exit_code == 0, shown.output
    assert "endpoint: gives label log-probabilities" in shown.output
    assert "tiny-model is loaded" in shown.output
    assert SECRET not in shown.output
    assert len(made) == 1
