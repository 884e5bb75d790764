"""Serves one worker: prices each query, refuses or answers it, logs it, then replies.

The order is the guarantee: charge, forward, commit to the ledger, reply. A query is answered only after its
ledger row is durable, so no work is ever done off the books.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from harness import answer as answers
from harness.contract import Answer, Coordinates, Prompt, Prompts, Subspace, Task
from harness.errors import AnswerError, BudgetExhausted, ProtocolError, QueryError
from harness.lm import bounds, wire
from harness.lm.projection import check_space
from harness.lm.turns import waited_s
from harness.records import LedgerRow, Usage
from harness.status import MARKS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from harness.contract import Text
    from harness.lm.model import LanguageModel
    from harness.meter import Meter

_Asked: TypeAlias = "wire.Declare | wire.Query | wire.Words | wire.Vocabulary | wire.Offer | wire.Ready"
End: TypeAlias = Literal["returned", "budget", "crashed", "memory", "timeout", "closed", "protocol", "answer"]
_MOST_DECLARED = 4096
_MOST_DECLARED_CHARACTERS, _TEXT_OVERHEAD = 64 << 20, 64
_MOST_REJECTED = 1000
_MOST_REFUSED = 1000
"""A submission that goes on asking for more than is left is ended by its budget, not by the clock."""
_MOST_HISTORY = 1000
_HISTORY = ("dev", "loss")
"""What of each offered answer's note is kept, and of how many answers."""
_TOKEN_BYTES, _FLOAT_BYTES = 3, 4
"""Of the nominal formula (BBT, appendix C): two bytes of id and one of mask a token, four a float."""


class Ledger(Protocol):
    """Where answered queries are made durable."""

    def record(self, row: LedgerRow) -> None:
        """Commit a row; when this returns, it survives a crash."""
        ...


@dataclass(frozen=True)
class Incumbent:
    """An answer offered after `rows` rows had been charged."""

    rows: int
    answer: Answer
    blob: bytes


