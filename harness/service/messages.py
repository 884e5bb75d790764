"""The HTTP messages: typed bodies as msgpack or JSON, of the same parts as the frames in `harness.blackbox.wire`.

Nothing is declared, and the server keeps no state between requests. Each query contains its texts, or names a set of
the split, and gives its subspace with the seed. JSON has the same structure, with bytes in base64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from harness.blackbox.query import Query
from harness.blackbox.weights import soft
from harness.blackbox.wire import Array, WeightsPart, packed, unpacked
from harness.contract import Budget, Coordinates, FeatureKind, Mode, ModelInfo, Subspace, Task, Text, TextTask
from harness.errors import ProtocolError

if TYPE_CHECKING:
    from harness.contract import Shots

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"
Media: TypeAlias = Literal["application/msgpack", "application/json"]
IDEMPOTENCY: Final = "Idempotency-Key"
QUEUE_AHEAD: Final = "Queue-Ahead"
"""Header of a reply: requests that were in line for the model when the query came."""
QUEUE_SECONDS: Final = "Queue-Seconds"
"""Header of a reply: seconds that the query waited for the model."""
LONGEST_KEY: Final = 128

_Words = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1 << 18)]
Texts = Annotated[
    list[Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=2)]],
    msgspec.Meta(min_length=1, max_length=1 << 18),
]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class QueryBody(_Body, frozen=True, forbid_unknown_fields=True):
    """One query.

    `prompt` holds values (4 dimensions) or, with `space`, coordinates (3); null means the bare template.
    """

    texts: Literal["train", "dev"] | Texts
    """The name of the split's own training or dev texts, or texts."""
    template: str | None = None
    """Null means the task's."""
    words: _Words | None = None
    """Null means the task's."""
    prompt: Array | None = None
    mode: Mode = "add"
    space: Subspace | None = None
    features: FeatureKind | None = None
    normalize: bool = False
    weights: WeightsPart | msgspec.UnsetType = msgspec.UNSET
    """Left out where the candidates change no weights."""

    @classmethod
    def of(cls, query: Query, shots: Shots) -> QueryBody:
        """Pack a query. The split's own texts are sent by name, because the server has them."""
        texts: Any = named(query.texts, shots)
        prompt, mode = packed(query.prompts)
        inner, weights = soft(query.prompts), WeightsPart.of(query.prompts)
        space = inner.space if isinstance(inner, Coordinates) else None
        return cls(texts, query.template, query.words, prompt, mode, space, query.features, query.normalize, weights)

    def query(self, shots: Shots) -> Query:
        """Unpack the query.

        Raises:
            QueryError: the array of the prompts or of the weights is invalid.
        """
        prompts = unpacked(self.prompt, self.mode, self.space, self.weights)
        return Query(texts_named(self.texts, shots), self.template, self.words, prompts, self.features, self.normalize)


def named(texts: tuple[Text, ...], shots: Shots) -> Literal["train", "dev"] | list[Text]:
    """Texts as they are sent: the split's own by their name, because the server has them."""
    if texts == shots.train.texts:
        return "train"
    return "dev" if texts == shots.dev.texts else list(texts)


def texts_named(texts: str | list[Text], shots: Shots) -> tuple[Text, ...]:
    """Texts that were sent, or that were named."""
    own = {"train": shots.train.texts, "dev": shots.dev.texts}
    return own[texts] if isinstance(texts, str) else tuple(texts)


class WordsAsked(_Body, frozen=True, forbid_unknown_fields=True):
    """Words whose token ids are asked for."""

    words: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4096)]


class Labelled(_Body, frozen=True, forbid_unknown_fields=True):
    """Texts with their labels."""

    texts: list[tuple[str, ...]]
    labels: list[int]
    references: list[tuple[str, ...]] | msgspec.UnsetType = msgspec.UNSET
    """Of each text the answers that are right, on a task whose answer is text; else left out."""


class CellName(_Body, frozen=True, forbid_unknown_fields=True):
    """A task on a few-shot split, and what this token may still spend on it."""

    task: str
    split: int
    budget: Budget
    submitted: bool
    """Whether an answer was submitted; then the cell is closed."""


class CellPage(_Body, frozen=True, forbid_unknown_fields=True):
    """Everything that a solver is told about a cell. No message contains test texts or labels."""

    track: str
    task: Task | None
    """Null where the answer is text."""
    split: int
    train: Labelled
    dev: Labelled
    info: ModelInfo
    budget: Budget
    submitted: bool
    text_task: TextTask | msgspec.UnsetType = msgspec.UNSET
    """The task where the answer is text; else left out."""


class Handed(_Body, frozen=True, forbid_unknown_fields=True):
    """An answer in the bytes of `harness.solving.answers.to_bytes`."""

    answer: bytes


class Receipt(_Body, frozen=True, forbid_unknown_fields=True):
    """The answer was accepted and the cell is closed. Only the organiser sees the score."""

    sha256: str
    rows_spent: int


FaultCode: TypeAlias = Literal[
    "unauthorized", "unknown_cell", "unreadable", "too_large", "too_slow", "media_type", "rejected", "key_reused",
    "reply_gone", "closed", "budget_exhausted", "too_fast", "unavailable",
]  # fmt: skip


class Fault(_Body, frozen=True, forbid_unknown_fields=True):
    """Why a request was refused. Nothing was charged for it."""

    code: FaultCode
    message: str
    rows_asked: int | None = None
    rows_left: int | None = None
    rows_total: int | None = None


class Health(_Body, frozen=True, forbid_unknown_fields=True):
    """The server is running; `waiting` queries wait for the model."""

    status: Literal["ok", "starting"]
    """``starting`` while the model is being loaded. Until then every other request gets a 503."""
    track: str
    waiting: int


T = TypeVar("T")


def encode(value: Any, media: Media) -> bytes:
    """A body in the requested format. The same value always gives the same bytes."""
    return msgspec.msgpack.encode(value) if media == MSGPACK else msgspec.json.encode(value)


def decode(body: bytes, media: Media, kind: type[T]) -> T:
    """Decode a body as `kind`.

    Raises:
        ProtocolError: the body is not of this kind.
    """
    try:
        read = msgspec.msgpack.decode if media == MSGPACK else msgspec.json.decode
        return read(body, type=kind)
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as problem:
        raise ProtocolError(f"body of {len(body):,} bytes is no {kind.__name__} in {media}: {problem}") from problem


class Mine(_Body, frozen=True, forbid_unknown_fields=True):
    """What the owner of a token has spent on one cell."""

    task: str
    split: int
    rows_total: int
    rows_spent: int
    queries: int
    seconds: float
    """Of forward passes."""
    answer: Literal["open", "handed in", "scored"]
    score: float | None = None
    """The cell's score between 0 and 1; null where it is not scored yet or the organiser does not show scores."""


class MyPage(_Body, frozen=True, forbid_unknown_fields=True):
    """All cells on offer, as the owner of a token sees them."""

    token: str
    """Its name."""
    track: str
    scores_shown: bool
    """Whether the organiser shows scores."""
    cells: list[Mine]
