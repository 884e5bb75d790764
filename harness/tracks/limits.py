"""The ``[limits]`` table of a track: what a worker and its answers may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(gt=0)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


@dataclass(frozen=True)
class AnswerLimits:
    """What the answers of one cell may cost the referee; `Limits` says where the numbers come from."""

    seconds: float
    """In which all kept answers are applied to the test set."""
    tokens: int = 8192
    """That one answer reads of the model for each test text, over all its members."""
    projection_bytes: int = 6 << 30
    """Of the projections that one answer's subspaces unfold to."""
    head_bytes: int = 64 << 20
    """Of the heads of one answer."""
    kept_bytes: int = 256 << 20
    """Of all answers that are kept, one for each mark."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one worker may use in one cell, and what its answers may cost the referee.

    The keys of the latter are not in the shipped tracks and not in the fingerprint of a track without them:
    `AnswerLimits` has the values that hold then.
    """

    wall_s: Amount
    memory_gb: Amount
    answer_mb: Positive = 64
    frame_mb: Positive = 64
    output_kb: Positive = 64
    open_files: Positive = 64
    test_s: Amount | msgspec.UnsetType = msgspec.UNSET
    """Seconds in which the kept answers of a cell are applied to the test set; without the key `wall_s`."""
    test_tokens: Positive | msgspec.UnsetType = msgspec.UNSET
    """Tokens that one answer may read for each test text."""
    projection_mb: Positive | msgspec.UnsetType = msgspec.UNSET
    head_mb: Positive | msgspec.UnsetType = msgspec.UNSET
    kept_mb: Positive | msgspec.UnsetType = msgspec.UNSET
    """MiB of all answers that are kept of a cell."""

    @property
    def answers(self) -> AnswerLimits:
        """What the answers of one cell may cost, with the values that hold where the track has no key."""
        given: dict[str, int] = {}
        for name, key, unit in (
            ("tokens", self.test_tokens, 1),
            ("projection_bytes", self.projection_mb, 1 << 20),
            ("head_bytes", self.head_mb, 1 << 20),
            ("kept_bytes", self.kept_mb, 1 << 20),
        ):
            if key is not msgspec.UNSET:
                given[name] = key * unit
        return AnswerLimits(self.wall_s if self.test_s is msgspec.UNSET else self.test_s, **given)
