"""The messages between referee and worker: length-prefixed msgpack frames over one inherited socketpair.

A frame is a length (`harness.blackbox.framing`) and a msgpack body. The body must decode into one of the typed structs
below; nothing else is accepted, and nothing is unpickled. Array shapes are checked against their number of bytes, and
floats must be finite.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np

from harness.blackbox.framing import LENGTH
from harness.blackbox.query import Query
from harness.blackbox.weights import soft, streams_packed, weights_of
from harness.contract import (
    Coordinates,
    FeatureKind,
    FloatArray,
    Mode,
    Prompt,
    Prompts,
    SoftPrompts,
    Subspace,
    Text,
    Weights,
    WeightSpace,
)
from harness.contract.weights import MOST_PARTS
from harness.errors import ProtocolError, QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract import ModelInfo, Shots, Task, TextTask

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
_FEW, _MANY = msgspec.Meta(max_length=4096), msgspec.Meta(max_length=1 << 18)  # bounds on what a frame decodes to
PREFIX = LENGTH.size
"""Number of bytes of the length that precedes each body."""
LARGEST = 1e6
"""Largest magnitude accepted in prompts and coordinates."""


class _Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class Array(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A float32 array, row-major, little-endian."""

    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=4)]
    data: bytes

    @classmethod
    def of(cls, values: FloatArray) -> Array:
        """Pack an array as float32."""
        return cls(values.shape, np.ascontiguousarray(values, dtype="<f4").tobytes())

    def values(self, dimensions: int) -> FloatArray:
        """Unpack the array.

        Raises:
            QueryError: the number of dimensions or bytes is wrong, or a value is not finite or is too large.
        """
        size = math.prod(self.shape)
        if len(self.shape) != dimensions or not size:
            raise QueryError(f"array of shape {self.shape}; expected {dimensions} dimensions, none of them 0")
        if size * 4 != len(self.data):
            raise QueryError(f"array of shape {self.shape} needs {size * 4:,} bytes; it has {len(self.data):,}")
        array = np.frombuffer(self.data, dtype="<f4").reshape(self.shape)
        if not np.abs(array).max() <= LARGEST:  # the comparison is also False for NaN
            raise QueryError(f"array of shape {self.shape} has a value that is not finite or exceeds {LARGEST:g}")
        return array


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    space: WeightSpace
    z: Array
    """(candidates, dim), or for walks (candidates, steps)."""
    streams: bytes | None = None
    """Of walks: little-endian 32-bit words (candidates, steps)."""


class WeightsPart(_Change, frozen=True, forbid_unknown_fields=True):
    """The weights of a query's candidates; its prompts travel beside them."""

    more: Annotated[tuple[_Change, ...], msgspec.Meta(max_length=MOST_PARTS)] | msgspec.UnsetType = msgspec.UNSET
    """Further changes of a sum; left out where there is one, so that it has the bytes that it always had."""

    @classmethod
    def of(cls, prompts: Prompts | None) -> WeightsPart | msgspec.UnsetType:
        """The part of some candidates; unset where they change no weights."""
        if not isinstance(prompts, Weights):
            return msgspec.UNSET
        more = tuple(_Change(part.space, Array.of(part.z), streams_packed(part)) for part in prompts.more)
        return cls(prompts.space, Array.of(prompts.z), streams_packed(prompts), more or msgspec.UNSET)

    def weights(self, prompts: SoftPrompts | None) -> Weights:
        """Unpack the candidates, beside some soft prompts.

        Raises:
            QueryError: an array is invalid, or the parts do not fit each other.
        """
        more = () if self.more is msgspec.UNSET else self.more
        others = tuple(weights_of(each.space, each.z.values(2), each.streams, None) for each in more)
        return weights_of(self.space, self.z.values(2), self.streams, prompts, others)


# ── worker → referee ─────────────────────────────────────────────────────────────────────────────────────────


class Declare(_Frame, frozen=True, forbid_unknown_fields=True):
    """Give a text set or a subspace a number, by which later queries refer to it."""

    id: Count
    texts: Annotated[list[Annotated[tuple[str, ...], _FEW]], _MANY] | None = None
    space: Subspace | None = None
    targets: Annotated[tuple[str, ...], _MANY] | msgspec.UnsetType = msgspec.UNSET
    """Continuations of a text set, in its order. They have numbers of their own."""


