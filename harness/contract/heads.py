"""Classifier heads on hidden states, which an `Answer` may contain, and the logits that they give. Pure numpy.

A head is data. Its `logits` are the formula that the referee applies, and a submission may optimise the same formula.
`harness.contract` exports the heads to authors; this module imports nothing from the harness.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

_Floats: TypeAlias = npt.NDArray[np.floating]
_Integers: TypeAlias = npt.NDArray[np.int64]
_GATES = 32 << 20
"""Largest number of values of an LSTM's gates that are in memory at once: 256 MiB."""


def log_softmax(logits: _Floats) -> npt.NDArray[np.float64]:
    """Log-probabilities over the last axis, in float64.

    Args:
        logits: (..., classes), of any magnitude: their maximum is subtracted first.

    Returns:
        (..., classes), the logarithm of `softmax`.

    Example:
        ``log_softmax(lm.logits(None, texts))  # (1, texts, words)``
    """
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)), dtype=np.float64)


def softmax(logits: _Floats) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis, in float64: exp(q_k) / sum_j exp(q_j).

    Args:
        logits: (..., classes).

    Returns:
        (..., classes); the last axis adds up to 1.

    Example:
        ``softmax(lm.logits(None, texts))  # (1, texts, words)``
    """
    return np.exp(log_softmax(logits))


@dataclass(frozen=True)
class LinearHead:
    """Softmax regression: softmax(weight @ h + bias) on the features h.

    Args:
        weight: (classes, width).
        bias: (classes,).

    Example:
        ``LinearHead(weight=np.zeros((2, lm.info.width)), bias=np.zeros(2))``
    """

    weight: _Floats  # (classes, width)
    bias: _Floats  # (classes,)

    def logits(self, features: _Floats) -> npt.NDArray[np.float64]:
        """The logits, of which softmax is taken.

        Args:
            features: (..., width), hidden states.

        Returns:
            (..., classes), in float64.

        Example:
            ``head.logits(lm.outputs(prompt, texts).features)``
        """
        h = np.asarray(features, dtype=np.float64)
        return np.asarray(h @ self.weight.T + self.bias, dtype=np.float64)


@dataclass(frozen=True)
class MlpHead:
    """A perceptron: softmax(weight2 @ tanh(weight1 @ h + bias1) + bias2) on the features h.

    Args:
        weight1: (hidden, width).
        bias1: (hidden,).
        weight2: (classes, hidden).
        bias2: (classes,).

    Example:
        ``MlpHead(*(x.T for x in (w[0], b[0], w[1], b[1])))  # w, b of scikit-learn's MLPClassifier``
    """

    weight1: _Floats  # (hidden, width)
    bias1: _Floats  # (hidden,)
    weight2: _Floats  # (classes, hidden)
    bias2: _Floats  # (classes,)

    def logits(self, features: _Floats) -> npt.NDArray[np.float64]:
        """The logits, of which softmax is taken.

        Args:
            features: (..., width), hidden states.

        Returns:
            (..., classes), in float64.

        Example:
            ``head.logits(lm.outputs(prompt, texts).features)``
        """
        h = np.asarray(features, dtype=np.float64)
        return np.asarray(np.tanh(h @ self.weight1.T + self.bias1) @ self.weight2.T + self.bias2, dtype=np.float64)


@dataclass(frozen=True)
class PrototypeHead:
    """softmax(radius_k - |weight @ h / |weight @ h| - prototypes_k|) on the features (DecT, Cui et al., ACL 2023).

    Args:
        weight: (projection, width).
        prototypes: (classes, projection), one point per class.
        radius: (classes,).

    Example:
        ``PrototypeHead(weight, prototypes=means_of_classes @ weight.T, radius=np.zeros(2))``
    """

    weight: _Floats  # (projection, width)
    prototypes: _Floats  # (classes, projection)
    radius: _Floats  # (classes,)

    def logits(self, features: _Floats) -> npt.NDArray[np.float64]:
        """The logits, of which softmax is taken.

        Args:
            features: (..., width), hidden states.

        Returns:
            (..., classes), in float64.

        Example:
            ``head.logits(lm.outputs(prompt, texts).features)``
        """
        v = np.asarray(features, dtype=np.float64) @ self.weight.T  # (..., projection)
        v /= np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
        distances = np.linalg.norm(v[..., None, :] - self.prototypes, axis=-1)  # (..., classes)
        return np.asarray(self.radius - distances, dtype=np.float64)


@dataclass(frozen=True)
class BiLstmHead:
    """softmax(weight @ [forward; backward] + bias), the last states of two LSTMs that read all tokens from either end.

    Gates are stacked in the order input, forget, cell, output, as in PyTorch's LSTM with its two biases added::

        i, f, g, o = split(wx @ x_t + wh @ h_{t-1} + b)
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),    h_t = sigmoid(o) tanh(c_t)

    A member with this head needs `features` = "all".

    Args:
        wx: (2, 4 * units, width), direction first: forward, backward.
        wh: (2, 4 * units, units).
        b: (2, 4 * units).
        weight: (classes, 2 * units).
        bias: (classes,).

    Example:
        ``replace(Member.of(task), head=BiLstmHead(wx, wh, b, weight, bias), alpha=1.0, features="all")``
    """

    wx: _Floats  # (2, 4 * units, width), direction first
    wh: _Floats  # (2, 4 * units, units)
    b: _Floats  # (2, 4 * units)
    weight: _Floats  # (classes, 2 * units)
    bias: _Floats  # (classes,)

    def logits(self, features: _Floats, lengths: _Integers) -> npt.NDArray[np.float64]:
        """The logits, of which softmax is taken.

        Args:
            features: (..., texts, tokens, width), hidden states of all tokens.
            lengths: (texts,), tokens of each text.

        Returns:
            (..., texts, classes), in float64.

        Example:
            ``outs = lm.outputs(None, texts, features="all"); head.logits(outs.features, outs.lengths)``
        """
        h = np.asarray(features, dtype=np.float64)
        *leading, tokens, width = h.shape
        flat, ends = h.reshape(-1, tokens, width), np.broadcast_to(lengths, leading).ravel()
        states = np.concatenate([self._last_state(direction, flat, ends) for direction in (0, 1)], axis=-1)
        scores = np.asarray(states @ self.weight.T + self.bias, dtype=np.float64)
        return scores.reshape(*leading, -1)

    def _last_state(self, direction: int, x: _Floats, lengths: _Integers) -> npt.NDArray[np.float64]:
        """State of one LSTM after its last token: (texts, tokens, width) -> (texts, units). 1 reads backwards.

        If there are many gates, only some texts are read at a time, so that memory is bounded for a head of any size.
        """
        at_once = max(1, _GATES // (x.shape[1] * self.wx.shape[1]))
        parts = [slice(first, first + at_once) for first in range(0, max(1, len(x)), at_once)]
        return np.concatenate([self._read(direction, x[part], lengths[part]) for part in parts])

    def _read(self, direction: int, x: _Floats, lengths: _Integers) -> npt.NDArray[np.float64]:
        texts, tokens, _ = x.shape
        steps = np.arange(tokens)
        if direction:  # from each text's own last token to its first; padding stays at the end
            steps = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
            x = np.take_along_axis(x, steps[..., None], axis=1)
        wh = self.wh[direction].astype(np.float64)  # (4 * units, units)
        gates = x @ self.wx[direction].astype(np.float64).T + self.b[direction]  # (texts, tokens, 4 * units)
        h = c = np.zeros((texts, wh.shape[1]))
        for t in range(tokens):
            i, f, g, o = np.split(gates[:, t] + h @ wh.T, 4, axis=-1)
            running = (t < lengths)[:, None]
            c = np.where(running, _sigmoid(f) * c + _sigmoid(i) * np.tanh(g), c)
            h = np.where(running, _sigmoid(o) * np.tanh(c), h)
        return h


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)), dtype=np.float64)  # does not overflow for large |x|


Head: TypeAlias = LinearHead | MlpHead | PrototypeHead | BiLstmHead
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
"""Number of dimensions of a head's arrays, where it is not one."""


