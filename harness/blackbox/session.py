"""The conversation with one worker until it ends: its declarations, queries and answers, one frame at a time.

`harness.blackbox.pricing` decides what a query may ask and what it costs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from harness.blackbox import framing, limits, wire
from harness.blackbox.checkpoints import at_checkpoints
from harness.blackbox.defence import Seen
from harness.blackbox.lock import waited_s
from harness.blackbox.text_model import Decoding
from harness.blackbox.text_query import TextQuery
from harness.errors import BudgetExhausted, DeviceMemoryError, ProtocolError, QueryError
from harness.results.records import LedgerRow, Usage
from harness.results.status import MARKS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from harness.blackbox.answered import Answered
    from harness.blackbox.meter import Meter
    from harness.blackbox.pricing import PricedModel
    from harness.blackbox.query import Query
    from harness.contract import Answer, Subspace, Text
    from harness.results.asked import Asked

_Free: TypeAlias = "wire.Declare | wire.Words | wire.Vocabulary | wire.Offer | wire.Log | wire.Ready"
_Query: TypeAlias = "wire.QueryFrame | wire.Score | wire.Generate"
_Asked: TypeAlias = "_Query | _Free"
End: TypeAlias = Literal["returned", "budget", "crashed", "memory", "timeout", "closed", "protocol", "answer"]
_MOST_DECLARED = 4096
_MOST_REJECTED = 1000
_MOST_REFUSED = 1000
"""Number of refused queries after which a submission is ended. Otherwise it could ask until its time is over."""
_MOST_HISTORY = 1000
_HISTORY = ("dev", "loss")
"""What of each offered answer's note is kept, and of how many answers."""
_MOST_LOGGED = 4000
"""Generations whose numbers are kept: 8,000 calls are 400 generations of 20."""


class Ledger(Protocol):
    """The place where answered queries are made durable."""

    def record(self, row: LedgerRow) -> None:
        """Commit a row. When this returns, the row survives a crash."""
        ...


@dataclass(frozen=True)
class Incumbent:
    """An answer that was offered when `rows` rows had been charged."""

    rows: int
    answer: Answer
    blob: bytes


@dataclass
class Tuning:
    """How a submission's `tune` went, as reported by its worker."""

    end: End = "closed"
    detail: str = ""
    config: dict[str, object] | None = None
    """The full configuration, or None if the submission was never imported."""
    incumbents: dict[float, Incumbent] = field(default_factory=dict)
    """The last answer offered at or before each mark."""
    last: Incumbent | None = None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Rows charged when each answer came, and what its note says of `_HISTORY`; the first `_MOST_HISTORY` of them."""
    log: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Rows charged when the submission logged something, and the numbers; the first `_MOST_LOGGED` of them."""
    refused: int = 0
    unfit_rows: int = 0
    """Rows that the first query asked for, if it did not fit into the whole budget."""
    rejected: int = 0
    declared_bytes: int = 0
    """Bytes received to declare texts and subspaces. `bytes_up` counts queries alone."""
    usage: Usage = field(default_factory=Usage)


