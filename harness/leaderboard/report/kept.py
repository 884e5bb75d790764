"""What earlier reports computed from an entry alone, kept in a folder, so that a new entry is all that is computed.

A value is found by a digest of everything that decides it: the entry's stored cells, the other facts that it is made
from, and the source of this program. So an old value is never taken for a new one, and the folder can be removed at
any time. Values that no report has used for `UNUSED_DAYS` are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
SOURCE = Path(__file__).resolve().parents[2]
"""The package."""
ROOMS = ("contract", "leaderboard", "results", "solving", "tracks")
"""Folders whose sources decide what a report shows."""
UNUSED_DAYS = 30


class Kept:
    """A folder of computed values; without a folder, everything is computed anew."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.computed: Counter[str] = Counter()
        """How many values of each kind were computed anew."""

    def value(self, kind: str, facts: tuple[Any, ...], type_: Any, make: Callable[[], T]) -> T:
        """The value that was made of these facts before, or a new one.

        Args:
            kind: what it is, a word.
            facts: all that decides it, beside the program.
            type_: its type, as msgspec decodes it.
            make: computes it.
        """
        if self._folder is None:
            self.computed[kind] += 1
            return make()
        digest = hashlib.sha256(repr((program(), kind, facts)).encode()).hexdigest()
        path = self._folder / kind / digest
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            found: T = msgspec.msgpack.decode(path.read_bytes(), type=type_)
            os.utime(path)
            return found
        self.computed[kind] += 1
        made = make()
        with contextlib.suppress(OSError):  # a full disk costs time and not the report
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{digest}.{os.getpid()}")
            beside.write_bytes(msgspec.msgpack.encode(made))
            beside.replace(path)
        return made

    def tidy(self) -> None:
        """Remove what was not used for a long time."""
        oldest = time.time() - UNUSED_DAYS * 86_400
        for path in self._folder.glob("*/*") if self._folder else ():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


@cache
def program() -> str:
    """Digest of the sources that decide what a report shows."""
    digest = hashlib.sha256(np.__version__.encode())
    for room in ROOMS:
        for path in sorted((SOURCE / room).rglob("*")):
            if path.suffix in {".py", ".html", ".toml"}:
                digest.update(path.relative_to(SOURCE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
