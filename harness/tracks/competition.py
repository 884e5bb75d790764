"""The ``[competition]`` table of a track: when it is open, how often a team may try, and what is public until the end.

It changes no score and is in no fingerprint, so an organiser may move a date while runs are stored. Every moment has an
offset from UTC, and a day is one of UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

import msgspec

from harness.errors import InputError, counted
from harness.tracks.limits import Positive  # noqa: TC001 - msgspec reads the types

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Public: TypeAlias = Literal["scores", "ranks", "nothing"]
"""What the leaderboard shows: everything, the order of the entries without any score, or no entry at all."""
DAY_S = 24 * 60 * 60


class Competition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dates and limits. Without a key there is no such date or limit."""

    opens: Moment | None = None
    """Before it, `harness serve` answers no query and `harness score` takes no archive."""
    closes: Moment | None = None
    """From then on they take nothing any more, and the leaderboard shows everything."""
    attempts_per_day: Positive | None = None
    """Most archives of predictions that `harness score` takes of a team on one day, and most tokens of the service with
    which a team may begin on one day."""
    public: Public = "scores"
    """What is shown until the competition closes."""

    def problems(self) -> list[tuple[list[str], str]]:
        """Each broken rule as (keys, message)."""
        found = []
        if self.opens and self.closes and self.closes <= self.opens:
            found.append((["closes"], f"it closes at {shown(self.closes)}, before it opens at {shown(self.opens)}"))
        if self.public != "scores" and not self.closes:
            message = f'public = "{self.public}" keeps scores back until the end, and there is no `closes`; add it'
            found.append((["public"], message))
        return found

    def refusal(self, now: float | None = None) -> str | None:
        """Why nothing is taken at this moment; None if it is open.

        Args:
            now: Unix seconds; None is the present.
        """
        present = _moment(now)
        if self.opens and present < self.opens:
            return f"the competition opens at {shown(self.opens)}, in {_until(self.opens, present)}"
        if self.closes and present >= self.closes:
            return f"the competition closed at {shown(self.closes)}"
        return None

    def public_at(self, now: float | None = None) -> Public:
        """What may be shown at this moment: everything after the end."""
        return "scores" if self.closes and _moment(now) >= self.closes else self.public

    def check_attempts(self, team: str, today: int) -> None:
        """Refuse one attempt more than a team may have on a day.

        Args:
            team: for the message.
            today: how many it has had since the day began.

        Raises:
            InputError: it has had all of them.
        """
        if self.attempts_per_day is not None and today >= self.attempts_per_day:
            raise InputError(
                f"{team} has had {counted(today, 'attempt')} today, and the track allows {self.attempts_per_day:,} a "
                "day; the next day begins at 00:00 UTC"
            )

    def lines(self, now: float | None = None) -> list[str]:
        """What people are told of dates and limits: nothing if there are none."""
        present, said = _moment(now), []
        if self.opens and present < self.opens:
            said.append(f"opens at {shown(self.opens)}, in {_until(self.opens, present)}")
        if self.closes and present < self.closes:
            said.append(f"open until {shown(self.closes)}, for {_until(self.closes, present)} more")
        elif self.closes:
            said.append(f"closed since {shown(self.closes)}")
        if self.attempts_per_day is not None:
            said.append(f"{counted(self.attempts_per_day, 'attempt')} a team and day")
        kept = {"ranks": "scores are kept back until then", "nothing": "entries are kept back until then"}
        if self.public_at(now) in kept:
            said.append(kept[self.public_at(now)])
        return [f"competition: {'; '.join(said)}"] if said else []


def day_start(now: float | None = None) -> float:
    """When the present day of UTC began, in Unix seconds."""
    at = time.time() if now is None else now
    return at - at % DAY_S


def shown(when: datetime) -> str:
    """A moment as people read it, in UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def moment(at: float) -> str:
    """Unix seconds as people read them, in UTC."""
    return shown(datetime.fromtimestamp(at, UTC))


def _moment(now: float | None) -> datetime:
    return datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)


def _until(then: datetime, now: datetime) -> str:
    """The time between two moments, in days, hours or minutes."""
    seconds = (then - now).total_seconds()
    for unit, length in (("day", DAY_S), ("hour", 3600)):
        if seconds >= 2 * length:
            return counted(int(seconds // length), unit)
    return counted(max(1, int(seconds // 60)), "minute")
