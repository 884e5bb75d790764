"""The service honours a competition: its dates, and how many tokens of a team may begin on a day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from small_service import FAST, TASK, handler

from harness.contract import Answer
from harness.service import tables
from harness.service.accounts import Accounts
from harness.service.gate import Gate
from harness.service.messages import QueryBody
from harness.service.queries import Refusal
from harness.service.spending import begun, spending
from harness.solving.answers import to_bytes
from harness.tracks.competition import DAY_S, Competition

if TYPE_CHECKING:
    from pathlib import Path

OPENS, CLOSES = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 31, tzinfo=UTC)
DURING = OPENS.timestamp() + 5 * DAY_S


class Open:
    """A service of a competition whose clock is set by hand."""

    def __init__(self, folder: Path, competition: Competition) -> None:
        self.now = DURING
        self.book = Accounts(str(folder / "service.db"))
        self.handler = handler(self.book, limits=FAST)
        self.handler.gate = Gate(competition, lambda: self.now)

    def ask(self, secret: str, key: str | None = None, split: int = 1) -> None:
        """Ask one query with a token, at the time of the clock."""
        token = self.book.token(secret)
        assert token is not None
        place = self.handler.places[TASK.name, split]
        self.handler.query(token, place, QueryBody("train"), b"", key)
        with self.book._transaction(self.book._founder) as connection:  # the book has the machine's own clock
            latest = tables.queries_table.c.answered > DURING + 100 * DAY_S
            early = tables.queries_table.c.answered < DURING - 100 * DAY_S
            connection.execute(tables.queries_table.update().where(latest | early).values(answered=self.now))

    def hand_in(self, secret: str, split: int = 1) -> None:
        """Hand in the bare template with a token."""
        token = self.book.token(secret)
        assert token is not None
        self.handler.submit(token, self.handler.places[TASK.name, split], to_bytes(Answer.of(TASK)))


def test_nothing_is_taken_before_it_opens_or_after_it_closed(tmp_path: Path) -> None:
    service = Open(tmp_path, Competition(OPENS, CLOSES))
    alice = service.book.new_token("alice")
    for now, says in ((OPENS.timestamp() - 1, "opens at 2030-01-01 00:00 UTC"), (CLOSES.timestamp(), "closed at")):
        service.now = now
        for act in (service.ask, service.hand_in):
            with pytest.raises(Refusal, match=says) as refused:
                act(alice)
            assert refused.value.fault.code == "closed"
    assert begun(service.book, "fake") == {}
    service.now = DURING
    service.ask(alice)
    service.hand_in(alice)


def test_a_charged_query_is_repeated_after_the_end(tmp_path: Path) -> None:
    service = Open(tmp_path, Competition(OPENS, CLOSES))
    alice = service.book.new_token("alice")
    service.ask(alice, key="one")
    service.now = CLOSES.timestamp()
    service.ask(alice, key="one")
    with pytest.raises(Refusal, match="closed at"):
        service.ask(alice, key="two")


def test_a_team_begins_so_many_tokens_a_day_and_goes_on_with_those_that_began(tmp_path: Path) -> None:
    service = Open(tmp_path, Competition(attempts_per_day=2))
    first, second, third = (service.book.new_token(f"a{n}", team="alice") for n in range(3))
    other = service.book.new_token("bob")
    service.ask(first)
    service.ask(second)
    with pytest.raises(Refusal, match="team alice has had 2 attempts today, and the track allows 2 a day"):
        service.ask(third)
    with pytest.raises(Refusal, match="team alice has had 2 attempts today"):
        service.hand_in(third)
    service.ask(first, split=2)
    service.ask(other)
    service.now += DAY_S
    service.ask(third)
    assert set(begun(service.book, "fake")) == {"a0", "a1", "a2", "bob"}
    assert begun(service.book, "fak") == {}


def test_the_book_knows_the_team_of_a_token_and_what_it_did(tmp_path: Path) -> None:
    service = Open(tmp_path, Competition())
    first = service.book.new_token("a1", calls=5, team="alice")
    service.book.new_token("bob")
    service.ask(first)
    service.ask(first)
    service.hand_in(first)
    assert [(token.name, token.team, token.calls) for token in service.book.tokens()] == [
        ("a1", "alice", 5),
        ("bob", "bob", None),
    ]
    (spent,) = spending(service.book)
    assert (spent.token, spent.team, spent.queries, spent.rows_spent) == ("a1", "alice", 2, 8)
    assert spent.last == DURING


def test_a_book_of_before_there_were_teams_is_read(tmp_path: Path) -> None:
    old = Accounts(str(tmp_path / "service.db"))
    secret = old.new_token("alice")
    with old._transaction(old._founder) as connection:
        tables.teams_table.drop(connection)
    old.close()
    token = Accounts(str(tmp_path / "service.db")).token(secret)
    assert token is not None
    assert token.team == "alice"
