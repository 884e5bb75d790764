"""Takes the answers of `tune`, and says what is wrong where it gives them in another way than by `yield`."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from harness.contract import Answer
from harness.errors import SubmissionError

if TYPE_CHECKING:
    from collections.abc import Callable

_YIELD = "tune is a generator: write `yield answer`, not `return answer`"


def offered(given: Any, offer: Callable[[Any], None]) -> str:
    """Hand every answer that `tune` yields to `offer`.

    Args:
        given: what the call of `tune` gave.
        offer: takes one answer; it raises for one that breaks the contract.

    Returns:
        What an author should know of the end: that a returned answer does not count. Usually nothing.

    Raises:
        SubmissionError: `tune` gave no iterator. The message says how to write it.
    """
    if isinstance(given, Generator):
        ended = _last(given, offer)
        if isinstance(ended, Answer):
            return f"tune returned an Answer at its end, which does not count. {_YIELD}"
        return ""
    if given is None:
        raise SubmissionError(f"tune returned None: there is no `yield` in it. {_YIELD}")
    if isinstance(given, Answer) or not isinstance(given, Iterable):
        raise SubmissionError(f"tune returned {type(given).__name__}. {_YIELD}")
    for answer in given:
        offer(answer)
    return ""


def _last(given: Generator[Any, None, Any], offer: Callable[[Any], None]) -> Any:
    """Exhaust a generator; the value that it returned."""
    while True:
        try:
            answer = next(given)
        except StopIteration as end:
            return end.value
        offer(answer)
