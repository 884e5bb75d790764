"""Answers one query of one token: new or retried, priced, refused or forwarded, in the book before the reply is out.

What a query may ask and what it costs is `harness.lm.broker`'s, the very code that serves workers: each query has a
broker of its own, whose meter starts at what the book says was spent. Serial: the caller gives it one thread.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from harness.contract import Budget
from harness.errors import HarnessError
from harness.lm import wire
from harness.lm.broker import Broker
from harness.meter import Meter
from harness.service.book import Charge, Moved
from harness.service.messages import CellName, CellPage, Fault, Forward, Labelled, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.contract import Examples, ModelInfo, Shots, Task, Text
    from harness.records import LedgerRow
    from harness.service.book import Account, Book, Token
    from harness.service.messages import FaultCode

T = TypeVar("T")
_READY = wire.Ready({})
_ATTEMPTS = 100
"""Each that fails is a query of the same account that another server answered meanwhile."""


class Refusal(HarnessError):  # noqa: N818 - reads as the fact it states
    """A request that gets a `Fault` instead of an answer. Nothing was charged for it."""

    def __init__(self, code: FaultCode, message: str, **numbers: int) -> None:
        """Keep the fault; the message is its message."""
        super().__init__(message)
        self.fault = Fault(code, message, **numbers)


@dataclass(frozen=True)
class Place:
    """A cell on offer: a task on a few-shot split, without its test set."""

    task: Task
    split: int
    shots: Shots
    info: ModelInfo
    calls: int
    """The track's budget; a token may have another."""


@dataclass(frozen=True)
class Limits:
    """What one request may weigh, and how often one token may ask."""

    answer_bytes: int = 64 << 20
    frame_bytes: int = 64 << 20
    """Most bytes of a query's body, and of its reply."""
    read_s: float = 30.0
    """A body that has not come by then is not waited for."""
    per_s: float = 50.0
    burst: int = 100
    at_once: int = 8
    """Requests of one token that are worked on at the same time."""


@dataclass(frozen=True)
class Answer:
    """A query's reply as msgpack."""

    reply: bytes
    row: LedgerRow | None
    """What was charged; None for a retry."""


class _Held:
    """A ledger that holds the row until it can be committed together with the reply."""

    row: LedgerRow

    def record(self, row: LedgerRow) -> None:
        """Hold it."""
        self.row = row


