"""Save, load and apply an `Answer`. The referee and `harness predict` use this same code.

An answer is sent and stored as one safetensors blob: arrays by name, and the rest as JSON with a schema version in the
header's metadata. It contains no code. Unknown fields, wrong shapes and numbers that are not finite are errors.
"""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from harness.contract import (
    Answer,
    Coordinates,
    FeatureKind,
    FloatArray,
    Member,
    Mix,
    Mode,
    Outputs,
    Prompt,
    Prompts,
    SoftPrompts,
    Subspace,
    Task,
    Text,
    Weights,
    heads,
)
from harness.contract.heads import BiLstmHead, Head
from harness.contract.weights import MOST_PARTS
from harness.errors import AnswerError, QueryError
from harness.solving.stored_weights import StoredSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SCHEMA = 1
MOST_MEMBERS = 64
_LARGEST_HEADER = 16 << 20
"""Bytes of templates, words and the streams of walks, about 11 for each step."""
_LARGEST = 1e6
"""Largest magnitude accepted in arrays, factors and offsets; it is the same for queries."""
_TEXTS_AT_ONCE = 256
_VALUES, _PRODUCTS = 32 << 20, 1 << 33
"""Of the words and heads of one slice of texts: float64 values held at once, 256 MiB, and products, about a second."""


class Forward(Protocol):
    """What is needed of a language model to apply an answer."""

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """Logits and features of each text."""
        ...


class _Values(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="values"):
    mode: Mode


class _Coordinates(Subspace, frozen=True, forbid_unknown_fields=True, tag="coordinates"):
    """A subspace whose prompt array holds coordinates."""