class QueryFrame(_Frame, frozen=True, forbid_unknown_fields=True, tag="Query"):
    """A `Query`: `prompt` holds values (4 dimensions), or coordinates (3) of the declared `space`.

    A frame without `weights` has the bytes that it had before there were any, because the ledger's digests cover them.
    """

    texts: Count
    template: str
    words: Annotated[tuple[str, ...], _MANY]
    prompt: Array | None = None
    mode: Mode = "add"
    space: Count | None = None
    features: FeatureKind | None = None
    normalize: bool = False
    weights: WeightsPart | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, query: Query, task: Task | TextTask, texts: int, space: int | None) -> QueryFrame:
        """Pack a query. `texts` and `space` are the numbers under which its texts and its subspace were declared."""
        prompt, mode = packed(query.prompts)
        weights = WeightsPart.of(query.prompts)
        return cls(texts, *query.wording(task), prompt, mode, space, query.features, query.normalize, weights)

    def query(self, texts: tuple[Text, ...], space: Subspace | None) -> Query:
        """Unpack the query. `texts` and `space` are what was declared under its numbers.

        Raises:
            QueryError: the array of the prompts or of the weights is invalid.
        """
        prompts = unpacked(self.prompt, self.mode, space, self.weights)
        return Query(texts, self.template, self.words, prompts, self.features, self.normalize)


class _Asked(_Frame, frozen=True, forbid_unknown_fields=True):
    texts: Count
    template: str
    prompt: Array | None = None
    mode: Mode = "add"
    space: Count | None = None
    weights: WeightsPart | msgspec.UnsetType = msgspec.UNSET

    def query(self, texts: tuple[Text, ...], space: Subspace | None) -> Query:
        """Unpack texts, template and prompts.

        Raises:
            QueryError: the array of the prompts or of the weights is invalid.
        """
        return Query(texts, self.template, (), unpacked(self.prompt, self.mode, space, self.weights))


class Score(_Asked, frozen=True, forbid_unknown_fields=True):
    """Ask for the likelihood of the declared `targets` after the texts; prompts are as in `QueryFrame`."""

    targets: Count = 0


class Generate(_Asked, frozen=True, forbid_unknown_fields=True):
    """Ask for texts; prompts are as in `QueryFrame`."""

    most_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**16)] = 1
    stop: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    temperature: Annotated[float, msgspec.Meta(ge=0, le=LARGEST)] = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0


class Words(_Frame, frozen=True, forbid_unknown_fields=True):
    """Ask for token ids."""

    words: Annotated[tuple[str, ...], _FEW]


class Vocabulary(_Frame, frozen=True, forbid_unknown_fields=True):
    """Ask for every word that can be a label word."""


class Offer(_Frame, frozen=True, forbid_unknown_fields=True):
    """An answer, serialised by `harness.solving.answers`. It replaces the incumbent."""

    answer: bytes


class Log(_Frame, frozen=True, forbid_unknown_fields=True):
    """Numbers of the search, kept with the rows spent so far."""

    numbers: dict[str, float]


class Ready(_Frame, frozen=True, forbid_unknown_fields=True):
    """The submission was imported and its configuration was built. The message has the full configuration."""

    config: dict[str, Any]


class Finished(_Frame, frozen=True, forbid_unknown_fields=True):
    """The submission ended: by itself, by the budget, by an exception, or because it yielded an invalid answer."""

    reason: Literal["returned", "budget", "crashed", "memory", "answer"]
    detail: str = ""


# ── referee → worker ─────────────────────────────────────────────────────────────────────────────────────────


class Job(_Frame, frozen=True, forbid_unknown_fields=True):
    """All that the worker is told: task, shots, model info, budget, configuration, seed. It is the first frame."""

    submission: str
    """The submission's folder."""
    task: dict[str, Any]
    train_texts: list[tuple[str, ...]]
    train_labels: list[int]
    dev_texts: list[tuple[str, ...]]
    dev_labels: list[int]
    info: dict[str, Any]
    rows_total: Count
    config: dict[str, str]
    seed: int
    train_references: list[tuple[str, ...]] | msgspec.UnsetType = msgspec.UNSET
    """Of a text task, whose examples have references; so are those of dev."""
    dev_references: list[tuple[str, ...]] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(
        cls,
        submission: str,
        task: Task | TextTask,
        shots: Shots,
        info: ModelInfo,
        rows_total: int,
        config: Mapping[str, str],
        seed: int,
    ) -> Job:
        """The job of a cell; `submission` is a folder."""
        train, dev = shots.train, shots.dev
        examples = list(train.texts), train.labels.tolist(), list(dev.texts), dev.labels.tolist()
        references = (list(each.references) or msgspec.UNSET for each in (train, dev))
        return cls(submission, asdict(task), *examples, asdict(info), rows_total, dict(config), seed, *references)


