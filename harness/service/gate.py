"""Whether a competition takes a query or an answer now: its dates, and the attempts of a team on a day.

An attempt on the service is a token that begins: its first query or answer on the track. Teams with several tokens have
several attempts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.service.spending import begun
from harness.tracks.competition import Competition, day_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.service.accounts import Account, Accounts
    from harness.service.tokens import Token


@dataclass(frozen=True)
class Gate:
    """The rules of one competition."""

    competition: Competition = Competition()  # noqa: RUF009 - a frozen value
    clock: Callable[[], float] = time.time
    """Unix seconds."""

    def refusal(self, token: Token, account: Account, book: Accounts) -> str | None:
        """Why nothing is taken of a token; None if it may go on.

        Args:
            token: who asks.
            account: of the token, on the cell that it asks about.
            book: what tokens have done.
        """
        now = self.clock()
        closed = self.competition.refusal(now)
        if closed or self.competition.attempts_per_day is None:
            return closed
        if account.queries:  # it has begun, and nothing of the others matters: the usual case, without a look at them
            return None
        started = begun(book, account.track.partition(" ")[0])
        if token.name in started:
            return None
        own = {each.name for each in book.tokens() if each.team == token.team}
        today = sum(moment >= day_start(now) for name, moment in started.items() if name in own)
        try:
            self.competition.check_attempts(f"team {token.team}", today)
        except InputError as problem:
            return str(problem)
        return None
