"""Takes the answers of `tune`, and says what is wrong where it gives them in another way than by `yield`.

It also explains errors that come from what a task lacks: where classes are expected and there are none, a solver ends
in the error of an index or a division, far from the cause.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterable
from pathlib import Path
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from harness.contract import Answer, TextTask
from harness.errors import HarnessError, SubmissionError, TextTaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract import Task

_OF_NOTHING = (ArithmeticError, LookupError, ValueError)
"""Errors in which it ends that there is nothing where something was expected; of numpy and scikit-learn, too."""
_YIELD = "tune is a generator: write `yield answer`, not `return answer`"


def offered(given: Any, offer: Callable[[Any], None], task: Task | TextTask | None = None) -> str:
    """Hand every answer that `tune` yields to `offer`.

    Args:
        given: what the call of `tune` gave.
        offer: takes one answer; it raises for one that breaks the contract.
        task: on which it runs.

    Returns:
        What an author should know of the end: that a returned answer does not count. Usually nothing.

    Raises:
        SubmissionError: `tune` gave no iterator. The message says how to write it.
        TextTaskError: on a text task, an error in `tune` may come from reading label words. That error is its cause.
            One that the submission itself raises, with its own reason, stays what it is.
    """
    try:
        return _offered(given, offer)
    except _OF_NOTHING as problem:
        if isinstance(task, TextTask) and not isinstance(problem, HarnessError) and not _with_a_reason(problem, given):
            said = f"{type(problem).__name__}: {problem}".partition("\n")[0]
            raise TextTaskError(task.name, f"The solver raised {said}, perhaps for want of classes") from problem
        raise


def _offered(given: Any, offer: Callable[[Any], None]) -> str:
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


def _with_a_reason(problem: Exception, given: Any) -> bool:
    """Whether a ``raise`` in the submission's own files has made this error."""
    if not isinstance(given, GeneratorType):
        return False
    last = traceback.extract_tb(problem.__traceback__)[-1]
    own = Path(last.filename).parent == Path(given.gi_code.co_filename).parent
    return own and (last.line or "").startswith("raise")


def _last(given: Generator[Any, None, Any], offer: Callable[[Any], None]) -> Any:
    """Exhaust a generator; the value that it returned."""
    while True:
        try:
            answer = next(given)
        except StopIteration as end:
            return end.value
        offer(answer)