def kind_of(head: Head) -> Kind:
    """Name under which a head is stored. Raises a TypeError for anything that is not a head."""
    for kind, type_ in KINDS.items():
        if isinstance(head, type_):
            return kind
    raise TypeError(f"a head is {type(head).__name__}; expected one of {', '.join(t.__name__ for t in KINDS.values())}")


def arrays_of(kind: Kind) -> dict[str, int]:
    """Names of a head's arrays, each with its number of dimensions."""
    return {field.name: _DIMENSIONS.get(field.name, 1) for field in fields(KINDS[kind])}


def logits(head: Head, features: _Floats, lengths: _Integers | None = None) -> npt.NDArray[np.float64]:
    """A head's logits: (..., texts, width) -> (..., texts, classes).

    Args:
        head: any of the four.
        features: hidden states; for a `BiLstmHead` those of all tokens, (..., texts, tokens, width).
        lengths: (texts,) tokens of each text, which a `BiLstmHead` needs.

    Returns:
        (..., texts, classes), in float64.

    Raises:
        ValueError: a `BiLstmHead` did not get the lengths of the texts.
    """
    if not isinstance(head, BiLstmHead):
        return head.logits(features)
    if lengths is None:
        raise ValueError("a bilstm head reads all tokens and needs the lengths of the texts")
    return head.logits(features, lengths)


def cost(head: Head, classes: int) -> tuple[int, int]:
    """What a head takes for one vector of features: float64 values held at once, about, and products.

    Args:
        head: any of the four.
        classes: number of classes.

    Returns:
        (values, products); for a `BiLstmHead`, whose gates are bounded by themselves, both are for each token.
    """
    products = sum(getattr(head, field.name).size for field in fields(head))
    if isinstance(head, LinearHead):
        return head.weight.shape[1] + 2 * classes, products
    if isinstance(head, MlpHead):
        return head.weight1.shape[1] + 2 * head.weight1.shape[0], products
    if isinstance(head, PrototypeHead):
        return head.weight.shape[1] + (2 + 3 * classes) * head.weight.shape[0], products
    return 3 * head.wx.shape[2], products


def problem(head: Head | None, classes: int, width: int) -> str | None:
    """Say what is wrong with a head's shapes, or return None."""
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