class Session:
    """The referee's side of the connection to one worker. It is serial: one frame in, one frame out."""

    def __init__(
        self,
        priced: PricedModel,
        meter: Meter,
        ledger: Ledger,
        watch: Callable[[int, dict[str, float]], None] = lambda _rows, _note: None,
        asked: Callable[[Sequence[Text]], None] = lambda _texts: None,
    ) -> None:
        """Serve `priced` under `meter`. After each frame, `watch` gets the rows spent and the incumbent's note.

        `asked` gets each declared set of texts when the first query on it has been answered.
        """
        self._asked, self._new = asked, set[int]()
        self._priced, self._meter, self._ledger, self._watch = priced, meter, ledger, watch
        self._texts: dict[int, tuple[Text, ...]] = {}
        self._spaces: dict[int, Subspace] = {}
        self._targets: dict[int, tuple[str, ...]] = {}
        self._characters: dict[tuple[str, int], int] = {}
        self.tuning, self._seen = Tuning(), Seen()

    @property
    def asked(self) -> Asked:
        """What the queries so far were given, without repetitions."""
        return self._seen.counts

    def serve(self, sock: socket.socket, deadline: float) -> Tuning:
        """Answer frames until the worker finishes, disconnects, breaks the protocol or runs out of time.

        Its clock stands still while it waits for the forward passes of others. The clock is looked at between frames
        and, within a query, between chunks: what is computed at the deadline is not answered and not charged.
        """
        deadline -= waited_s()
        with at_checkpoints(lambda: _look(deadline + waited_s())):
            return self._serve(sock, deadline)

    def _serve(self, sock: socket.socket, deadline: float) -> Tuning:
        tuning = self.tuning
        try:
            while tuning.refused <= _MOST_REFUSED:
                sock.settimeout(_left(deadline + waited_s()))
                body = framing.receive(sock, self._priced.frame_bytes)
                if body is None:
                    return tuning
                request = wire.decode_request(body)
                if isinstance(request, wire.Finished):
                    tuning.end, tuning.detail = request.reason, request.detail[:20_000]
                    return tuning
                reply = self._reply(request, body)
                # The deadline also holds for a worker that does not read its replies.
                sock.settimeout(_left(deadline + waited_s()))
                sock.sendall(reply)
                self._watch(self._meter.spent, tuning.last.answer.note if tuning.last else {})
            tuning.end, tuning.detail = "budget", f"more than {_MOST_REFUSED:,} queries that did not fit"
        except TimeoutError:
            tuning.end, tuning.detail = "timeout", "wall-clock limit reached"
        except (DeviceMemoryError, MemoryError) as problem:
            tuning.end, tuning.detail = "memory", f"the referee has too little memory for what was asked: {problem}"
        except (BrokenPipeError, ConnectionResetError):
            tuning.end = "closed"
        except ProtocolError as problem:
            tuning.end, tuning.detail = "protocol", str(problem)
        return tuning

    def reply(self, body: bytes) -> bytes:
        """The frame that replies to the body of one frame, for an optimizer in this process: no socket and no clock.

        Raises:
            ProtocolError: the bytes are no request, or the protocol does not allow it.
        """
        request = wire.decode_request(body)
        if isinstance(request, wire.Finished):
            raise ProtocolError("Finished ends a worker's conversation; there is no worker here")
        return self._reply(request, body)

    def _reply(self, request: _Asked, body: bytes) -> bytes:
        """The frame that replies to one request. `body` holds the request's bytes.

        Raises:
            ProtocolError: the protocol does not allow the request.
        """
        if self.tuning.config is None and not isinstance(request, wire.Ready):
            name = "Query" if isinstance(request, wire.QueryFrame) else type(request).__name__
            raise ProtocolError(f"{name} was sent before Ready; the submission is not imported yet")
        try:
            if isinstance(request, wire.QueryFrame | wire.Score | wire.Generate):
                return self._query(request, body).frame
            return wire.encode(self._free(request, len(body)))
        except BudgetExhausted as refused:
            if not (self.tuning.refused or self._meter.spent):
                self.tuning.unfit_rows = refused.rows_asked
            self.tuning.refused += 1
            return wire.encode(wire.Refused(refused.rows_asked, refused.rows_left, refused.rows_total))
        except QueryError as problem:
            self.tuning.rejected += 1
            if self.tuning.rejected > _MOST_REJECTED:
                raise ProtocolError(f"more than {_MOST_REJECTED} malformed requests; the last: {problem}") from problem
            return wire.encode(wire.Rejected(str(problem)))

    def _free(self, request: _Free, size: int) -> wire.Reply:
        """The reply to a request that costs nothing."""
        if isinstance(request, wire.Offer):
            return self._offer(request)
        if isinstance(request, wire.Log):
            return self._log(request)
        if isinstance(request, wire.Words):
            return self._priced.word_ids(request.words)
        if isinstance(request, wire.Vocabulary):
            return self._priced.vocabulary()
        return self._ready(request) if isinstance(request, wire.Ready) else self._declare(request, size)

    def _ready(self, ready: wire.Ready) -> wire.Done:
        """Keep the configuration. It is stored in the results as JSON, so it must be plain data."""
        if self.tuning.config is not None:
            raise ProtocolError("Ready came twice")
        limits.check_config(ready.config)
        self.tuning.config = ready.config
        return wire.Done()

    def _log(self, request: wire.Log) -> wire.Done:
        limits.check_log(request.numbers)
        if len(self.tuning.log) < _MOST_LOGGED:
            self.tuning.log.append((self._meter.spent, request.numbers))
        return wire.Done()

    def _declare(self, request: wire.Declare, size: int) -> wire.Done:
        given = (request.texts is not None, request.space is not None, isinstance(request.targets, tuple))
        if sum(given) != 1:
            raise QueryError("declare either texts, or a subspace, or targets")
        if len(self._texts) + len(self._spaces) + len(self._targets) >= _MOST_DECLARED:
            raise QueryError(
                f"{_MOST_DECLARED:,} text sets and subspaces are declared, and no more are allowed; reuse them"
            )
        if request.texts is not None:
            texts = tuple(request.texts)
            self._characters["texts", request.id] = self._priced.check_texts(texts, sum(self._characters.values()))
            self._texts[request.id] = texts
            self._new.add(request.id)
        elif isinstance(request.targets, tuple):
            single = tuple((target,) for target in request.targets)
            self._characters["targets", request.id] = limits.check_characters(single, sum(self._characters.values()))
            self._targets[request.id] = request.targets
        elif request.space is not None:
            self._priced.check_space(request.space)
            self._spaces[request.id] = request.space
        self.tuning.declared_bytes += size
        return wire.Done()

    def _query(self, frame: _Query, body: bytes) -> Answered:
        texts = self._texts.get(frame.texts)
        if texts is None:
            raise QueryError(f"text set {frame.texts} was never declared")
        space = None
        if frame.prompt is not None and frame.space is not None:
            space = self._spaces.get(frame.space)
            if space is None:
                raise QueryError(f"subspace {frame.space} was never declared")
        query = frame.query(texts, space)
        if isinstance(frame, wire.QueryFrame):
            answered = self._priced.answer(query, body, self._meter, self._commit, self._seen)
        else:
            text = self._priced.of_text()
            about = self._about_text(frame, query)
            answered = text.answer(about, body, self._meter, self._commit, self._seen)
        if frame.texts in self._new:
            self._new.remove(frame.texts)
            self._asked(texts)
        return answered

    def _about_text(self, frame: wire.Score | wire.Generate, query: Query) -> TextQuery:
        if isinstance(frame, wire.Generate):
            return TextQuery(query, how=Decoding(frame.most_tokens, frame.stop, frame.temperature, frame.seed))
        targets = self._targets.get(frame.targets)
        if targets is None:
            raise QueryError(f"targets {frame.targets} were never declared")
        if len(targets) != len(query.texts):
            raise QueryError(f"{len(targets)} targets for {len(query.texts)} texts; one for each is needed")
        return TextQuery(query, targets)

    def _commit(self, answered: Answered) -> None:
        self._ledger.record(answered.row)
        self.tuning.usage.count(answered.row, answered.nominal_up, answered.nominal_down)

    def _offer(self, offer: wire.Offer) -> wire.Done:
        spent, total = self._meter.spent, self._meter.budget.rows_total
        self._check_kept(offer.answer, spent, total)
        answer = self._priced.offered(offer.answer)
        self.tuning.last = Incumbent(spent, answer, offer.answer)
        if len(self.tuning.history) < _MOST_HISTORY:
            self.tuning.history.append((spent, {key: answer.note[key] for key in _HISTORY if key in answer.note}))
        for mark in MARKS:
            if spent <= mark * total:
                self.tuning.incumbents[mark] = self.tuning.last
        return wire.Done()

    def _check_kept(self, blob: bytes, spent: int, total: int) -> None:
        """Refuse an answer that is too large beside those of the marks that are passed, which are kept for good."""
        passed = {each.blob for mark, each in self.tuning.incumbents.items() if spent > mark * total}
        size, most = sum(map(len, passed | {blob})), self._priced.answer_limits.kept_bytes
        if size > most:
            raise QueryError(
                f"answer refused: its {len(blob):,} bytes and the answers kept at {len(passed)} marks before make "
                f"{size:,} bytes; {most:,} are kept of a cell. Offer smaller answers"
            )


def _look(deadline: float) -> None:
    """Go on, if the deadline is not reached.

    Raises:
        TimeoutError: it is.
    """
    _left(deadline)


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: the deadline has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
