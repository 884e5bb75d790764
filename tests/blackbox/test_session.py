"""A worker's session over a raw socket: price, order of ledger and reply, and what a hostile worker may try."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.blackbox import framing, limits, projection, session, wire
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session, Tuning
from harness.contract import Answer, Subspace, Task
from harness.errors import ProtocolError, StoreError
from harness.lm import text as lm_text
from harness.solving.answers import to_bytes
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lm.model import LanguageModel
    from harness.results.records import LedgerRow

CALLS, TRAIN = 5, 4
TEXTS = [(f"film number {n}",) for n in range(TRAIN)]
LARGEST = 1 << 20


class Accounts:
    """A ledger in memory."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.rows: list[LedgerRow] = []
        self.fail_at = fail_at

    def record(self, row: LedgerRow) -> None:
        """Keep the row, or fail as a full disk does."""
        if self.fail_at == len(self.rows):
            raise StoreError("disk full")
        self.rows.append(row)


@dataclass
class Line:
    """A served session and the worker's end of its socket."""

    sock: socket.socket
    thread: threading.Thread
    session: Session
    book: Accounts
    raised: list[StoreError]

    def send(self, *frames: wire.Request | bytes) -> None:
        """Send frames, or raw bytes, at once."""
        self.sock.sendall(b"".join(f if isinstance(f, bytes) else wire.encode(f) for f in frames))

    def take(self) -> wire.Reply:
        """Read one reply."""
        body = framing.receive(self.sock, 1 << 30)
        assert body is not None
        return wire.decode_reply(body)

    def ask(self, frame: wire.Request) -> wire.Reply:
        """Send one frame and read its reply."""
        self.send(frame)
        return self.take()

    def end(self) -> Tuning:
        """Close the socket and wait for the session."""
        self.sock.close()
        return self.wait()

    def wait(self) -> Tuning:
        """Wait for the session."""
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.session.tuning


@pytest.fixture
def task() -> Task:
    return load_task("sst2").task("harness-2026", "masked")


@pytest.fixture
def connect(tiny_lm: LanguageModel, task: Task) -> Iterator[Any]:
    ends = []

    def open_line(wall_s: float = 30, ready: bool = True, book: Accounts | None = None) -> Line:
        ours, theirs = socket.socketpair()
        theirs.settimeout(30)
        kept = book or Accounts()
        made = Session(PricedModel(tiny_lm, task, LARGEST, LARGEST), Meter(CALLS, TRAIN), kept)
        raised: list[StoreError] = []

        def serve() -> None:
            try:
                made.serve(ours, time.monotonic() + wall_s)
            except StoreError as problem:
                raised.append(problem)
            finally:
                ours.close()

        thread = threading.Thread(target=serve)
        thread.start()
        line = Line(theirs, thread, made, kept, raised)
        ends.append(line)
        if ready:
            assert isinstance(line.ask(wire.Ready({})), wire.Done)
            assert isinstance(line.ask(wire.Declare(0, texts=TEXTS)), wire.Done)
        return line

    yield open_line
    for line in ends:
        line.end()


def query(task: Task, **changes: Any) -> wire.QueryFrame:
    return wire.QueryFrame(**{"texts": 0, "template": task.template, "words": task.words, **changes})


def test_pipelined_queries_are_charged_one_by_one_and_never_beyond_the_budget(connect: Any, task: Task) -> None:
    line = connect()
    line.send(*[query(task)] * 50)
    replies = [line.take() for _ in range(50)]
    assert [type(r) for r in replies] == [wire.Result] * CALLS + [wire.Refused] * (50 - CALLS)
    assert [r.rows_left for r in replies] == [16, 12, 8, 4, 0] + [0] * 45
    tuning = line.end()
    assert (tuning.usage.queries, tuning.refused) == (CALLS, 45)
    assert sum(row.rows for row in line.book.rows) == CALLS * TRAIN


def test_a_query_that_only_fits_in_part_is_refused_whole(connect: Any, task: Task) -> None:
    line = connect()
    line.ask(wire.Declare(1, texts=TEXTS * 3))
    line.ask(query(task, texts=1))
    refused = line.ask(query(task, texts=1))
    assert refused == wire.Refused(12, 8, 20)
    assert line.ask(query(task)).rows_left == 4
    assert [row.rows for row in line.book.rows] == [12, 4]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 40, -1])
def test_closing_in_the_middle_of_a_frame_is_a_protocol_error_and_charges_nothing(
    connect: Any, task: Task, cut: int
) -> None:
    line = connect()
    line.ask(query(task))
    line.send(wire.encode(query(task))[:cut])
    tuning = line.end()
    assert tuning.end == "protocol"
    assert len(line.book.rows) == 1


