"""Queries about text: one `TextQuery` from a submission's call to the model's answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness.blackbox.query import Query, string_of, words_of
from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.blackbox.text_model import Decoding
    from harness.contract import Prompts, Text


@dataclass(frozen=True)
class TextQuery:
    """What a `TextBlackBox` is asked: `score` if there are targets, and `generate` if there is a way to decode."""

    query: Query
    """Texts, template and prompts. It has no words."""
    targets: tuple[str, ...] = ()
    how: Decoding | None = None

    @classmethod
    def score(
        cls, prompts: Prompts | None, texts: Sequence[Text | str], targets: Sequence[str], template: str | None
    ) -> Self:
        """Make a query of the arguments of `TextBlackBox.score`.

        Raises:
            QueryError: something is not of its type, or there is not one target for each text.
        """
        query, given = Query.of(prompts, texts, template, None, None, normalize=False), words_of(targets)
        if len(given) != len(query.texts):
            raise QueryError(f"{len(given)} targets for {len(query.texts)} texts; one for each is needed")
        return cls(query, given)

    @classmethod
    def generate(
        cls, prompts: Prompts | None, texts: Sequence[Text | str], template: str | None, how: Decoding
    ) -> Self:
        """Make a query of the arguments of `TextBlackBox.generate`.

        Raises:
            QueryError: something is not of its type.
        """
        for stop in how.stop:
            string_of(stop)
        if not math.isfinite(how.temperature):
            raise QueryError(f"temperature {how.temperature}; a finite number of at least 0 is needed")
        return cls(Query.of(prompts, texts, template, None, None, normalize=False), how=how)
