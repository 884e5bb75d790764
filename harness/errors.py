"""All errors that this project raises, as one tree.

    HarnessError
    ├── InputError            something given by a person is wrong: a file, an option, a name
    │   ├── TrackError        a track file
    │   ├── TaskError         a task file
    │   ├── DataError         examples: a missing split, a wrong column, an unknown label
    │   ├── SubmissionError   a submission folder that cannot be loaded
    │   └── AnswerError       an Answer that cannot be read or applied
    ├── FetchError            a model or data set that is neither staged nor to be had
    ├── ModelError            a language model that cannot be loaded or does not fit the request
    │   ├── DeviceMemoryError the device has too little memory for it
    │   └── NoWeightsError    weights that the model does not have
    ├── QueryError            a query that is not valid; it costs nothing
    │   └── TextTaskError     on a task whose answer is text, something that only classes have
    ├── BudgetExhausted       a query that does not fit into what is left; it costs nothing
    ├── ProtocolError         the other side of the socket does not keep to the wire format
    ├── SandboxError          an isolation that this machine cannot give, or that does not hold
    ├── StoreError            a results database that cannot be used
    ├── EngineError           a cluster that cannot run cells, or lost some of them again and again
    └── ServiceError          a service that does not answer, or not as one

Each message gives the fact, the numbers and the next step. The command line prints the message
alone; `BudgetExhausted` also carries its numbers as attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error this project raises on purpose."""


class InputError(HarnessError):
    """Something given by a person is wrong."""


class TrackError(InputError):
    """A track file is missing or malformed."""


class TaskError(InputError):
    """A task file is missing or malformed."""


class DataError(InputError):
    """Examples are missing or malformed."""


class SubmissionError(InputError):
    """A submission folder cannot be loaded."""


class AnswerError(InputError):
    """An answer cannot be read, is too large, or does not fit the task."""


class FetchError(HarnessError):
    """A model or data set cannot be fetched, or the staged copy is not complete."""


class ModelError(HarnessError):
    """A language model cannot be loaded, or does not fit the request."""


class DeviceMemoryError(ModelError):
    """The device has too little memory for the computation. Nothing was retried in smaller parts."""


class NoWeightsError(ModelError, ValueError):
    """The model has no weights of a group. It is a `ValueError`, too, as the contract has always said."""


class QueryError(HarnessError):
    """A query is malformed. It was not charged."""


class TextTaskError(QueryError):
    """A solver needs classes, and the answer of its task is text: there are no label words to read or to hand over."""

    def __init__(self, task: str, fact: str) -> None:
        """Say what happened, and on which task."""
        super().__init__(
            f"{fact}. Task {task} is a text task, without classes and label words; docs/text.md says which submissions "
            "run there, and what else to ask"
        )


class ProtocolError(HarnessError):
    """A frame on the socket breaks the wire format."""


class SandboxError(HarnessError):
    """A worker cannot be isolated as asked, or a canary in it escaped."""


class StoreError(HarnessError):
    """A results database cannot be opened, written or trusted."""


class EngineError(HarnessError):
    """A cluster cannot run cells, or lost some of them again and again."""


class ServiceError(HarnessError):
    """A remote service does not answer, or its reply is not that of a service."""


class BudgetExhausted(HarnessError):  # noqa: N818 - reads as the fact it states; caught by name in submissions
    """A query is larger than what is left of the budget. It was not charged.

    Attributes:
        rows_asked: rows the refused query would have cost.
        rows_left: rows left, unchanged by the refusal.
        rows_total: the whole budget.
    """

    def __init__(self, rows_asked: int, rows_left: int, rows_total: int) -> None:
        """Keep the three numbers; the message is made from them."""
        super().__init__(
            f"{rows_asked:,} rows asked, {rows_left:,} of {rows_total:,} left; "
            "yield an answer before the budget ends, or ask for fewer rows"
        )
        self.rows_asked = rows_asked
        self.rows_left = rows_left
        self.rows_total = rows_total


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 cell``, ``1,200 cells``. `many` is a plural that does not just add an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """For a message about a name that is not known: `` (did you mean 'sst2'?)``, or nothing if none is alike.

    Args:
        name: as it was given.
        known: the names that there are.

    Returns:
        The words with a space before them, so that they can follow the name in any sentence.
    """
    import difflib  # noqa: PLC0415 - a worker imports this module, and needs no such thing

    names = sorted(set(known))
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=3, cutoff=0.6)
    alike = [each for low in close for each in names if each.lower() == low]
    return f" (did you mean {' or '.join(map(repr, dict.fromkeys(alike)))}?)" if alike else ""