def test_hanging_up_between_frames_is_an_end(connect: Any) -> None:
    assert connect().end().end == "closed"


def test_hanging_up_with_answered_queries_unread_still_counts_them(connect: Any, task: Task) -> None:
    line = connect()
    line.send(query(task), query(task))
    while len(line.book.rows) < 2:
        time.sleep(0.01)
    tuning = line.end()
    assert tuning.usage.queries == 2
    assert tuning.end == "closed"


def test_the_ledger_is_written_before_the_reply_is_sent(connect: Any, task: Task) -> None:
    line = connect(book=Accounts(fail_at=1))
    assert isinstance(line.ask(query(task)), wire.Result)
    line.send(query(task))
    assert framing.receive(line.sock, 1 << 20) is None
    line.wait()
    assert [type(problem) for problem in line.raised] == [StoreError]
    assert len(line.book.rows) == 1


def test_refused_and_malformed_queries_leave_no_row(connect: Any, task: Task) -> None:
    line = connect()
    line.ask(wire.Declare(1, texts=TEXTS * 30))
    assert isinstance(line.ask(query(task, texts=1)), wire.Refused)
    assert isinstance(line.ask(query(task, texts=9)), wire.Rejected)
    assert isinstance(line.ask(query(task, words=("bad", "x" * 300))), wire.Rejected)
    assert isinstance(line.ask(query(task, template="nothing")), wire.Rejected)
    assert isinstance(line.ask(query(task, space=0, prompt=wire.Array((1, 1, 1), b"abcd"))), wire.Rejected)
    tuning = line.end()
    assert line.book.rows == []
    assert (tuning.refused, tuning.rejected, tuning.usage.queries) == (1, 4, 0)


def test_a_ledger_row_tells_bytes_tokens_level_and_digest(connect: Any, task: Task) -> None:
    import hashlib

    line = connect()
    frame = wire.encode(query(task, prompt=wire.Array.of(np.zeros((2, 1, 2, 16))), features="mask"))
    line.send(frame)
    body = framing.receive(line.sock, 1 << 20)
    assert body is not None
    line.end()
    (row,) = line.book.rows
    assert (row.rows, row.bytes_up, row.bytes_down, row.level) == (8, len(frame) - 4, len(body) + 4, 3)
    assert row.tokens % 2 == 0
    reply = wire.PREFIX and len(body).to_bytes(4, "little") + body
    assert row.sha256 == hashlib.sha256(frame[4:] + reply).hexdigest()


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, 0),
        ({"prompt": wire.Array.of(np.zeros((1, 1, 1, 16)))}, 1),
        ({"prompt": wire.Array.of(np.zeros((1, 2, 1, 16)))}, 2),
        ({"features": "cls"}, 3),
    ],
)
def test_the_access_level_is_recorded(connect: Any, task: Task, changes: dict[str, Any], level: int) -> None:
    line = connect()
    assert isinstance(line.ask(query(task, **changes)), wire.Result)
    assert line.end().usage.level == level


def test_nothing_is_served_before_the_submission_is_ready(connect: Any, task: Task) -> None:
    line = connect(ready=False)
    line.send(wire.Declare(0, texts=TEXTS), query(task))
    tuning = line.wait()
    assert tuning.end == "protocol"
    assert line.book.rows == []


@pytest.mark.parametrize("config", [{"a": b"bytes"}, {"a": float("nan")}, {"a": "x" * 100_000}])
def test_a_configuration_must_be_plain_data_and_small(connect: Any, config: dict[str, Any]) -> None:
    line = connect(ready=False)
    line.send(wire.Ready(config))
    assert line.wait().end == "protocol"


def test_ready_comes_once(connect: Any) -> None:
    line = connect()
    line.send(wire.Ready({"another": 1}))
    tuning = line.wait()
    assert tuning.end == "protocol"
    assert tuning.config == {}


def test_frames_after_the_last_one_are_not_read(connect: Any, task: Task) -> None:
    line = connect()
    line.send(wire.Finished("returned"), query(task), b"garbage")
    tuning = line.wait()
    assert tuning.end == "returned"
    assert line.book.rows == []


def test_a_worker_that_never_reads_its_replies_runs_out_of_time(connect: Any, task: Task) -> None:
    line = connect(wall_s=1.5)
    line.sock.settimeout(0.2)
    started = time.monotonic()
    frame = wire.encode(wire.Words(("film",) * 4000))
    with pytest.raises(OSError, match=r"timed out|reset|pipe"):  # noqa: PT012
        for _ in itertools.count():
            line.sock.sendall(frame)
    tuning = line.wait()
    assert tuning.end == "timeout"
    assert time.monotonic() - started < 20


