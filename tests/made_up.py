"""Facts made up for tests of what reads and writes them; needs no torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.results.records import RunKey


def key(entry: str = "entry", **changes: Any) -> RunKey:
    """What identifies a run."""
    made = RunKey(entry, "s", (), "tiny", "f", 1, "m", "m256", "embedded", "d", "cpu", 0, "e")
    return dataclasses.replace(made, **changes)
