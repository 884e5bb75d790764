"""Changes of weights as they travel and are stored, and the limits on them. Needs no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.blackbox.projection import LARGEST_BYTES
from harness.contract import FloatArray, Prompts, SoftPrompts, Weights, WeightSpace
from harness.errors import QueryError

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


def streams_packed(weights: Weights) -> bytes | None:
    """The streams of walks as little-endian words, row by row; None for coordinates."""
    return None if weights.streams is None else np.ascontiguousarray(weights.streams, dtype="<u4").tobytes()


def weights_of(space: WeightSpace, z: FloatArray, streams: bytes | None, prompts: SoftPrompts | None) -> Weights:
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
        return Weights(space, z, found, prompts)
    except ValueError as problem:
        raise QueryError(str(problem)) from problem


def check_weights(weights: Weights, parameters: int, most: int = LARGEST_BYTES) -> None:
    """Refuse candidates that the server cannot hold or compute.

    Args:
        weights: candidates.
        parameters: how many their group has.
        most: bytes that their directions may take.

    Raises:
        QueryError: with the numbers.
    """
    terms, most = weights.z.shape[1], min(most, LARGEST_BYTES)
    if weights.streams is None and 4 * terms * parameters > most:
        raise QueryError(
            f"{terms:,} directions of {parameters:,} weights take {4 * terms * parameters / 2**30:,.1f} GiB; "
            f"{most / 2**30:.3g} GiB are allowed. Lower dim, name fewer layers, or walk"
        )
    if weights.streams is not None and terms > MOST_STEPS:
        raise QueryError(f"a walk of {terms:,} steps; {MOST_STEPS:,} are allowed")
    if weights.space.group in TOGETHER and 4 * len(weights) * parameters > MOST_UNFOLDED:
        raise QueryError(
            f"{len(weights):,} candidates of {parameters:,} weights take {4 * len(weights) * parameters:,} bytes; "
            f"{MOST_UNFOLDED:,} are allowed. Ask for fewer candidates at once"
        )


def drawn(weights: Weights, parameters: int) -> int:
    """Numbers that are drawn for the walks of candidates; 0 for coordinates, whose directions are kept."""
    return 0 if weights.streams is None else int(np.count_nonzero(weights.z)) * parameters
