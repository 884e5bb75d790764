"""A `BlackBox` over the socket, which a submission uses inside the worker."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from harness.blackbox import framing, wire
from harness.blackbox.query import Query, words_of
from harness.blackbox.weights import soft
from harness.contract import Answer, Budget, Coordinates, FeatureKind, FloatArray, ModelInfo, Outputs
from harness.errors import AnswerError, BudgetExhausted, ProtocolError, QueryError
from harness.solving import answers

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from harness.contract import Prompts, Subspace, Task, Text, TextTask

_LARGEST_REPLY = (1 << 32) - 1


class Asking(ABC):
    """The two queries of a `BlackBox`. A subclass defines how a query is sent."""

    def logits(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        normalize: bool = False,
    ) -> FloatArray:
        """See `BlackBox`."""
        return computed(self._asked(Query.of(prompts, texts, template, words, None, normalize)).logits, 3)

    def outputs(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        features: FeatureKind = "mask",
        normalize: bool = False,
    ) -> Outputs:
        """See `BlackBox`."""
        result = self._asked(Query.of(prompts, texts, template, words, features, normalize))
        if result.features is None:
            raise ProtocolError("the query asked for features, and the reply has none")
        lengths = None if result.lengths is None else np.array(result.lengths, dtype=np.int64)
        return Outputs(computed(result.logits, 3), computed(result.features, 4 if features == "all" else 3), lengths)

    def _asked(self, query: Query) -> wire.Result:
        """What `_query` returns. A subclass may refuse a query here, before it is sent."""
        return self._query(query)

    @abstractmethod
    def _query(self, query: Query) -> wire.Result:
        """Send a query and return its result. Afterwards the budget is the one in the result."""


def computed(reply: wire.Array, dimensions: int) -> FloatArray:
    """What the model computed.

    Raises:
        QueryError: some of it is not finite or too large, which only changed weights lead to. The message has the
            candidates.
    """
    try:
        return reply.values(dimensions)
    except QueryError as problem:
        if len(reply.shape) != dimensions or 4 * math.prod(reply.shape) != len(reply.data) or not reply.data:
            raise
        rows = np.frombuffer(reply.data, dtype="<f4").reshape(reply.shape[0], -1)
        wild = np.flatnonzero(~(np.abs(rows) <= wire.LARGEST).all(axis=1)).tolist()
        named = ", ".join(map(str, wild[:5])) + (", ..." if len(wild) > len(wild[:5]) else "")
        raise QueryError(
            f"the model's reply is not finite or exceeds {wire.LARGEST:g} for {len(wild):,} of {len(rows):,} "
            f"candidates (number {named}). The query was charged. Candidates that are this far from the model need a "
            "smaller std, or smaller coefficients"
        ) from problem


class RemoteBlackBox(Asking):
    """Sends queries and receives logits. Texts and subspaces are sent once and then referred to by number."""

    def __init__(self, sock: socket.socket, info: ModelInfo, task: Task | TextTask, budget: Budget) -> None:
        """Communicate over `sock`. `task` gives the default template and words."""
        self._sock = sock
        self._info = info
        self._task = task
        self._budget = budget
        self._texts: dict[tuple[Text, ...], int] = {}
        self._spaces: dict[Subspace, int] = {}
        self._vocabulary: tuple[str, ...] | None = None

    @property
    def info(self) -> ModelInfo:
        """See `BlackBox`."""
        return self._info

    @property
    def budget(self) -> Budget:
        """See `BlackBox`."""
        return self._budget

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """See `BlackBox`."""
        reply = self._ask(wire.Words(words_of(words)))
        if not isinstance(reply, wire.WordIds):
            raise ProtocolError(f"unexpected reply {type(reply).__name__} to Words")
        return reply.ids

    def vocabulary(self) -> tuple[str, ...]:
        """See `BlackBox`."""
        if self._vocabulary is None:
            reply = self._ask(wire.Vocabulary())
            if not isinstance(reply, wire.WordList):
                raise ProtocolError(f"unexpected reply {type(reply).__name__} to Vocabulary")
            self._vocabulary = reply.words
        return self._vocabulary

    def log(self, **numbers: float) -> None:
        """See `BlackBox`."""
        self._ask(wire.Log({name: float(value) for name, value in numbers.items()}))

    def ready(self, config: dict[str, object]) -> None:
        """Tell the referee that the submission was imported, and send its full configuration."""
        self._ask(wire.Ready(config))

    def offer(self, answer: Answer) -> None:
        """Hand an answer to the referee. The last answer counts.

        Raises:
            AnswerError: the answer breaks the contract, or the referee refuses it.
        """
        if not isinstance(answer, Answer):
            raise AnswerError(f"tune yielded {type(answer).__name__}; yield harness.Answer")
        try:
            self._ask(wire.Offer(answers.to_bytes(answer)))
        except QueryError as problem:
            raise AnswerError(str(problem)) from None

    def _query(self, query: Query) -> wire.Result:
        texts = self._text_set(query.texts)
        inner = soft(query.prompts)
        space = self._space(inner.space) if isinstance(inner, Coordinates) else None
        reply = self._ask(wire.QueryFrame.of(query, self._task, texts, space))
        if not isinstance(reply, wire.Result):
            raise ProtocolError(f"unexpected reply {type(reply).__name__} to Query")
        self._budget = Budget(self._budget.rows_total, reply.rows_left, self._budget.train_rows)
        return reply

    def _text_set(self, texts: tuple[Text, ...]) -> int:
        if texts not in self._texts:
            self._ask(wire.Declare(len(self._texts), texts=list(texts)))
            self._texts[texts] = len(self._texts)
        return self._texts[texts]

    def _space(self, space: Subspace) -> int:
        if space not in self._spaces:
            self._ask(wire.Declare(len(self._spaces), space=space))
            self._spaces[space] = len(self._spaces)
        return self._spaces[space]

    def _ask(self, request: wire.Request) -> wire.Reply:
        frame = wire.encode(request)
        try:
            wire.decode_request(memoryview(frame)[wire.PREFIX :])  # here, so that the traceback shows the author's line
        except ProtocolError as problem:
            raise QueryError(f"{type(request).__name__} cannot be sent: {problem.__cause__}") from None
        reply = wire.decode_reply(self._exchange(frame))
        if isinstance(reply, wire.Refused):
            raise BudgetExhausted(reply.rows_asked, reply.rows_left, reply.rows_total)
        if isinstance(reply, wire.Rejected):
            raise QueryError(reply.message)
        return reply

    def _exchange(self, frame: bytes) -> bytes:
        """Send a frame, and return the body of the frame that replies to it."""
        self._sock.sendall(frame)
        body = framing.receive(self._sock, _LARGEST_REPLY)
        if body is None:
            raise ProtocolError("the referee closed the connection")
        return body