class Done(_Frame, frozen=True, forbid_unknown_fields=True):
    """A declaration or an offer was accepted."""


class Result(_Frame, frozen=True, forbid_unknown_fields=True):
    """Reply to `Query`, with the budget after the query."""

    rows_left: Count
    logits: Array
    features: Array | None = None
    lengths: list[Count] | None = None
    """Number of tokens of each text, given with the features of all tokens."""


class Scored(_Frame, frozen=True, forbid_unknown_fields=True):
    """Reply to `Score`, with the budget after the query."""

    rows_left: Count
    values: Array
    lengths: list[Count]


class Written(_Frame, frozen=True, forbid_unknown_fields=True):
    """Reply to `Generate`, with the budget after the query."""

    rows_left: Count
    texts: tuple[tuple[str, ...], ...]
    tokens: list[list[Count]]
    cut: bool


class WordIds(_Frame, frozen=True, forbid_unknown_fields=True):
    """Reply to `Words`."""

    ids: list[list[int]]


class WordList(_Frame, frozen=True, forbid_unknown_fields=True):
    """Reply to `Vocabulary`."""

    words: tuple[str, ...]


class Refused(_Frame, frozen=True, forbid_unknown_fields=True):
    """The query does not fit into the budget. Nothing was charged."""

    rows_asked: int
    rows_left: Count
    rows_total: Count


class Rejected(_Frame, frozen=True, forbid_unknown_fields=True):
    """The request is malformed. Nothing was charged."""

    message: str


Request: TypeAlias = Declare | QueryFrame | Score | Generate | Words | Vocabulary | Offer | Log | Ready | Finished
Reply: TypeAlias = Job | Done | Result | Scored | Written | WordIds | WordList | Refused | Rejected

_encoder = msgspec.msgpack.Encoder()
_request = msgspec.msgpack.Decoder(Request)
_reply = msgspec.msgpack.Decoder(Reply)


def encode(frame: Request | Reply) -> bytes:
    """The bytes of a frame, its length first."""
    body = _encoder.encode(frame)
    return LENGTH.pack(len(body)) + body


def decode_request(body: bytes | memoryview) -> Request:
    """Decode the body of a worker's frame. A ProtocolError is raised for anything that is not a request."""
    return _decode(_request, body)  # type: ignore[no-any-return]


def decode_reply(body: bytes) -> Reply:
    """Decode the body of a referee's frame."""
    return _decode(_reply, body)  # type: ignore[no-any-return]


def _decode(decoder: Any, body: bytes | memoryview) -> Any:
    try:
        return decoder.decode(body)
    except (
        ValueError,
        TypeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as problem:  # DecodeError is a ValueError
        raise ProtocolError(f"frame of {len(body):,} bytes is not of the wire format: {problem}") from problem


def packed(prompts: Prompts | None) -> tuple[Array | None, Mode]:
    """The array of a query's prompts, and the mode of values. The subspace of coordinates is sent separately."""
    inner = soft(prompts)
    if inner is None:
        return None, "add"
    if isinstance(inner, Coordinates):
        return Array.of(inner.z), "add"
    return Array.of(inner.values), inner.mode


def unpacked(
    prompt: Array | None, mode: Mode, space: Subspace | None, weights: WeightsPart | msgspec.UnsetType = msgspec.UNSET
) -> Prompts | None:
    """The candidates of a query from their arrays: coordinates if there is a `space`, and otherwise values.

    Raises:
        QueryError: the array is invalid; see `Array.values`.
    """
    inner: SoftPrompts | None = None
    if prompt is not None:
        inner = Prompt(prompt.values(4), mode) if space is None else Coordinates(space, prompt.values(3))
    if weights is msgspec.UNSET:
        return inner
    return weights.weights(inner)