@dataclass
class Service:
    """What the broker did for one worker."""

    end: End = "closed"
    detail: str = ""
    config: dict[str, object] | None = None
    """The full configuration, once the submission was imported; None if it never got there."""
    incumbents: dict[float, Incumbent] = field(default_factory=dict)
    """Last answer offered at or before each mark."""
    last: Incumbent | None = None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Rows charged when each answer came, and what its note says of `_HISTORY`; the first `_MOST_HISTORY` of them."""
    refused: int = 0
    rejected: int = 0
    declared_bytes: int = 0
    """Received to declare texts and subspaces; `bytes_up` counts queries alone."""
    usage: Usage = field(default_factory=Usage)


class Broker:
    """One worker's counterpart. Serial: one frame in, one frame out."""

    def __init__(
        self,
        lm: LanguageModel,
        task: Task,
        meter: Meter,
        ledger: Ledger,
        answer_bytes: int,
        frame_bytes: int,
        watch: Callable[[int, dict[str, float]], None],
    ) -> None:
        """Serve `lm` under `meter`; `watch` is told rows spent and the incumbent's note after each frame."""
        self._lm, self._task, self._meter, self._ledger = lm, task, meter, ledger
        self._answer_bytes, self._frame_bytes, self._watch = answer_bytes, frame_bytes, watch
        self._texts: dict[int, tuple[Text, ...]] = {}
        self._spaces: dict[int, Subspace] = {}
        self._characters: dict[int, int] = {}
        self.service = Service()

    def serve(self, sock: socket.socket, deadline: float) -> Service:
        """Answer frames until the worker is finished, gone, out of time (monotonic clock) or off the protocol.

        Its clock stands still while it waits for the forward passes of others.
        """
        service, deadline = self.service, deadline - waited_s()
        try:
            while service.refused <= _MOST_REFUSED:
                sock.settimeout(_left(deadline + waited_s()))
                body = wire.receive(sock, self._frame_bytes)
                if body is None:
                    return service
                request = wire.decode_request(body)
                if isinstance(request, wire.Finished):
                    service.end, service.detail = request.reason, request.detail[:20_000]
                    return service
                _, reply = self.reply(request, body)
                # A worker that does not read its replies runs out of time, too.
                sock.settimeout(_left(deadline + waited_s()))
                sock.sendall(reply)
                self._watch(self._meter.spent, service.last.answer.note if service.last else {})
            service.end, service.detail = "budget", f"more than {_MOST_REFUSED:,} queries that did not fit"
        except TimeoutError:
            service.end, service.detail = "timeout", "wall-clock limit reached"
        except (BrokenPipeError, ConnectionResetError):
            service.end = "closed"
        except ProtocolError as problem:
            service.end, service.detail = "protocol", str(problem)
        return service

    def reply(self, request: _Asked, body: bytes) -> tuple[wire.Reply, bytes]:
        """The reply to one request whose bytes were `body`, and its frame.

        Raises:
            ProtocolError: the protocol does not allow the request.
        """
        reply = self._answered(request, body)
        return reply if isinstance(reply, tuple) else (reply, wire.encode(reply))

    def _answered(self, request: _Asked, body: bytes) -> wire.Reply | tuple[wire.Result, bytes]:
        if self.service.config is None and not isinstance(request, wire.Ready):
            raise ProtocolError(f"{type(request).__name__} came before Ready; the submission is not imported yet")
        try:
            if isinstance(request, wire.Query):
                return self._query(request, body)
            if isinstance(request, wire.Offer):
                return self._offer(request)
            if isinstance(request, wire.Words | wire.Vocabulary):
                return self._words(request)
            return self._ready(request) if isinstance(request, wire.Ready) else self._declare(request, len(body))
        except BudgetExhausted as refused:
            self.service.refused += 1
            return wire.Refused(refused.rows_asked, refused.rows_left, refused.rows_total)
        except QueryError as problem:
            self.service.rejected += 1
            if self.service.rejected > _MOST_REJECTED:
                raise ProtocolError(f"more than {_MOST_REJECTED} malformed requests; the last: {problem}") from problem
            return wire.Rejected(str(problem))

    def _ready(self, ready: wire.Ready) -> wire.Done:
        """Keep the configuration; it goes into the results as JSON, so it must be plain data."""
        if self.service.config is not None:
            raise ProtocolError("Ready came twice")
        bounds.check_config(ready.config)
        self.service.config = ready.config
        return wire.Done()

    def _words(self, request: wire.Words | wire.Vocabulary) -> wire.WordIds | wire.WordList:
        if isinstance(request, wire.Vocabulary):
            return wire.WordList(self._lm.words)
        bounds.check_words(request.words)
        return wire.WordIds(self._lm.word_ids(request.words))

    def _declare(self, request: wire.Declare, size: int) -> wire.Done:
        if (request.texts is None) == (request.space is None):
            raise QueryError("declare either texts or a subspace")
        if len(self._texts) + len(self._spaces) >= _MOST_DECLARED:
            raise QueryError(f"{_MOST_DECLARED:,} text sets and subspaces are declared; reuse those")
        if request.texts is not None:
            self._declare_texts(request.id, tuple(request.texts))
        elif request.space is not None:
            space = request.space.subspace()
            check_space(space, self._lm.backbone.layers, self._lm.backbone.width, self._lm.prompt_tokens)
            self._spaces[request.id] = space
        self.service.declared_bytes += size
        return wire.Done()

    def _declare_texts(self, number: int, texts: tuple[Text, ...]) -> None:
        bounds.check_texts(texts, self._task.fields)
        characters = sum(_TEXT_OVERHEAD + sum(map(len, text)) for text in texts)
        most = _MOST_DECLARED_CHARACTERS - sum(self._characters.values())
        if characters > most:
            raise QueryError(f"texts of {characters:,} characters; {most:,} may still be declared. Reuse text sets")
        self._characters[number] = characters
        self._texts[number] = texts

    def _query(self, query: wire.Query, body: bytes) -> tuple[wire.Result, bytes]:
        """The result and its frame, which the ledger's row has the digest of."""
        started, waited = time.perf_counter(), waited_s()
        texts = self._texts.get(query.texts)
        if texts is None:
            raise QueryError(f"text set {query.texts} was never declared")
        prompts = self._prompts(query)
        self._lm.check(prompts)
        bounds.check_wording(query.template, query.words)
        width, longest = self._lm.backbone.width, self._lm.max_tokens
        candidates = bounds.check_size(
            query, prompts, len(texts), self._meter.budget, width, longest, self._frame_bytes
        )
        words = self._lm.single_ids(query.words)
        encoded = self._lm.text_set(query.template, texts)
        rows = self._meter.charge(candidates, len(texts))
        out = self._lm.forward(prompts, encoded, words, query.features, query.normalize)
        left = self._meter.budget.rows_left
        features = None if out.features is None else wire.Array.of(out.features)
        lengths = None if out.lengths is None else out.lengths.tolist()
        result = wire.Result(left, wire.Array.of(out.logits), features, lengths)
        reply = wire.encode(result)
        tokens = candidates * (encoded.tokens + bounds.prompt_tokens(prompts) * len(texts))
        digest = hashlib.sha256(body)
        digest.update(reply)
        seconds = time.perf_counter() - started - (waited_s() - waited)
        row = LedgerRow(rows, tokens, len(body), len(reply), seconds, bounds.level(query, prompts), digest.hexdigest())
        self._ledger.record(row)
        floats_up = 0 if query.prompt is None else len(query.prompt.data) // _FLOAT_BYTES
        floats_down = out.logits.size + (0 if out.features is None else out.features.size)
        nominal_up = _TOKEN_BYTES * candidates * encoded.tokens + _FLOAT_BYTES * floats_up
        self.service.usage.count(row, nominal_up, _FLOAT_BYTES * floats_down)
        return result, reply

    def _prompts(self, query: wire.Query) -> Prompts | None:
        if query.prompt is None:
            return None
        if query.space is None:
            return Prompt(query.prompt.values(4), query.mode)
        space = self._spaces.get(query.space)
        if space is None:
            raise QueryError(f"subspace {query.space} was never declared")
        return Coordinates(space, query.prompt.values(3))

    def _offer(self, offer: wire.Offer) -> wire.Done:
        try:
            if len(offer.answer) > self._answer_bytes:
                raise AnswerError(f"answer of {len(offer.answer):,} bytes; {self._answer_bytes:,} are allowed")
            answer = answers.from_bytes(offer.answer)
            answers.check(answer, self._task, self._lm.backbone.width)
            for member in answer.members:
                bounds.check_wording(member.template, member.words)
                self._lm.check(member.prompt)
                self._lm.single_ids(member.words)
                self._lm.text_set(member.template, (("",) * self._task.fields,))
        except (AnswerError, QueryError) as problem:
            raise QueryError(f"answer refused: {problem}") from problem
        spent, total = self._meter.spent, self._meter.budget.rows_total
        self.service.last = Incumbent(spent, answer, offer.answer)
        if len(self.service.history) < _MOST_HISTORY:
            self.service.history.append((spent, {key: answer.note[key] for key in _HISTORY if key in answer.note}))
        for mark in MARKS:
            if spent <= mark * total:
                self.service.incumbents[mark] = self.service.last
        return wire.Done()


def _left(deadline: float) -> float:
    """Seconds to the deadline.

    Raises:
        TimeoutError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
