"""Classifier heads on hidden states: what an `Answer` may carry of them, and how they are applied. Pure numpy."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.contract import Head, LinearHead, MlpHead, PrototypeHead

if TYPE_CHECKING:
    from harness.contract import FloatArray

Kind: TypeAlias = Literal["linear", "mlp", "prototype"]
KINDS: dict[Kind, type[Head]] = {"linear": LinearHead, "mlp": MlpHead, "prototype": PrototypeHead}


def kind_of(head: Head) -> Kind:
    """Name under which a head is stored; TypeError for what is no head."""
    for kind, type_ in KINDS.items():
        if isinstance(head, type_):
            return kind
    raise TypeError(f"a head is {type(head).__name__}; one of {', '.join(t.__name__ for t in KINDS.values())} expected")


def arrays_of(kind: Kind) -> dict[str, int]:
    """Names of a head's arrays, with their numbers of dimensions."""
    matrices = {"weight", "weight1", "weight2", "prototypes"}
    return {field.name: 2 if field.name in matrices else 1 for field in fields(KINDS[kind])}


def logits(head: Head, features: FloatArray) -> npt.NDArray[np.float64]:
    """(..., texts, width) -> (..., texts, classes)."""
    h = np.asarray(features, dtype=np.float64)
    if isinstance(head, LinearHead):
        return np.asarray(h @ head.weight.T + head.bias, dtype=np.float64)
    if isinstance(head, MlpHead):
        return np.asarray(np.tanh(h @ head.weight1.T + head.bias1) @ head.weight2.T + head.bias2, dtype=np.float64)
    v = h @ head.weight.T  # (..., texts, projection)
    v /= np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    distances = np.linalg.norm(v[..., None, :] - head.prototypes, axis=-1)  # (..., texts, classes)
    return np.asarray(head.radius - distances, dtype=np.float64)


def problem(head: Head | None, classes: int, width: int) -> str | None:
    """Say what is wrong with a head's shapes, or None."""
    if head is None:
        return None
    if isinstance(head, LinearHead):
        wanted: tuple[tuple[int, ...], ...] = ((classes, width), (classes,))
    elif isinstance(head, MlpHead):
        inner = head.bias1.shape[0] if head.bias1.ndim else 0
        wanted = ((inner, width), (inner,), (classes, inner), (classes,))
    else:
        inner = head.weight.shape[0] if head.weight.ndim else 0
        wanted = ((inner, width), (classes, inner), (classes,))
    shapes = tuple(getattr(head, field.name).shape for field in fields(head))
    if shapes == wanted and all(all(shape) for shape in shapes):
        return None
    return f"{kind_of(head)} head of shapes {shapes}; {wanted} expected"
