"""How a submission with its options is named on the command line of `harness leaks`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.sandbox.submission import entry_name, find

if TYPE_CHECKING:
    from harness.sandbox.submission import Submission


@dataclass(frozen=True)
class Solver:
    """A submission with its options."""

    submission: Submission
    options: dict[str, str]

    @property
    def name(self) -> str:
        """As the leaderboard shows it."""
        return entry_name(self.submission.name, self.options)


def solver(text: str) -> Solver:
    """Read ``FOLDER`` or ``FOLDER:NAME=VALUE,...``; a name alone is a folder of ``submissions``.

    Raises:
        InputError: there is no such submission, or an option has no value.
    """
    folder, _, options = text.partition(":")
    path = Path(folder) if Path(folder).is_dir() else Path("submissions") / folder
    given = {}
    for item in filter(None, options.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--solver {text}: FOLDER:NAME=VALUE,NAME=VALUE expected, and {item!r} has no value")
        given[name] = value
    return Solver(find(path), given)
