"""What travels over HTTP: typed bodies as msgpack or JSON, of the same parts as the frames in `harness.blackbox.wire`.

Nothing is declared and nothing lasts between requests: each query carries its texts, or names the split's own, and the
subspace by its seed. JSON is the same structure, with bytes in base64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from harness.blackbox.query import Query
from harness.blackbox.wire import Array, packed, unpacked
from harness.contract import Budget, Coordinates, FeatureKind, Mode, ModelInfo, Subspace, Task
from harness.errors import ProtocolError

if TYPE_CHECKING:
    from harness.contract import Shots

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"
Media: TypeAlias = Literal["application/msgpack", "application/json"]
IDEMPOTENCY: Final = "Idempotency-Key"
LONGEST_KEY: Final = 128

_Words = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1 << 18)]
_Texts = Annotated[
    list[Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=2)]],
    msgspec.Meta(min_length=1, max_length=1 << 18),
]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class QueryBody(_Body, frozen=True, forbid_unknown_fields=True):
    """One query: `prompt` holds values (4 dimensions), or with `space` coordinates (3); without it, the template."""

    texts: Literal["train", "dev"] | _Texts
    """The split's own training or dev texts by name, or texts."""
    template: str | None = None
    """The task's where null."""
    words: _Words | None = None
    """The task's where null."""
    prompt: Array | None = None
    mode: Mode = "add"
    space: Subspace | None = None
    features: FeatureKind | None = None
    normalize: bool = False

    @classmethod
    def of(cls, query: Query, shots: Shots) -> QueryBody:
        """Pack; the split's own texts go by their name, since the server has them."""
        texts: Any = list(query.texts)
        if query.texts == shots.train.texts:
            texts = "train"
        elif query.texts == shots.dev.texts:
            texts = "dev"
        prompt, mode = packed(query.prompts)
        space = query.prompts.space if isinstance(query.prompts, Coordinates) else None
        return cls(texts, query.template, query.words, prompt, mode, space, query.features, query.normalize)

    def query(self, shots: Shots) -> Query:
        """Unpack.

        Raises:
            QueryError: the prompt's array is not as it must be.
        """
        named = {"train": shots.train.texts, "dev": shots.dev.texts}
        texts = named[self.texts] if isinstance(self.texts, str) else tuple(self.texts)
        prompts = unpacked(self.prompt, self.mode, self.space)
        return Query(texts, self.template, self.words, prompts, self.features, self.normalize)


class WordsAsked(_Body, frozen=True, forbid_unknown_fields=True):
    """Words whose token ids are wanted."""

    words: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4096)]


class Labelled(_Body, frozen=True, forbid_unknown_fields=True):
    """Texts with their labels."""

    texts: list[tuple[str, ...]]
    labels: list[int]


class CellName(_Body, frozen=True, forbid_unknown_fields=True):
    """A task on a few-shot split, and what this token may still spend on it."""

    task: str
    split: int
    budget: Budget
    submitted: bool
    """Whether an answer was handed in; then the cell is closed."""


class CellPage(_Body, frozen=True, forbid_unknown_fields=True):
    """All that a solver is told of a cell. Test texts and labels are in no message."""

    track: str
    task: Task
    split: int
    train: Labelled
    dev: Labelled
    info: ModelInfo
    budget: Budget
    submitted: bool


class Handed(_Body, frozen=True, forbid_unknown_fields=True):
    """An answer, as `harness.solving.answers.to_bytes` writes it."""

    answer: bytes


class Receipt(_Body, frozen=True, forbid_unknown_fields=True):
    """An answer was taken and the cell is closed. The score stays with the organiser."""

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
    """The server answers; `waiting` queries are in line for the model."""

    status: Literal["ok", "starting"]
    """``starting`` while the model is being loaded: everything else is answered with 503 then."""
    track: str
    waiting: int


T = TypeVar("T")


def encode(value: Any, media: Media) -> bytes:
    """A body in the format asked for; the same value always gives the same bytes."""
    return msgspec.msgpack.encode(value) if media == MSGPACK else msgspec.json.encode(value)


def decode(body: bytes, media: Media, kind: type[T]) -> T:
    """A body as `kind`.

    Raises:
        ProtocolError: it is anything else.
    """
    try:
        read = msgspec.msgpack.decode if media == MSGPACK else msgspec.json.decode
        return read(body, type=kind)
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as problem:
        raise ProtocolError(f"body of {len(body):,} bytes is no {kind.__name__} in {media}: {problem}") from problem
