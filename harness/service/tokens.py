"""Tokens: the identities of the service's clients."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MOST_CALLS = 1_000_000
"""Largest number of calls of one token in each cell."""


@dataclass(frozen=True)
class Token:
    """The identity of a client. The secret itself is not stored."""

    name: str
    calls: int | None
    created: float
    revoked: float | None
    team: str
    """Whose it is. A token that was made without a team is a team of its own."""
    expires: float | None = None
    """Unix seconds from which it gives no access; None means never."""

    def valid(self, now: float) -> bool:
        """Whether it gives access at `now`, in Unix seconds."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True)
class NewToken:
    """A token to be made; see `Accounts.new_token`."""

    name: str
    calls: int | None = None
    expires: float | None = None
    team: str | None = None

    def check(self) -> None:
        """Refuse what cannot be made.

        Raises:
            InputError: the name cannot be one, or `calls` are not positive or too many.
        """
        if not NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} cannot be a token's name; letters, digits, '-' and '_', up to 64")
        if self.calls is not None and self.calls <= 0:
            raise InputError(f"--calls {self.calls}: a positive number of calls is needed")
        if self.calls is not None and self.calls > _MOST_CALLS:
            raise InputError(f"--calls {self.calls:,}: at most {_MOST_CALLS:,} calls can be given to a token")
