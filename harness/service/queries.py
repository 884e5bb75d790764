"""Answers one query of one token. A new query is priced, refused or computed, and committed before the reply.

`harness.blackbox.pricing` decides what a query may ask and what it costs, as it does for workers. The meter starts at
the stored number of spent rows. The code is serial: the caller runs it in one thread.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from harness.blackbox import wire
from harness.blackbox.cells import served
from harness.blackbox.checkpoints import Deadline, at_checkpoints
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.contract import Budget, TextTask
from harness.errors import BudgetExhausted, HarnessError, QueryError
from harness.evaluation.billing import between
from harness.service.accounts import Charge, Moved
from harness.service.gate import Gate
from harness.service.messages import CellName, CellPage, Fault, Labelled, Mine, MyPage, QueryBody, Receipt
from harness.service.seen import read
from harness.service.spending import spending
from harness.tracks.defences import Defences
from harness.tracks.limits import AnswerLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.blackbox.answered import Answered
    from harness.blackbox.text_pricing import TextPricing
    from harness.contract import Examples, ModelInfo, Shots, Task
    from harness.lm.endpoint.requests import Traffic
    from harness.results.records import LedgerRow
    from harness.service.accounts import Account, Accounts
    from harness.service.messages import FaultCode
    from harness.service.text_messages import TextBody
    from harness.service.tokens import Token

T = TypeVar("T")
_ATTEMPTS = 100
"""Number of tries. A try fails only if another server has answered a query of the same account meanwhile."""


class Refusal(HarnessError):  # noqa: N818 - reads as the fact it states
    """A request that gets a `Fault` in place of an answer. Nothing was charged for it."""

    def __init__(self, code: FaultCode, message: str, **numbers: int) -> None:
        """Store the fault. Its message is the exception's message."""
        super().__init__(message)
        self.fault = Fault(code, message, **numbers)


@dataclass(frozen=True)
class Place:
    """A cell on offer: a task on a few-shot split, without its test set."""

    task: Task | TextTask
    split: int
    shots: Shots
    info: ModelInfo
    calls: int
    """The track's budget; a token may have another."""
    row_tokens: int | None = None
    """Tokens of text in one row, as in `PricedModel`."""
    defences: Defences = Defences()  # noqa: RUF009 - a frozen value
    """What is kept back, as in `PricedModel`."""
    text: TextPricing | None = None
    """What a text task needs beside, as in `PricedModel`."""


@dataclass(frozen=True)
class Limits:
    """Limits on the size of a request, and on how often one token may ask."""

    answer_bytes: int = 64 << 20
    frame_bytes: int = 64 << 20
    """Most bytes of a query's body, and of its reply."""
    answers: AnswerLimits = AnswerLimits(math.inf)  # noqa: RUF009 - a frozen value
    """What an answer may cost when it is scored."""
    query_s: float = 600.0
    """Seconds that one query may take of the model, which is computing for nobody else meanwhile. A walk of many steps
    over all weights is one row, and could take a day."""
    read_s: float = 30.0
    """Seconds after which a body that has not arrived is given up."""
    per_s: float = 50.0
    burst: int = 100
    at_once: int = 8
    """Largest number of requests of one token that are processed at the same time."""


@dataclass(frozen=True)
class Answer:
    """A query's reply as msgpack."""

    reply: bytes
    row: LedgerRow | None
    """The charged row; None for a retry."""


