"""What changes of weights do to the fake model: they move the effect e of its prompt, by planted directions.

The fake has no weights. Each layer of a group counts as one tensor of a size that a transformer's would have, and a
change of it has the effect  sum over layers of F_l delta_l / (RMS sqrt(n_l)),  with F_l (8, n_l) drawn once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox.noise import numpy_noise
from harness.blackbox.projection import check_space
from harness.blackbox.weights import check_weights, soft
from harness.contract import Prompt, WeightFacts, Weights
from harness.errors import QueryError

if TYPE_CHECKING:
    from harness.contract import FloatArray, ModelInfo, Prompts, WeightGroup, WeightSpace

RMS = 0.1
"""Published for every group; what a group adds has unit 1."""
_PUBLISHED: tuple[WeightGroup, ...] = ("biases", "norms", "attention", "feed_forward")


def facts(layers: int, width: int) -> tuple[WeightFacts, ...]:
    """What the fake publishes about its weights."""
    own = [WeightFacts(g, layer, _size(g, width, 0, 0), RMS) for g in _PUBLISHED for layer in range(layers)]
    return (*own, WeightFacts("all", -1, layers * _size("all", width, 0, 0), RMS))


def _size(group: WeightGroup, width: int, rank: int, beside: int) -> int:
    """Parameters of one layer."""
    return {
        "biases": 11 * width,
        "norms": 4 * width,
        "attention": 4 * width**2,
        "feed_forward": 8 * width**2,
        "lora": 2 * beside * rank * width,
        "adapter": 2 * rank * width + rank + width,
        "all": 12 * width**2 + 13 * width,
    }[group]


def count(space: WeightSpace, info: ModelInfo) -> int:
    """How many parameters a space changes.

    Raises:
        QueryError: the space does not fit the fake model.
    """
    if space.problem or (space.layers and space.layers[-1] >= info.layers):
        raise QueryError(f"weight space: {space.problem or f'layers {space.layers}; the model has {info.layers}'}")
    layers = len(space.layers) or info.layers
    return layers * _size(space.group, info.width, space.rank, len(space.beside))


def check_prompts(prompts: Prompts, info: ModelInfo) -> None:
    """Refuse candidates of a wrong shape.

    Raises:
        QueryError: the shape is wrong, or a number is not finite.
    """
    if isinstance(prompts, Weights):
        check_weights(prompts, lambda space: count(space, info))
        for part in prompts.parts:
            _check_finite(part.z)
    inner = soft(prompts)
    if inner is None:
        return
    if isinstance(inner, Prompt):
        array, shape = inner.values, np.shape(inner.values)
        good = len(shape) == 4 and 1 <= shape[1] <= info.layers and 1 <= shape[2] <= info.prompt_tokens  # noqa: PLR2004
        if not good or shape[3] != info.width:
            wanted = f"(candidates, 1..{info.layers} layers, 1..{info.prompt_tokens} tokens, {info.width})"
            raise QueryError(f"prompt of shape {shape}; {wanted} expected")
    else:
        check_space(inner.space, info.layers, info.width, info.prompt_tokens)
        array, shape = inner.z, np.shape(inner.z)
        expected = (inner.space.layers, inner.space.dim)
        if len(shape) != 3 or shape[1:] != expected:  # noqa: PLR2004
            raise QueryError(f"coordinates of shape {shape}; (candidates, {expected[0]}, {expected[1]}) expected")
    _check_finite(array)


def _check_finite(array: FloatArray) -> None:
    if not np.isfinite(array).all():
        raise QueryError(f"array of shape {np.shape(array)} has a value that is not finite")


def effect(weights: Weights, info: ModelInfo, seed: int, effects: int) -> Any:
    """The effect of each candidate's change: (candidates of the weights, effects)."""
    return sum(_effect(part, info, seed, effects) for part in weights.parts)


def _effect(part: Weights, info: ModelInfo, seed: int, effects: int) -> Any:
    """The effect of a change of one space. The fake's tensors are vectors, so noise of low rank is that of rank 0."""
    space = part.space
    size = _size(space.group, info.width, space.rank, len(space.beside))
    unit = 1.0 if space.added else RMS
    total = np.zeros((len(part.z), effects))
    for layer in space.layers or range(info.layers):
        if part.streams is None:
            found = part.z @ _directions(space, size, layer) / np.sqrt(space.dim)
        else:
            streams, at = np.unique(part.streams, return_inverse=True)
            noise = numpy_noise(size, streams, layer, space.seed, space.distribution)
            found = (part.z[..., None] * noise[at.reshape(part.z.shape)]).sum(axis=1)
        planted = np.random.Generator(np.random.Philox(key=[seed, 2**32 + layer])).standard_normal((size, effects))
        total += space.std / unit * found @ planted / np.sqrt(size)
    return total


@lru_cache(maxsize=16)
def _directions(space: WeightSpace, size: int, layer: int) -> FloatArray:
    return np.asarray(numpy_noise(size, np.arange(space.dim), layer, space.seed, space.distribution))
