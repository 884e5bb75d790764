"""How much main memory is left, asked before much is taken: Linux gives more than there is, and kills afterwards."""

from __future__ import annotations

import contextlib
from pathlib import Path

_LARGE = 64 << 20
"""Bytes below which nobody asks."""
_SPARE = 256 << 20
"""Bytes that are left to everything else."""


def available() -> int | None:
    """Bytes that this process could take now; None where the system does not tell.

    The smaller of the machine's free memory and of what the process's control group (version 2) leaves.
    """
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        group = Path("/sys/fs/cgroup") / next(line[3:] for line in own if line.startswith("0::")).lstrip("/")
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        stat = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = next(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
        found.append(limit - used + cached)
    return min(found, default=None)


def require(size: int) -> None:
    """Look for room for `size` bytes before they are taken.

    Raises:
        MemoryError: there is too little, with the numbers.
    """
    if size < _LARGE:
        return
    room = available()
    if room is not None and size + _SPARE > room:
        raise MemoryError(f"{size >> 20:,} MiB are needed at once, and {max(0, room) >> 20:,} MiB are free")
