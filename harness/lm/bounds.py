"""How much one request may ask for: checked before any work is done for it, so that no request can hurt the referee."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.contract import Prompt
from harness.errors import BudgetExhausted, ProtocolError, QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Budget, Prompts, Text
    from harness.lm.wire import Query

LONGEST_TEXT = 20_000
LONGEST_TEMPLATE = 4096
MOST_WORDS = 1 << 18
"""More than any vocabulary has."""
LONGEST_WORD = 256
LARGEST_CONFIG = 64 << 10
LARGEST_PROMPTS = 1 << 30
"""Bytes that the prompts of one query may unfold to."""


def check_config(config: dict[str, Any]) -> None:
    """A configuration goes into the results as JSON: plain data, and little of it.

    Raises:
        ProtocolError: it is not.
    """
    try:
        size = len(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as problem:
        raise ProtocolError(f"the configuration is not plain data: {problem}") from problem
    if size > LARGEST_CONFIG:
        raise ProtocolError(f"configuration of {size:,} bytes; {LARGEST_CONFIG:,} are allowed")


def check_texts(texts: Sequence[Text], fields: int) -> None:
    """Every text has the task's fields, none too long.

    Raises:
        QueryError: with the numbers.
    """
    for text in texts:
        longest = max(map(len, text), default=0)
        if len(text) != fields or longest > LONGEST_TEXT:
            raise QueryError(
                f"a text of {len(text)} fields, the longest of {longest:,} characters; "
                f"{fields} of at most {LONGEST_TEXT:,} expected"
            )


def check_words(words: Sequence[str]) -> None:
    """Some words, none too long.

    Raises:
        QueryError: with the numbers.
    """
    if not 1 <= len(words) <= MOST_WORDS:
        raise QueryError(f"{len(words):,} words; 1 to {MOST_WORDS:,} are allowed")
    longest = max(map(len, words))
    if longest > LONGEST_WORD:
        raise QueryError(f"a word of {longest:,} characters; {LONGEST_WORD} are allowed")


def check_wording(template: str, words: Sequence[str]) -> None:
    """Words, and a template that is not too long.

    Raises:
        QueryError: with the numbers.
    """
    check_words(words)
    if len(template) > LONGEST_TEMPLATE:
        raise QueryError(f"template of {len(template):,} characters; {LONGEST_TEMPLATE:,} are allowed")


def check_size(
    query: Query, prompts: Prompts | None, texts: int, budget: Budget, width: int, tokens: int, reply_bytes: int
) -> int:
    """Rows fit into the budget, the reply into a frame, the unfolded prompts into memory; return the candidates.

    `width` and `tokens` are the model's: a reply with the states of all tokens is taken to be of the longest texts.

    Raises:
        BudgetExhausted: as the meter would, before the texts are even tokenised.
        QueryError: with the numbers.
    """
    candidates = 1 if prompts is None else len(prompts)
    rows = candidates * texts
    if rows > budget.rows_left:
        raise BudgetExhausted(rows, budget.rows_left, budget.rows_total)
    states = {None: 0, "mask": 1, "cls": 1, "all": tokens}[query.features]
    reply = 4 * rows * (len(query.words) + states * width)
    if reply > reply_bytes:
        raise QueryError(f"a reply of {reply:,} bytes; {reply_bytes:,} are allowed. Ask for fewer rows at once")
    unfolded = 4 * candidates * prompt_layers(prompts) * prompt_tokens(prompts) * width
    if unfolded > LARGEST_PROMPTS:
        raise QueryError(
            f"prompts of {unfolded:,} bytes; {LARGEST_PROMPTS:,} are allowed. Ask for fewer candidates at once"
        )
    return candidates


def prompt_layers(prompts: Prompts | None) -> int:
    """Layers that get a prompt."""
    if prompts is None:
        return 0
    return int(prompts.values.shape[1]) if isinstance(prompts, Prompt) else prompts.space.layers


def prompt_tokens(prompts: Prompts | None) -> int:
    """Prompt tokens of one candidate."""
    if prompts is None:
        return 0
    return int(prompts.values.shape[2]) if isinstance(prompts, Prompt) else prompts.space.tokens


def level(query: Query, prompts: Prompts | None) -> int:
    """Access level of a query: 0 text and logits, 1 input prompts, 2 deep prompts, 3 hidden states."""
    return 3 if query.features is not None else min(prompt_layers(prompts), 2)
