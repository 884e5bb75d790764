"""Limits on the size of a request. They are checked before any work is done, so no request can hurt the referee."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from harness.errors import ProtocolError, QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.blackbox.query import Query
    from harness.contract import Text

LONGEST_TEXT = 20_000
"""Characters of one field of a text that a model reads; what is longer is cut there, whoever asks about it."""
LONGEST_TEMPLATE = 4096
MOST_WORDS = 1 << 18
"""More words than any vocabulary has."""
LONGEST_WORD = 256
MOST_CHARACTERS, TEXT_OVERHEAD = 64 << 20, 64
"""Most characters in all texts that one solver may declare, and the overhead with which each text counts."""
LARGEST_CONFIG = 64 << 10
MOST_LOGGED, LONGEST_LOGGED = 16, 32
"""Numbers that are logged at once, and characters of their names."""
LARGEST_PROMPTS = 1 << 30
"""Largest size in bytes of the prompts of one query, after projection."""


def check_config(config: dict[str, Any]) -> None:
    """Check that a configuration is plain data and small, as it is stored in the results as JSON.

    Raises:
        ProtocolError: it is not plain data, or too large.
    """
    try:
        size = len(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as problem:
        raise ProtocolError(f"the configuration is not plain data: {problem}") from problem
    if size > LARGEST_CONFIG:
        raise ProtocolError(f"the configuration has {size:,} bytes; {LARGEST_CONFIG:,} are allowed")


def as_read(text: Text) -> Text:
    """A text as a model reads it, each field cut after `LONGEST_TEXT` characters.

    The cut is made where texts become tokens, so that it is the same for a query, a test text and `harness predict`.
    """
    return tuple(field[:LONGEST_TEXT] for field in text)


def check_texts(texts: Sequence[Text], fields: int) -> None:
    """Every text has the task's fields.

    Raises:
        QueryError: a text is not allowed. The message gives the numbers.
    """
    for text in texts:
        if len(text) != fields:
            raise QueryError(f"a text of {len(text)} fields; {fields} expected")


def check_words(words: Sequence[str]) -> None:
    """Check the number of words and that none is too long.

    Raises:
        QueryError: a limit is exceeded. The message gives the numbers.
    """
    if not 1 <= len(words) <= MOST_WORDS:
        raise QueryError(f"{len(words):,} words; 1 to {MOST_WORDS:,} are allowed")
    longest = max(map(len, words))
    if longest > LONGEST_WORD:
        raise QueryError(f"a word has {longest:,} characters; {LONGEST_WORD} are allowed")


def check_targets(targets: Sequence[str]) -> None:
    """Check that no target is longer than a text is read, so that few rows cannot ask for endless tokenising.

    Raises:
        QueryError: one is. The message gives the numbers.
    """
    longest = max(map(len, targets), default=0)
    if longest > LONGEST_TEXT:
        raise QueryError(f"a target has {longest:,} characters; {LONGEST_TEXT:,} are allowed")


def check_log(numbers: Mapping[str, float]) -> None:
    """Few finite numbers with short names.

    Raises:
        QueryError: with the numbers.
    """
    if not 1 <= len(numbers) <= MOST_LOGGED:
        raise QueryError(f"{len(numbers):,} numbers to log; 1 to {MOST_LOGGED} are allowed at once")
    for name, value in numbers.items():
        if not name.isidentifier() or len(name) > LONGEST_LOGGED:
            raise QueryError(f"{name[:LONGEST_LOGGED]!r} cannot be logged; a name of up to {LONGEST_LOGGED} letters")
        if not math.isfinite(value):
            raise QueryError(f"{name} = {value} cannot be logged; a finite number is expected")


def check_wording(template: str, words: Sequence[str]) -> None:
    """Check the words, and that the template is not too long.

    Raises:
        QueryError: a limit is exceeded. The message gives the numbers.
    """
    check_words(words)
    check_template(template)


def check_template(template: str) -> None:
    """Check that the template is not too long.

    Raises:
        QueryError: with the numbers.
    """
    if len(template) > LONGEST_TEMPLATE:
        raise QueryError(f"the template has {len(template):,} characters; {LONGEST_TEMPLATE:,} are allowed")


def check_characters(texts: Sequence[Text], declared: int) -> int:
    """Check that texts fit into memory beside `declared` characters; return their size, with overhead, in characters.

    Raises:
        QueryError: they do not fit. The message gives the numbers.
    """
    characters = sum(TEXT_OVERHEAD + sum(map(len, text)) for text in texts)
    most = MOST_CHARACTERS - declared
    if characters > most:
        raise QueryError(f"the texts have {characters:,} characters; {most:,} may still be declared. Reuse text sets")
    return characters


def check_size(query: Query, words: int, width: int, tokens: int, reply_bytes: int) -> None:
    """Check that the reply fits into a frame and that the projected prompts fit into memory.

    `words` is the number of words asked about. `width` and `tokens` are the model's: a reply with the states of all
    tokens is priced as if its texts were of the greatest length.

    Raises:
        QueryError: something is too large. The message gives the numbers.
    """
    states = {None: 0, "mask": 1, "cls": 1, "all": tokens}[query.features]
    reply = 4 * query.candidates * len(query.texts) * (words + states * width)
    if reply > reply_bytes:
        raise QueryError(
            f"the reply would have {reply:,} bytes; {reply_bytes:,} are allowed. Ask for fewer rows at once"
        )
    unfolded = 4 * query.candidates * query.prompt_layers * query.prompt_tokens * width
    if unfolded > LARGEST_PROMPTS:
        raise QueryError(
            f"the prompts have {unfolded:,} bytes; {LARGEST_PROMPTS:,} are allowed. Ask for fewer candidates at once"
        )
