"""Changes of weights as they travel and are stored, and the limits on them. Needs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox.projection import LARGEST_BYTES
from harness.contract import FloatArray, Prompts, SoftPrompts, Weights, WeightSpace
from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

LEVEL = 5
"""Access level W; 4 is that of references."""
MOST_STEPS = 1 << 16
MOST_DRAWN = 1 << 40
"""Most numbers that are drawn for the walks of one answer: steps x parameters."""
MOST_UNFOLDED = 1 << 30
"""Largest size in bytes of what the candidates of one query add to the model, where they are computed together."""
TOGETHER = ("biases", "norms", "lora", "adapter")
"""Groups whose candidates may be computed together."""


def soft(prompts: Prompts | None) -> SoftPrompts | None:
    """The soft prompts of candidates, or None where there are none."""
    return prompts.prompts if isinstance(prompts, Weights) else prompts


def parts_of(prompts: Prompts | None) -> tuple[Weights, ...]:
    """The changes of weights of candidates, each of one space; none where there are none."""
    return prompts.parts if isinstance(prompts, Weights) else ()


def streams_packed(weights: Weights) -> bytes | None:
    """The streams of walks as little-endian words, row by row; None for coordinates."""
    return None if weights.streams is None else np.ascontiguousarray(weights.streams, dtype="<u4").tobytes()


def weights_of(
    space: WeightSpace,
    z: FloatArray,
    streams: bytes | None,
    prompts: SoftPrompts | None,
    more: tuple[Weights, ...] = (),
) -> Weights:
    """The candidates from their parts as they were sent or stored.

    Raises:
        QueryError: they do not fit each other.
    """
    found: Any = None
    if streams is not None:
        if len(streams) != 4 * z.size:
            raise QueryError(f"a walk of {z.size:,} steps needs {4 * z.size:,} bytes of streams; {len(streams):,} came")
        found = np.frombuffer(streams, dtype="<u4").reshape(z.shape)
    try:
        return Weights(space, z, found, prompts, more)
    except ValueError as problem:
        raise QueryError(str(problem)) from problem


def check_weights(weights: Weights, count: Callable[[WeightSpace], int], most: int = LARGEST_BYTES) -> None:
    """Refuse candidates that the server cannot hold or compute.

    Args:
        weights: candidates.
        count: how many parameters a space has.
        most: bytes that their directions may take.

    Raises:
        QueryError: with the numbers.
    """
    together = [count(part.space) for part in weights.parts if part.space.group in TOGETHER]
    unfolded = 4 * len(weights) * sum(together)
    if unfolded > MOST_UNFOLDED:
        raise QueryError(
            f"{len(weights):,} candidates of {sum(together):,} weights take {unfolded:,} bytes; "
            f"{MOST_UNFOLDED:,} are allowed. Ask for fewer candidates at once"
        )
    kept: dict[WeightSpace, int] = {}
    for part in weights.parts:
        if part.streams is None:
            kept[part.space] = 4 * part.space.dim * count(part.space)
        elif part.z.shape[1] > MOST_STEPS:
            raise QueryError(f"a walk of {part.z.shape[1]:,} steps; {MOST_STEPS:,} are allowed")
    if sum(kept.values()) > min(most, LARGEST_BYTES):
        terms, held = sum(space.dim for space in kept), sum(count(space) for space in kept)
        raise QueryError(
            f"{terms:,} directions of {held:,} weights take {sum(kept.values()) / 2**30:,.1f} GiB; "
            f"{min(most, LARGEST_BYTES) / 2**30:.3g} GiB are allowed. Lower dim, name fewer layers, or walk"
        )


def drawn(weights: Weights, count: Callable[[WeightSpace], int]) -> int:
    """Numbers that are drawn for the walks of candidates; none for coordinates, whose directions are kept."""
    walks = [part for part in weights.parts if part.streams is not None]
    return sum(int(np.count_nonzero(part.z)) * count(part.space) for part in walks)
