"""Counts the test texts that a submission queried. No cell gives these texts, so the submission knew them before."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.contract import Examples, Shots, Text


class QueriedTexts:
    """The texts of one cell's answered queries. Only their digests are kept, so long texts take no more memory."""

    def __init__(self, read: Callable[[Text], Text]) -> None:
        """Compare texts after `read` (`harness.lm.reading`)."""
        self._read = read
        self._digests: set[bytes] = set()

    def add(self, texts: Iterable[Text]) -> None:
        """Record texts that were queried."""
        self._digests.update(map(self._digest, texts))

    def of_test(self, test: Examples, shots: Shots) -> int:
        """The number of distinct test texts that were queried and are neither in train nor in dev."""
        given = {self._digest(text) for examples in (shots.train, shots.dev) for text in examples.texts}
        return len({self._digest(text) for text in test.texts} & self._digests - given)

    def _digest(self, text: Text) -> bytes:
        return hashlib.blake2b(json.dumps(self._read(text)).encode(), digest_size=16).digest()
