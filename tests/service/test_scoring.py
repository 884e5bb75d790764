"""An answer that is dear to score: refused at its price, or scored in slices that keep nobody waiting, and once."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from small_service import served, until

import harness
from harness.blackbox.checkpoints import checkpoint
from harness.contract import Answer, Member
from harness.errors import HarnessError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.audit import audit
from harness.results.store import Store
from harness.service.accounts import Accounts
from harness.service.line import Closing
from harness.service.serve import service_of, settle, track_id
from harness.solving.answers import to_bytes
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.contract import Task


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(str(tmp_path / "service.db"))
    yield made
    made.close()


@pytest.fixture
def evaluation(tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evaluation]:
    """On a model of which each chunk, of one text or two, takes 20 ms; answers have 2 s."""
    store, track = Store(str(tmp_path / "results.db")), load_track(str(tiny_track))
    track = msgspec.structs.replace(track, limits=msgspec.structs.replace(track.limits, test_s=2, test_tokens=4000))
    made = Evaluation(track, Overrides(), store)
    hidden = made.lm.backbone.hidden

    def slow(batch: Any) -> Any:
        time.sleep(0.02)
        return hidden(batch)

    monkeypatch.setattr(made.lm.backbone, "hidden", slow)
    monkeypatch.setattr(made.lm, "chunk_tokens", 64)
    yield made
    store.close()


def dear(task: Task, members: int = 30) -> Answer:
    """Two thousand tokens a text: 200 texts x 30 members x 20 ms are two minutes."""
    return Answer((Member("word " * 60 + task.template, task.words),) * members)


def hand_in(evaluation: Evaluation, book: Accounts, answer: Answer, name: str = "mallory") -> int:
    cell = evaluation.cells[0]
    book.new_token(name)
    account = book.account(name, track_id(evaluation), cell.task.name, cell.split, 80)
    book.submit(account, to_bytes(answer))
    return account.number


def stored(evaluation: Evaluation) -> list[tuple[str, str]]:
    return [(run.key.entry, cell.status) for run in evaluation.store.runs() for cell in evaluation.store.cells(run.id)]


def test_an_answer_above_the_track_s_price_is_refused_when_it_is_handed_in(
    evaluation: Evaluation, book: Accounts
) -> None:
    token = book.new_token("mallory")
    with served(service_of(evaluation, book, 1000, 1000)) as url:
        with harness.connect(url, token, task="sst2", split=1) as box:
            with pytest.raises(HarnessError, match="tokens for each test text; 4,000 are allowed on this track"):
                box.submit(dear(box.task, 64))
            box.submit(Answer.of(box.task))
        until(lambda: not book.unscored(track_id(evaluation)))
    assert [entry for entry, _ in stored(evaluation)] == ["mallory@service"]


def test_nobody_waits_while_a_dear_answer_is_scored_and_it_ends_as_what_it_is(
    evaluation: Evaluation, book: Accounts
) -> None:
    """A chunk is 20 ms; without slices a query would wait for the 2 s that the answer is given."""
    token = book.new_token("alice")
    hand_in(evaluation, book, dear(evaluation.cells[0].task))
    with (
        served(service_of(evaluation, book, 1000, 1000)) as url,
        harness.connect(url, token, task="sst2", split=2) as box,
    ):
        waits = []
        while book.unscored(track_id(evaluation)):
            before = time.monotonic()
            box.logits(None, box.shots.train.texts[:1])
            waits.append(time.monotonic() - before)
            time.sleep(0.1)
    assert len(waits) > 5
    assert statistics.median(waits) < 1.0
    assert stored(evaluation) == [("mallory@service", "too_costly")]
    assert audit(evaluation.store).findings == ()
    assert not settle(evaluation, book, set()), "it is not scored again"


def test_a_server_that_ends_leaves_the_answer_for_the_next_start_but_not_for_ever(
    evaluation: Evaluation, book: Accounts
) -> None:
    hand_in(evaluation, book, dear(evaluation.cells[0].task))

    def closing() -> None:
        raise Closing

    for _ in range(5):
        with pytest.raises(Closing):
            settle(evaluation, book, set(), closing)
        assert len(book.unscored(track_id(evaluation))) == 1
    before = time.monotonic()
    assert settle(evaluation, book, set())
    assert time.monotonic() - before < 20, "it is not begun a sixth time"
    assert stored(evaluation) == [("mallory@service", "too_costly")]
    (run,) = evaluation.store.runs()
    assert "began to score this answer 5 times" in evaluation.store.cells(run.id)[0].record.detail
    assert book.unscored(track_id(evaluation)) == []


def test_the_server_ends_in_the_midst_of_scoring(evaluation: Evaluation, book: Accounts) -> None:
    hand_in(evaluation, book, dear(evaluation.cells[0].task))
    with served(service_of(evaluation, book, 1000, 1000)):
        until(lambda: bool(evaluation.store.runs()) and bool(evaluation.store.attempts(evaluation.store.runs()[0].id)))
        before = time.monotonic()
    assert time.monotonic() - before < 20
    assert len(book.unscored(track_id(evaluation))) == 1
    checkpoint()  # nothing is left behind in this thread
