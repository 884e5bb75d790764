"""What a cell's queries were given, without repetitions: the fact from which its share of the model is computed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """Counts over all answered queries of a cell."""

    words: int = 0
    """Different words whose logits were given."""
    texts: int = 0
    rows: int = 0
    """Different rows: template, text and prompt. Counting ends at 16,384."""
    normalised: bool = False
    """Whether log-probabilities among the whole vocabulary were given."""
    states: bool = False
    """Whether hidden states were given."""

    def rank(self, width: int) -> int:
        """Most dimensions of the last layer that the returned numbers show, of `width` that it has."""
        return min(self.rows, self.dimensions(width), width)

    def dimensions(self, width: int = 0) -> int:
        """Words, a normalisation as one more, and hidden states as so many as they are wide."""
        return self.words + self.normalised + (width if self.states else 0)