class QueryHandler:
    """Answers queries for all cells of a track, with one model and one database of accounts."""

    def __init__(
        self,
        lm: Any,
        track: str,
        places: Mapping[tuple[str, int], Place],
        book: Accounts,
        limits: Limits,
        gate: Gate = Gate(),  # noqa: B008 - a frozen value
        scores: Callable[[str], Mapping[tuple[str, int], float]] | None = None,
    ) -> None:
        """Answer for the cells of one track.

        Args:
            lm: the model.
            track: the track's name and fingerprint.
            places: the cells by (task, split).
            book: the accounts.
            limits: limits on a request.
            gate: whether queries and answers are taken now.
            scores: gives the scores of a stored run by task and split; None means that no participant is told a score.
        """
        self.track, self.places, self.book, self.limits, self.gate = track, places, book, limits, gate
        self._lm, self._scores = lm, scores
        self._priced = {
            where: PricedModel(
                lm,
                place.task,
                limits.answer_bytes,
                limits.frame_bytes,
                place.shots.train.texts,
                limits.answers,
                place.row_tokens,
                place.defences,
                place.text,
            )
            for where, place in places.items()
        }

    def account(self, token: Token, place: Place) -> Account:
        """What the token has spent on this cell."""
        rows = (token.calls or place.calls) * len(place.shots.train)
        return self.book.account(token.name, self.track, place.task.name, place.split, rows)

    def names(self, token: Token) -> list[CellName]:
        """The cells on offer."""
        found = [(place, self.account(token, place)) for place in self.places.values()]
        return [CellName(p.task.name, p.split, _budget(a, p), a.submitted is not None) for p, a in found]

    def mine(self, token: Token) -> MyPage:
        """What the owner of a token has spent on each cell on offer."""
        spent = {(each.task, each.split): each for each in spending(self.book, token.name) if each.track == self.track}
        runs = {each.run for each in spent.values() if each.run is not None}
        scores = {where: value for run in runs for where, value in self._scores(run).items()} if self._scores else {}
        cells = []
        for where, place in self.places.items():
            each = spent.get(where)
            if each is None:
                cells.append(Mine(*where, (token.calls or place.calls) * len(place.shots.train), 0, 0, 0.0, "open"))
                continue
            answer: Literal["open", "handed in", "scored"] = "open"
            if each.submitted is not None:
                answer = "handed in" if each.run is None else "scored"
            score = scores.get(where) if answer == "scored" else None
            cells.append(Mine(*where, each.rows_total, each.rows_spent, each.queries, each.seconds, answer, score))
        return MyPage(token.name, self.track.partition(" ")[0], self._scores is not None, cells)

    def page(self, token: Token, place: Place) -> CellPage:
        """What a solver is told about a cell."""
        account = self.account(token, place)
        train, dev = _labelled(place.shots.train), _labelled(place.shots.dev)
        budget, closed = _budget(account, place), account.submitted is not None
        name, task = self.track.partition(" ")[0], place.task
        if isinstance(task, TextTask):
            return CellPage(name, None, place.split, train, dev, place.info, budget, closed, task)
        return CellPage(name, task, place.split, train, dev, place.info, budget, closed)

    def word_ids(self, place: Place, words: tuple[str, ...]) -> wire.WordIds:
        """Token ids of words. Free.

        Raises:
            Refusal: the words are malformed.
        """
        with _refusing():
            return self._of(place).word_ids(words)

    def vocabulary(self) -> wire.WordList:
        """Every word that can be a label word. Free."""
        return wire.WordList(self._lm.words)

    def query(self, token: Token, place: Place, asked: QueryBody | TextBody, body: bytes, key: str | None) -> Answer:
        """Answer a query that was received as `body`. If its idempotency key was used for it before, repeat the reply.

        Raises:
            Refusal: the query is over budget or malformed, the cell is closed, or the key was used for another query.
            ModelError: the model failed. Nothing was charged.
            StoreError: the accounts cannot be written. Nothing was charged.
        """
        before = self._lm.traffic  # so that what was sent for a try that another server overtook is kept, too
        return self._unless_moved(lambda: self._query(token, place, asked, body, key, before))

    def _query(
        self, token: Token, place: Place, asked: QueryBody | TextBody, body: bytes, key: str | None,
        before: Traffic | None,
    ) -> Answer:  # fmt: skip
        account = self.account(token, place)
        digest = hashlib.sha256(msgspec.msgpack.encode(asked)).hexdigest()  # the same for JSON and msgpack
        known = None if key is None else self.book.answered(account.number, key)
        if known is not None:
            if known.request != digest:
                raise Refusal("key_reused", f"idempotency key {key!r} was used for another query; take a new key")
            if known.reply is None:
                raise Refusal("reply_gone", f"query {key!r} was charged and answered; its reply is no longer kept")
            return Answer(known.reply, None)
        if account.submitted is not None:
            raise Refusal("closed", f"an answer was handed in for {account.task}/{account.split}; its budget is closed")
        self._check_open(token, account)
        priced = self._of(place)
        with self.book.reading() as connection:
            seen = read(connection, account.number, account.queries)

        def commit(answered: Answered) -> None:
            up, down = answered.nominal_up, answered.nominal_down
            name, exchanged = key or secrets.token_hex(16), between(before, self._lm.traffic)
            more = answered.new
            given = seen | more if seen is not None and (more.words or more.texts or more.rows) else None
            charge = Charge(name, digest, _reply(answered), answered.row, up, down, exchanged, given)
            self.book.charge(account, charge)

        ends = at_checkpoints(Deadline(self.limits.query_s).check)
        with _refusing(), served(("account", account.number)), ends:
            meter = _meter(account, place)
            if asked.space is not None:
                priced.check_space(asked.space)
            if isinstance(asked, QueryBody):
                query = asked.query(place.shots)
                priced.check_texts(query.texts)
                answered = priced.answer(query, body, meter, commit, seen)
            else:
                text = priced.of_text()
                about = asked.asked(text.task, place.shots)
                priced.check_texts(about.query.texts)
                answered = text.answer(about, body, meter, commit, seen)
        return Answer(_reply(answered), answered.row)

    def submit(self, token: Token, place: Place, blob: bytes) -> Receipt:
        """Accept an answer and close the cell. The same answer again gets the same receipt.

        Raises:
            Refusal: the answer does not fit, or another answer was submitted.
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
        self._check_open(token, account)
        with _refusing():
            self._of(place).offered(blob)
        self.book.submit(account, blob)
        return receipt

    def _check_open(self, token: Token, account: Account) -> None:
        """Refuse what the dates and limits of a competition do not allow."""
        refused = self.gate.refusal(token, account, self.book)
        if refused:
            raise Refusal("closed", refused)

    def _of(self, place: Place) -> PricedModel:
        return self._priced[place.task.name, place.split]

    @staticmethod
    def _unless_moved(work: Callable[[], T]) -> T:
        """Try again if another server changed the account first."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                return work()
            except Moved:
                if not left:
                    raise
        raise AssertionError