class Desk:
    """All cells of a track on one model and one book."""

    def __init__(
        self, lm: Any, track: str, places: Mapping[tuple[str, int], Place], book: Book, limits: Limits
    ) -> None:
        """Serve `places` by (task, split); `track` is name and fingerprint."""
        self.track, self.places, self.book, self.limits = track, places, book, limits
        self._lm = lm

    def account(self, token: Token, place: Place) -> Account:
        """What the token has spent here."""
        rows = (token.calls or place.calls) * len(place.shots.train)
        return self.book.account(token.name, self.track, place.task.name, place.split, rows)

    def names(self, token: Token) -> list[CellName]:
        """The cells on offer."""
        found = [(place, self.account(token, place)) for place in self.places.values()]
        return [CellName(p.task.name, p.split, _budget(a, p), a.submitted is not None) for p, a in found]

    def page(self, token: Token, place: Place) -> CellPage:
        """What a solver is told of a cell."""
        account = self.account(token, place)
        train, dev = _labelled(place.shots.train), _labelled(place.shots.dev)
        budget, closed = _budget(account, place), account.submitted is not None
        name = self.track.partition(" ")[0]
        return CellPage(name, place.task, place.split, train, dev, place.info, budget, closed)

    def word_ids(self, place: Place, words: tuple[str, ...]) -> wire.WordIds:
        """Token ids, free.

        Raises:
            Refusal: the words are malformed.
        """
        reply, _ = self._broker(place, Meter(1, 1), _Held()).reply(wire.Words(words), b"")
        if not isinstance(reply, wire.WordIds):
            raise _refusal(reply)
        return reply

    def vocabulary(self) -> wire.WordList:
        """Every label word there is, free."""
        return wire.WordList(self._lm.words)

    def query(self, token: Token, place: Place, asked: Forward, body: bytes, key: str | None) -> Answer:
        """Answer a query that came as `body`; under the idempotency key of one that was answered, give its reply again.

        Raises:
            Refusal: over budget, malformed, the cell closed, or the key used for something else.
            ModelError: the model failed; nothing was charged.
            StoreError: the book cannot be written; nothing was charged.
        """
        return self._unless_moved(lambda: self._query(token, place, asked, body, key))

    def _query(self, token: Token, place: Place, asked: Forward, body: bytes, key: str | None) -> Answer:
        account = self.account(token, place)
        digest = hashlib.sha256(msgspec.msgpack.encode(asked)).hexdigest()  # the same in JSON and msgpack
        known = None if key is None else self.book.answered(account.number, key)
        if known is not None:
            if known.request != digest:
                raise Refusal("key_reused", f"idempotency key {key!r} was used for another query; take a new key")
            if known.reply is None:
                raise Refusal("reply_gone", f"query {key!r} was charged and answered; its reply is no longer kept")
            return Answer(known.reply, None)
        if account.submitted is not None:
            raise Refusal("closed", f"an answer was handed in for {account.task}/{account.split}; its budget is closed")
        held = _Held()
        broker = self._broker(place, _meter(account, place), held)
        reply = msgspec.msgpack.encode(self._forwarded(broker, place, asked, body))
        nominal = broker.service.usage.nominal_up, broker.service.usage.nominal_down
        self.book.charge(account, Charge(key or secrets.token_hex(16), digest, reply, held.row, *nominal))
        return Answer(reply, held.row)

    def _forwarded(self, broker: Broker, place: Place, asked: Forward, body: bytes) -> wire.Result:
        """Declare what the query names, then ask."""
        texts = self._texts(place, asked)
        _taken(broker.reply(wire.Declare(0, texts=list(texts)), b"")[0])
        if asked.space is not None:
            _taken(broker.reply(wire.Declare(0, space=asked.space), b"")[0])
        query = wire.Query(
            0,
            place.task.template if asked.template is None else asked.template,
            place.task.words if asked.words is None else asked.words,
            asked.prompt,
            asked.mode,
            None if asked.space is None else 0,
            asked.features,
            asked.normalize,
        )
        reply, _ = broker.reply(query, body)
        if not isinstance(reply, wire.Result):
            raise _refusal(reply)
        return reply

    def submit(self, token: Token, place: Place, blob: bytes) -> Receipt:
        """Take an answer and close the cell; the same answer again gets the same receipt.

        Raises:
            Refusal: the answer does not fit, or another one was handed in.
        """
        return self._unless_moved(lambda: self._submit(token, place, blob))

    def _submit(self, token: Token, place: Place, blob: bytes) -> Receipt:
        account = self.account(token, place)
        receipt = Receipt(hashlib.sha256(blob).hexdigest(), account.rows_spent)
        if account.submitted is not None:
            if self.book.submitted(account.number) == blob:
                return receipt
            raise Refusal(
                "closed", f"another answer for {account.task}/{account.split} was handed in before; it stands"
            )
        _taken(self._broker(place, _meter(account, place), _Held()).reply(wire.Offer(blob), blob)[0])
        self.book.submit(account, blob)
        return receipt

    def _broker(self, place: Place, meter: Meter, ledger: _Held) -> Broker:
        limits = self.limits
        broker = Broker(
            self._lm, place.task, meter, ledger, limits.answer_bytes, limits.frame_bytes, lambda _rows, _note: None
        )
        broker.reply(_READY, b"")
        return broker

    @staticmethod
    def _texts(place: Place, asked: Forward) -> tuple[Text, ...]:
        named = {"train": place.shots.train.texts, "dev": place.shots.dev.texts}
        return named[asked.texts] if isinstance(asked.texts, str) else tuple(asked.texts)

    @staticmethod
    def _unless_moved(work: Callable[[], T]) -> T:
        """Try again where another server on the same book was faster."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                return work()
            except Moved:
                if not left:
                    raise
        raise AssertionError


def _meter(account: Account, place: Place) -> Meter:
    """A meter that starts at what was spent."""
    train_rows = len(place.shots.train)
    meter = Meter(account.rows_total // train_rows, train_rows)
    if account.rows_spent:
        meter.charge(1, account.rows_spent)
    return meter


def _budget(account: Account, place: Place) -> Budget:
    return Budget(account.rows_total, account.rows_total - account.rows_spent, len(place.shots.train))


def _labelled(examples: Examples) -> Labelled:
    return Labelled(list(examples.texts), examples.labels.tolist())


def _taken(reply: wire.Reply) -> None:
    if not isinstance(reply, wire.Done):
        raise _refusal(reply)


def _refusal(reply: wire.Reply) -> Refusal:
    if isinstance(reply, wire.Refused):
        numbers = {"rows_asked": reply.rows_asked, "rows_left": reply.rows_left, "rows_total": reply.rows_total}
        return Refusal("budget_exhausted", f"{reply.rows_asked:,} rows asked, {reply.rows_left:,} left", **numbers)
    message = reply.message if isinstance(reply, wire.Rejected) else f"unexpected {type(reply).__name__}"
    return Refusal("rejected", message)
