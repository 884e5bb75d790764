"""A token bucket, which limits how often one client may ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Bucket:
    """Allows `burst` requests at once and `per_s` per second in the long run. Times are those of a monotonic clock."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        """Start with a full bucket."""
        self._full_s = -float("inf")  # when the bucket is full again, if nothing is taken

    def take(self, now_s: float) -> float:
        """Take one and return 0, or take nothing and return the seconds until one is available."""
        full_s = max(self._full_s, now_s) + 1 / self.per_s
        wait_s = full_s - now_s - self.burst / self.per_s
        if wait_s > 1e-9:  # noqa: PLR2004 - rounding
            return wait_s
        self._full_s = full_s
        return 0.0
