"""Queries about text: one `TextQuery` from a submission's call to the model's answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness.blackbox.query import Query, string_of, words_of
from harness.contract import Weights
from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.blackbox.text_model import Decoding
    from harness.contract import Prompts, SoftPrompts, Text

NO_WEIGHTS = "candidates change weights, and on a text task they are soft prompts; tasks with classes take both"


@dataclass(frozen=True)
class TextQuery:
    """What a `TextBlackBox` is asked: `score` if there are targets, and `generate` if there is a way to decode."""

    query: Query
    """Texts, template and prompts. It has no words."""
    targets: tuple[str, ...] = ()
    how: Decoding | None = None

    @classmethod
    def score(
        cls, prompts: SoftPrompts | None, texts: Sequence[Text | str], targets: Sequence[str], template: str | None
    ) -> Self:
        """Make a query of the arguments of `TextBlackBox.score`.

        Raises:
            QueryError: something is not of its type, candidates change weights, or there is not one target for each
                text.
        """
        query, given = Query.of(only_soft(prompts), texts, template, None, None, normalize=False), words_of(targets)
        if len(given) != len(query.texts):
            raise QueryError(f"{len(given)} targets for {len(query.texts)} texts; one for each is needed")
        return cls(query, given)

    @classmethod
    def generate(
        cls, prompts: SoftPrompts | None, texts: Sequence[Text | str], template: str | None, how: Decoding
    ) -> Self:
        """Make a query of the arguments of `TextBlackBox.generate`.

        Raises:
            QueryError: something is not of its type, or candidates change weights.
        """
        for stop in how.stop:
            string_of(stop)
        if not math.isfinite(how.temperature):
            raise QueryError(f"temperature {how.temperature}; a finite number of at least 0 is needed")
        return cls(Query.of(only_soft(prompts), texts, template, None, None, normalize=False), how=how)


def only_soft(prompts: Prompts | None) -> SoftPrompts | None:
    """The candidates of a query about text: soft prompts, or none.

    Raises:
        QueryError: they change weights.
    """
    if isinstance(prompts, Weights):
        raise QueryError(NO_WEIGHTS)
    return prompts