class _Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    template: str
    words: tuple[str, ...]
    prompt: _Values | _Coordinates | None
    scale: tuple[float, ...] | None
    shift: tuple[float, ...] | None
    head: heads.Kind | None
    alpha: float
    mix: Mix
    features: FeatureKind
    weights: StoredSpace | msgspec.UnsetType = msgspec.UNSET
    """Left out without a change of weights, so that such answers have the bytes that they always had."""
    more_weights: Annotated[tuple[StoredSpace, ...], msgspec.Meta(max_length=MOST_PARTS)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """Further changes of a sum; left out where there is one change."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: int
    members: tuple[_Member, ...]
    note: dict[str, float]


def to_bytes(answer: Answer) -> bytes:
    """Serialise an answer. The same answer always gives the same bytes.

    A number of the note that is not finite is left out, with a warning that names it.

    Raises:
        AnswerError: a part has another type than the contract says.
    """
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    try:
        members = tuple(_pack(member, f"{n}", arrays) for n, member in enumerate(answer.members))
        note = finite_note(answer.note)
        document = msgspec.to_builtins(_Document(SCHEMA, members, note))
        text = json.dumps(document, sort_keys=True, allow_nan=False)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as problem:
        raise AnswerError(f"this answer breaks the contract: {type(problem).__name__}: {problem}") from problem
    return safetensors.numpy.save(arrays, metadata={"answer": text})


def finite_note(note: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a note that can be stored, by name in order; each other one is a warning that names it.

    A note is never scored, so a loss that is NaN is no reason to lose the answer.

    Args:
        note: as the author gave it.

    Returns:
        The finite ones, as plain floats.

    Raises:
        TypeError: a value is no number.
    """
    found = {}
    for key, value in sorted(note.items()):
        try:
            number = float(value)
        except (ArithmeticError, TypeError, ValueError):
            raise TypeError(f"note {key!r} is {value!r:.60}; a number expected") from None
        if math.isfinite(number):
            found[str(key)] = number
        else:
            warnings.warn(f"note {key!r} is {number}: it is left out, the answer is kept", stacklevel=3)
    return found


def from_bytes(blob: bytes) -> Answer:
    """Read an answer from its bytes.

    Raises:
        AnswerError: the blob is not an answer, has another schema, or has an array that is missing, extra or not
            finite.
    """
    try:
        size = int.from_bytes(blob[:8], "little")
        if not 0 < size <= len(blob) - 8:
            raise AnswerError(f"header of {size:,} bytes in a file of {len(blob):,}; this is not an answer file")
        if size > _LARGEST_HEADER:
            raise AnswerError(
                f"its templates, words and streams of walks take {size:,} bytes; {_LARGEST_HEADER:,} are allowed. Take "
                "fewer steps or fewer members"
            )
        text = json.loads(blob[8 : 8 + size])["__metadata__"]["answer"]
        document = msgspec.json.decode(text, type=_Document)
        arrays = safetensors.numpy.load(blob)
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as problem:
        raise AnswerError(f"not an answer of schema {SCHEMA}: {type(problem).__name__}: {problem}") from problem
    if document.schema != SCHEMA:
        raise AnswerError(f"answer of schema {document.schema}; this version reads schema {SCHEMA}")
    for name, array in arrays.items():
        if array.dtype != np.float32 or not (np.abs(array) <= _LARGEST).all():  # the comparison is also False for NaN
            raise AnswerError(f"array {name!r} is {array.dtype}, or exceeds {_LARGEST:g}; finite float32 expected")
    members = tuple(_unpack(member, f"{n}", arrays) for n, member in enumerate(document.members))
    if arrays:
        raise AnswerError(f"array {min(arrays)!r} belongs to no member")
    return Answer(members, document.note)


def check(answer: Answer, task: Task, width: int) -> None:
    """Check that an answer fits a task, before anything is forwarded.

    Raises:
        AnswerError: the number of members, classes, words or factors is wrong, or the shape of a head.
    """
    if not 1 <= len(answer.members) <= MOST_MEMBERS:
        raise AnswerError(f"{len(answer.members)} members; 1 to {MOST_MEMBERS} are allowed")
    classes = len(task.classes)
    for n, member in enumerate(answer.members):
        if not member.words or len(member.words) % classes:
            raise AnswerError(f"member {n}: {len(member.words)} words for {classes} classes; the same number for each")
        for name, values in (("scale", member.scale), ("shift", member.shift)):
            if values is not None and (len(values) != classes or not (np.abs(values) <= _LARGEST).all()):
                raise AnswerError(f"member {n}: {name} {values} must be {classes} numbers of at most {_LARGEST:g}")
        if isinstance(member.head, BiLstmHead) != (member.features == "all"):
            raise AnswerError(f"member {n}: features {member.features!r}; a bilstm head reads all, the others one")
        if not 0 <= member.alpha <= 1 or (member.head is None and member.alpha > 0):
            raise AnswerError(f"member {n}: alpha {member.alpha} must lie in [0, 1], and be 0 without a head")
        if isinstance(member.prompt, (Prompt, Coordinates, Weights)) and len(member.prompt) != 1:
            raise AnswerError(f"member {n}: {len(member.prompt)} candidate prompts; exactly 1 is needed")
        problem = heads.problem(member.head, classes, width)
        if problem:
            raise AnswerError(f"member {n}: {problem}")


def probabilities(
    answer: Answer, task: Task, lm: Forward, texts: Sequence[Text], between: Callable[[], None] = lambda: None
) -> npt.NDArray[np.float64]:
    """Mean over members of each one's probabilities, as `Member` defines them: (texts, classes).

    Memory is bounded, whatever the answer is: texts are forwarded 256 at a time, and a head is applied to as many of
    them at once as `_VALUES` and `_PRODUCTS` allow. `between` is called after each such slice.

    Raises:
        AnswerError: a member does not fit the model, or leads to numbers that are not finite.
    """
    parts = []
    for member in answer.members:
        found = []
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            chunk = texts[first : first + _TEXTS_AT_ONCE]
            try:
                outs = lm.outputs(member.prompt, chunk, member.template, member.words, member.features)
            except QueryError as problem:
                raise AnswerError(f"the model refuses this answer: {problem}") from problem
            for part in _slices(member, outs, len(task.classes)):
                found.append(member.probabilities(part, len(task.classes))[0])
                between()
        parts.append(np.concatenate(found))
    mean = np.asarray(np.mean(parts, axis=0), dtype=np.float64)
    if not np.isfinite(mean).all():
        raise AnswerError(f"{np.isnan(mean).any(axis=-1).sum():,} of {len(texts):,} texts get no finite probabilities")
    return mean


def _slices(member: Member, outs: Outputs, classes: int) -> Iterator[Outputs]:
    """The outputs of one candidate in slices of texts on which words and head cost a bounded amount."""
    tokens = outs.features.shape[2] if member.features == "all" else 1
    values, products = 4 * len(member.words), 0
    if member.head is not None:
        held, factors = heads.cost(member.head, classes)
        values, products = values + tokens * held, tokens * factors
    texts = outs.logits.shape[1]
    step = max(1, min(_VALUES // values, _PRODUCTS // max(1, products), texts))
    for first in range(0, texts, step):
        some = slice(first, first + step)
        lengths = None if outs.lengths is None else outs.lengths[some]
        yield Outputs(outs.logits[:, some], outs.features[:, some], lengths)


def _pack(member: Member, key: str, arrays: dict[str, npt.NDArray[np.float32]]) -> _Member:
    def put(name: str, values: FloatArray) -> None:
        arrays[f"{key}.{name}"] = np.ascontiguousarray(values, dtype=np.float32)

    weights: StoredSpace | msgspec.UnsetType = msgspec.UNSET
    soft = member.prompt
    more: tuple[StoredSpace, ...] = ()
    if isinstance(soft, Weights):
        weights, more = StoredSpace.of(soft), tuple(map(StoredSpace.of, soft.more))
        for name, part in zip(_arrays_of(more), soft.parts, strict=True):
            put(name, part.z)
        soft = soft.prompts
    prompt: _Values | _Coordinates | None = None
    if isinstance(soft, Prompt):
        prompt = _Values(soft.mode)
        put("prompt", soft.values)
    elif isinstance(soft, Coordinates):
        prompt = _Coordinates(**msgspec.structs.asdict(soft.space))
        put("prompt", soft.z)
    elif soft is not None:
        raise TypeError(f"a prompt is {type(soft).__name__}; Prompt, space.at(z) or None expected")
    kind: heads.Kind | None = None
    if member.head is not None:
        kind = heads.kind_of(member.head)
        for name in heads.arrays_of(kind):
            put(f"head.{name}", getattr(member.head, name))

    def numbers(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(map(float, values))

    words, scale, shift = tuple(map(str, member.words)), numbers(member.scale), numbers(member.shift)
    template, alpha = str(member.template), float(member.alpha)
    changes = weights, more or msgspec.UNSET
    return _Member(template, words, prompt, scale, shift, kind, alpha, member.mix, member.features, *changes)


def _arrays_of(more: Sequence[StoredSpace]) -> Iterator[str]:
    """Names of the arrays of a change of weights, and of the further ones of a sum."""
    yield "weights"
    yield from (f"weights.{n}" for n in range(1, 1 + len(more)))


def _unpack(packed: _Member, key: str, arrays: dict[str, npt.NDArray[np.float32]]) -> Member:
    def take(name: str, dimensions: int) -> FloatArray:
        array = arrays.pop(f"{key}.{name}", None)
        if array is None or array.ndim != dimensions:
            found = "is missing" if array is None else f"has shape {array.shape}"
            raise AnswerError(f"array '{key}.{name}' {found}; {dimensions} dimensions expected")
        return array

    soft: SoftPrompts | None = None
    if isinstance(packed.prompt, _Values):
        soft = Prompt(take("prompt", 4), packed.prompt.mode)
    elif isinstance(packed.prompt, _Coordinates):
        soft = Coordinates(Subspace(**msgspec.structs.asdict(packed.prompt)), take("prompt", 3))
    prompt: Prompts | None = soft
    more = () if packed.more_weights is msgspec.UNSET else packed.more_weights
    if packed.weights is msgspec.UNSET and more:
        raise AnswerError(f"member {key}: further changes of weights without a first one")
    if packed.weights is not msgspec.UNSET:
        name, *names = _arrays_of(more)
        try:
            others = tuple(each.weights(take(own, 2), None) for each, own in zip(more, names, strict=True))
            prompt = packed.weights.weights(take(name, 2), soft, others)
        except ValueError as problem:
            raise AnswerError(f"member {key}: {problem}") from problem
    head: Head | None = None
    if packed.head is not None:
        shapes = heads.arrays_of(packed.head).items()
        head = heads.KINDS[packed.head](*(take(f"head.{name}", dimensions) for name, dimensions in shapes))
    p = packed
    return Member(p.template, p.words, prompt, p.scale, p.shift, head, p.alpha, p.mix, p.features)