def _meter(account: Account, place: Place) -> Meter:
    """A meter that starts at the number of spent rows."""
    train_rows = len(place.shots.train)
    return Meter(account.rows_total // train_rows, train_rows, account.rows_spent)


def _reply(answered: Answered) -> bytes:
    """The reply in its HTTP form: the frame without its length."""
    return answered.frame[wire.PREFIX :]


def _budget(account: Account, place: Place) -> Budget:
    return Budget(account.rows_total, account.rows_total - account.rows_spent, len(place.shots.train))


def _labelled(examples: Examples) -> Labelled:
    references = list(examples.references) or msgspec.UNSET
    return Labelled(list(examples.texts), examples.labels.tolist(), references)


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise what pricing refuses as a `Refusal`."""
    try:
        yield
    except BudgetExhausted as refused:
        numbers = {"rows_asked": refused.rows_asked, "rows_left": refused.rows_left, "rows_total": refused.rows_total}
        message = f"{refused.rows_asked:,} rows asked, {refused.rows_left:,} left"
        raise Refusal("budget_exhausted", message, **numbers) from None
    except TimeoutError as late:
        ask = "Ask for fewer candidates, texts or tokens at once, or walk fewer steps over fewer weights"
        raise Refusal("rejected", f"the query takes the model {late}, and nothing was charged. {ask}") from None
    except QueryError as problem:
        raise Refusal("rejected", str(problem)) from None