def test_a_worker_that_sends_nothing_runs_out_of_time(connect: Any) -> None:
    line = connect(wall_s=0.5)
    assert line.wait().end == "timeout"


def test_a_thousand_malformed_requests_are_enough(connect: Any, task: Task) -> None:
    line = connect()
    for _ in range(1000):
        assert isinstance(line.ask(query(task, texts=7)), wire.Rejected)
    line.send(query(task, texts=7))
    assert line.wait().end == "protocol"


def test_refusals_end_by_the_budget_at_last(connect: Any, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MOST_REFUSED", 20)
    line = connect()
    line.ask(wire.Declare(1, texts=TEXTS * 30))
    for _ in range(21):
        line.ask(query(task, texts=1))
    tuning = line.wait()
    assert tuning.end == "budget"


def test_a_query_that_does_not_fit_is_refused_before_its_texts_are_read(connect: Any, task: Task) -> None:
    line = connect()
    line.ask(wire.Declare(1, texts=[("word " * 4000,)] * 40))
    started = time.monotonic()
    for n in range(200):
        assert isinstance(line.ask(query(task, texts=1, template=f"{{a}} {n} {{mask}}")), wire.Refused)
    assert time.monotonic() - started < 20


def test_4096_declarations_are_enough(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MOST_DECLARED", 30)
    line = connect()
    space = Subspace(4, (1.0,), 2, 0)
    replies = [line.ask(wire.Declare(n, space=space)) for n in range(29)]
    assert {type(reply) for reply in replies} == {wire.Done}
    assert "reuse" in line.ask(wire.Declare(29, space=space)).message
    assert isinstance(line.ask(wire.Declare(5, texts=TEXTS)), wire.Rejected)


def test_all_declared_texts_together_are_bounded(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CHARACTERS", 20_000)
    line = connect()
    assert isinstance(line.ask(wire.Declare(1, texts=[("x" * 10_000,)])), wire.Done)
    assert isinstance(line.ask(wire.Declare(2, texts=[("x" * 10_000,)])), wire.Rejected)
    assert isinstance(line.ask(wire.Declare(3, texts=[("",)] * 400)), wire.Rejected)


def test_a_text_that_is_too_long_is_cut_and_answered(connect: Any, task: Task) -> None:
    """A training text of 20,001 characters once made every submission that queried it crash."""
    line, long = connect(), "w1 " * 6_667  # 20,001 characters
    for n, text in enumerate((long, long[:20_000])):
        assert isinstance(line.ask(wire.Declare(n, texts=[(text,)])), wire.Done)
    whole, cut = (line.ask(query(task, texts=n)) for n in range(2))
    assert isinstance(whole, wire.Result)
    assert whole.logits == cut.logits


@pytest.mark.parametrize(
    "request_",
    [
        wire.Declare(1),
        wire.Declare(1, texts=TEXTS, space=Subspace(4, (1.0,), 2, 0)),
        wire.Declare(1, texts=[("two", "fields")]),
        wire.Declare(1, space=Subspace(2**31, (1.0,), 2, 0)),
        wire.Declare(1, space=Subspace(4, (float("nan"),), 2, 0)),
        wire.Declare(1, space=Subspace(4, (1.0,) * 9, 2, 0)),
        wire.Words(()),
        wire.Words(("x" * 300,)),
        wire.Offer(b""),
        wire.Offer(b"x" * 1000),
    ],
)
def test_malformed_requests_are_rejected_with_a_message(connect: Any, request_: wire.Request) -> None:
    line = connect()
    reply = line.ask(request_)
    assert isinstance(reply, wire.Rejected)
    assert reply.message


@pytest.mark.parametrize(
    "body",
    [
        {"type": "Declare", "id": 2**40, "texts": []},
        {"type": "Declare", "id": -1, "texts": []},
        {"type": "Declare", "id": 1, "texts": [[1]]},
        {"type": "Declare", "id": 1, "texts": [[None]]},
        {"type": "Query", "texts": 0, "template": "t", "words": [b"bad"]},
        {"type": "Query", "texts": 0, "template": "t", "words": [""] * (2**18 + 1)},
        {"type": "Job"},
        {"type": "Result"},
        {"type": "Finished", "reason": "won"},
        [],
        7,
    ],
)
def test_frames_of_another_shape_are_off_the_protocol(connect: Any, body: Any) -> None:
    import msgspec

    line = connect()
    raw = msgspec.msgpack.encode(body)
    line.send(len(raw).to_bytes(4, "little") + raw)
    assert line.wait().end == "protocol"


def test_states_of_all_tokens_come_with_their_number(connect: Any, task: Task) -> None:
    """The longest text has 5 words. With start, end and template, every row has that many states, padded with zeros."""
    line = connect()
    reply = line.ask(query(task, features="all"))
    assert isinstance(reply, wire.Result)
    assert reply.features is not None
    assert reply.lengths is not None
    states = reply.features.values(4)
    assert states.shape[:3] == (1, TRAIN, max(reply.lengths))
    for row, length in zip(states[0], reply.lengths, strict=True):
        assert np.abs(row[:length]).min(axis=1).any()
        assert not row[length:].any()


def test_the_vocabulary_can_be_asked_for_word_by_word(connect: Any, task: Task, tiny_lm: LanguageModel) -> None:
    line = connect()
    listed = line.ask(wire.Vocabulary())
    assert isinstance(listed, wire.WordList)
    assert len(listed.words) == tiny_lm.vocabulary
    words = [word for word in listed.words if word]
    reply = line.ask(query(task, words=tuple(words), normalize=True))
    assert isinstance(reply, wire.Result)
    assert np.exp(reply.logits.values(3)).sum(axis=-1).max() <= 1 + 1e-5


def test_the_history_of_offers_is_kept_and_bounded(connect: Any, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MOST_HISTORY", 2)
    line = connect()
    for n in range(3):
        line.ask(wire.Offer(to_bytes(Answer.of(task, dev=0.5 + n / 10, other=1.0))))
        line.ask(query(task))
    assert line.end().history == [(0, {"dev": 0.5}), (TRAIN, {"dev": 0.6})]


def test_the_last_offer_stands_and_a_refused_one_changes_nothing(connect: Any, task: Task) -> None:
    line = connect()
    first = to_bytes(Answer.of(task, loss=1.0))
    assert isinstance(line.ask(wire.Offer(first)), wire.Done)
    assert isinstance(line.ask(wire.Offer(b"nonsense")), wire.Rejected)
    tuning = line.end()
    assert tuning.last is not None
    assert tuning.last.blob == first


def test_offers_are_kept_per_mark_by_rows_spent(connect: Any, task: Task) -> None:
    line = connect()
    for n in range(CALLS):
        line.ask(wire.Offer(to_bytes(Answer.of(task, loss=float(n)))))
        line.ask(query(task))
    tuning = line.end()
    assert {mark: kept.rows for mark, kept in tuning.incumbents.items()} == {
        1 / 256: 0, 1 / 64: 0, 1 / 16: 0, 1 / 8: 0, 1 / 4: 4, 1 / 2: 8, 1.0: 16,
    }  # fmt: skip


def test_a_reply_that_no_frame_could_hold_is_refused_before_the_work() -> None:
    from harness.blackbox.query import Query
    from harness.contract import Prompt
    from harness.errors import QueryError

    text = ("a film",)
    with pytest.raises(QueryError, match="fewer rows"):
        limits.check_size(Query((text,) * 10**5), 4096, 16, 64, LARGEST)
    with pytest.raises(QueryError, match="409,600 bytes"):  # as if every text were as long as can be
        limits.check_size(Query((text,) * 100, features="all"), 0, 16, 64, 1 << 18)
    wide = Prompt(np.zeros((2000, 24, 50, 1), dtype=np.float32))
    with pytest.raises(QueryError, match="fewer candidates"):
        limits.check_size(Query((text,), prompts=wide), 2, 1024, 64, LARGEST)


def test_deep_nesting_in_a_configuration_is_off_the_protocol() -> None:
    nested: Any = 0
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ProtocolError, match="plain"):
        limits.check_config({"a": nested})


def test_texts_words_and_projections_are_prepared_once_however_many_queries_need_them(
    connect: Any, tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, int] = {}

    def counted(name: str, function: Any) -> Any:
        def count(*given: Any) -> Any:
            made[name] = made.get(name, 0) + 1
            return function(*given)

        return count

    monkeypatch.setattr("harness.lm.text.encode", counted("texts", lm_text.encode))
    monkeypatch.setattr("harness.blackbox.projection.generate", counted("projections", projection.generate))
    monkeypatch.setattr(tiny_lm._tokens, "single_ids", counted("words", tiny_lm._tokens.single_ids))
    line = connect()
    space = Subspace(3, (1.0, 1.0), 2, seed=77)
    assert isinstance(line.ask(wire.Declare(0, space=space)), wire.Done)
    for n in range(CALLS):
        z = wire.Array.of(np.full((1, 2, 3), 0.1 * n, dtype=np.float32))
        query = wire.QueryFrame(0, "{a} , once . {mask} .", (" bad", " great", " film"), z, space=0)
        assert isinstance(line.ask(query), wire.Result)
    assert made == {"texts": TRAIN, "projections": 2, "words": 1}
