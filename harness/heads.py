"""Classifier heads on hidden states: what an `Answer` may carry of them, and how they are applied. Pure numpy."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.contract import BiLstmHead, Head, LinearHead, MlpHead, PrototypeHead

if TYPE_CHECKING:
    from harness.contract import FloatArray, IntArray

Kind: TypeAlias = Literal["linear", "mlp", "prototype", "bilstm"]
KINDS: dict[Kind, type[Head]] = {
    "linear": LinearHead,
    "mlp": MlpHead,
    "prototype": PrototypeHead,
    "bilstm": BiLstmHead,
}
_DIMENSIONS = {
    "weight": 2,
    "weight1": 2,
    "weight2": 2,
    "prototypes": 2,
    "wx": 3,
    "wh": 3,
    "b": 2,
}
"""Of a head's arrays; those not named have one."""
_GATES = 32 << 20
"""Most values of an LSTM's gates that are held at once: 256 MiB."""


def kind_of(head: Head) -> Kind:
    """Name under which a head is stored; TypeError for what is no head."""
    for kind, type_ in KINDS.items():
        if isinstance(head, type_):
            return kind
    raise TypeError(f"a head is {type(head).__name__}; one of {', '.join(t.__name__ for t in KINDS.values())} expected")


def arrays_of(kind: Kind) -> dict[str, int]:
    """Names of a head's arrays, with their numbers of dimensions."""
    return {field.name: _DIMENSIONS.get(field.name, 1) for field in fields(KINDS[kind])}


def logits(head: Head, features: FloatArray, lengths: IntArray | None = None) -> npt.NDArray[np.float64]:
    """(..., texts, width) -> (..., texts, classes).

    A `BiLstmHead` takes (texts, tokens, width) and the number of tokens of each text.
    """
    h = np.asarray(features, dtype=np.float64)
    if isinstance(head, BiLstmHead):
        if lengths is None:
            raise ValueError("a bilstm head reads all tokens, and needs the lengths of the texts")
        ends = [_last_state(head, d, h, lengths) for d in (0, 1)]
        return np.asarray(np.concatenate(ends, axis=-1) @ head.weight.T + head.bias, dtype=np.float64)
    if isinstance(head, LinearHead):
        return np.asarray(h @ head.weight.T + head.bias, dtype=np.float64)
    if isinstance(head, MlpHead):
        return np.asarray(np.tanh(h @ head.weight1.T + head.bias1) @ head.weight2.T + head.bias2, dtype=np.float64)
    v = h @ head.weight.T  # (..., texts, projection)
    v /= np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    distances = np.linalg.norm(v[..., None, :] - head.prototypes, axis=-1)  # (..., texts, classes)
    return np.asarray(head.radius - distances, dtype=np.float64)


def _last_state(head: BiLstmHead, direction: int, x: FloatArray, lengths: IntArray) -> npt.NDArray[np.float64]:
    """State of one LSTM after its last token: (texts, tokens, width) -> (texts, units). Direction 1 reads backwards.

    Some texts at a time where there are many gates: memory is bounded whatever the head's size is.
    """
    at_once = max(1, _GATES // (x.shape[1] * head.wx.shape[1]))
    parts = [slice(first, first + at_once) for first in range(0, max(1, len(x)), at_once)]
    return np.concatenate([_read(head, direction, x[part], lengths[part]) for part in parts])


def _read(head: BiLstmHead, direction: int, x: FloatArray, lengths: IntArray) -> npt.NDArray[np.float64]:
    texts, tokens, _ = x.shape
    steps = np.arange(tokens)
    if direction:  # each text from its own last token to its first; what lies behind the end stays there
        steps = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        x = np.take_along_axis(x, steps[..., None], axis=1)
    wh = head.wh[direction].astype(np.float64)  # (4 * units, units)
    gates = x @ head.wx[direction].astype(np.float64).T + head.b[direction]  # (texts, tokens, 4 * units)
    h = c = np.zeros((texts, wh.shape[1]))
    for t in range(tokens):
        i, f, g, o = np.split(gates[:, t] + h @ wh.T, 4, axis=-1)
        running = (t < lengths)[:, None]
        c = np.where(running, _sigmoid(f) * c + _sigmoid(i) * np.tanh(g), c)
        h = np.where(running, _sigmoid(o) * np.tanh(c), h)
    return h


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)), dtype=np.float64)  # no overflow at either end


def problem(head: Head | None, classes: int, width: int) -> str | None:
    """Say what is wrong with a head's shapes, or None."""
    if head is None:
        return None
    if isinstance(head, LinearHead):
        wanted: tuple[tuple[int, ...], ...] = ((classes, width), (classes,))
    elif isinstance(head, MlpHead):
        inner = head.bias1.shape[0] if head.bias1.ndim else 0
        wanted = ((inner, width), (inner,), (classes, inner), (classes,))
    elif isinstance(head, BiLstmHead):
        inner = head.wh.shape[-1] if head.wh.ndim else 0
        wanted = (2, 4 * inner, width), (2, 4 * inner, inner), (2, 4 * inner), (classes, 2 * inner), (classes,)
    else:
        inner = head.weight.shape[0] if head.weight.ndim else 0
        wanted = ((inner, width), (classes, inner), (classes,))
    shapes = tuple(getattr(head, field.name).shape for field in fields(head))
    if shapes == wanted and all(all(shape) for shape in shapes):
        return None
    return f"{kind_of(head)} head of shapes {shapes}; {wanted} expected"
