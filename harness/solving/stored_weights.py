"""A change of weights in a stored answer: its space and the streams of its walk, as JSON beside the array."""

from __future__ import annotations

import msgspec
import numpy as np

from harness.contract import FloatArray, SoftPrompts, Weights, WeightSpace


class StoredSpace(WeightSpace, frozen=True, forbid_unknown_fields=True):
    """The space of one candidate, and the streams of its walk; without any, its array holds coordinates."""

    streams: tuple[int, ...] | None = None

    @classmethod
    def of(cls, weights: Weights) -> StoredSpace:
        """Pack the space of exactly one candidate, which is no sum.

        Raises:
            ValueError: there are several candidates.
        """
        if len(weights.z) != 1:
            raise ValueError(f"{len(weights.z)} weight candidates; exactly 1 is needed")
        streams = None if weights.streams is None else tuple(map(int, weights.streams[0]))
        return cls(**msgspec.structs.asdict(weights.space), streams=streams)

    def weights(self, z: FloatArray, prompts: SoftPrompts | None, more: tuple[Weights, ...] = ()) -> Weights:
        """The candidate whose coordinates or coefficients are z (1, dim or steps), with further changes beside it.

        Raises:
            ValueError: the parts do not fit each other, or a stream is none.
        """
        fields = msgspec.structs.asdict(self)
        streams = fields.pop("streams")
        space = WeightSpace(**fields)
        if streams is None:
            return Weights(space, z, None, prompts, more)
        if not all(0 <= stream < 2**32 for stream in streams):
            raise ValueError("a stream of a walk is not from 0 to 2**32 - 1")
        return Weights(space, z, np.array([streams], dtype=np.uint32), prompts, more)
