"""The ``[prices]`` table of a track: money beside the other costs."""

from __future__ import annotations

from typing import Annotated

import msgspec

Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a service like the track's would charge: money beside the other costs, never part of a score.

    Each price is in units of `currency`; a price of 0 charges nothing.
    """

    currency: str
    """As people write it, e.g. ``USD``."""
    per_call: Price = 0.0
    per_million_tokens: Price = 0.0
    """Tokens that the model reads."""
    per_million_received: Price = 0.0
    """Tokens that a served model generates."""
    per_gb: Price = 0.0
    """10^9 bytes, both ways."""
    per_hour: Price = 0.0
    """Hours of tuning."""

    def cost(self, calls: float, tokens: float, traffic: float, seconds: float, received: float = 0.0) -> float:
        """What so many calls, tokens read, bytes, seconds and tokens generated cost."""
        by_use = calls * self.per_call + tokens / 1e6 * self.per_million_tokens
        by_use += received / 1e6 * self.per_million_received
        return by_use + traffic / 1e9 * self.per_gb + seconds / 3600 * self.per_hour
