"""Which texts of a test set a submission asked about. No cell gives them, so it knew them from elsewhere."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.contract import Examples, Shots, Text


class QueriedTexts:
    """The texts of one cell's answered queries, kept as digests: however long they are, they take no room."""

    def __init__(self, read: Callable[[Text], Text]) -> None:
        """Compare texts as `read` gives them (`harness.lm.reading`)."""
        self._read = read
        self._digests: set[bytes] = set()

    def add(self, texts: Iterable[Text]) -> None:
        """Take note of texts that were queried."""
        self._digests.update(map(self._digest, texts))

    def of_test(self, test: Examples, shots: Shots) -> int:
        """The number of different texts of the test set that were queried and are neither in train nor in dev."""
        given = {self._digest(text) for examples in (shots.train, shots.dev) for text in examples.texts}
        return len({self._digest(text) for text in test.texts} & self._digests - given)

    def _digest(self, text: Text) -> bytes:
        return hashlib.blake2b(json.dumps(self._read(text)).encode(), digest_size=16).digest()
