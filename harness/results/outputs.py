"""What the answers of a text task wrote, as it is stored with a cell. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Outputs:
    """What the answers of a cell wrote after the texts of the test set, in its order."""

    texts: tuple[tuple[str, ...], ...] = ()
    """Of each distinct answer one text for each test text, cut by the task's stops."""
    marks: tuple[tuple[float, int], ...] = ()
    """Of each mark the number of its answer in `texts`."""

    @classmethod
    def of(cls, kept: Iterable[tuple[float, tuple[str, ...] | None]]) -> Self | None:
        """Those of some marks; None where they are no texts."""
        written = [(mark, texts) for mark, texts in kept if texts is not None]
        numbers = {texts: n for n, texts in enumerate(dict.fromkeys(texts for _, texts in written))}
        marks = tuple((mark, numbers[texts]) for mark, texts in written)
        return cls(tuple(numbers), marks) if numbers else None

    def at(self, mark: float) -> tuple[str, ...] | None:
        """The texts of the answer at a mark; None if there was none."""
        found = dict(self.marks).get(mark)
        return None if found is None else self.texts[found]
