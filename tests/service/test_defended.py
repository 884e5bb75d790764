"""Defences of a track hold for the service's tokens as they do for workers, also when the server starts again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from small_service import CALLS, FAST, TASK, House, place

from harness.blackbox.defence import Seen
from harness.blackbox.query import Query
from harness.service.accounts import Accounts
from harness.service.messages import QueryBody
from harness.service.queries import QueryHandler, Refusal
from harness.service.seen import read
from harness.service.tables import seen_table
from harness.tracks.defences import Defences

if TYPE_CHECKING:
    from pathlib import Path


def handler(book: Accounts, lm: Any, defences: Defences) -> QueryHandler:
    offered = {(TASK.name, split): dataclasses.replace(place(CALLS, split), defences=defences) for split in (1, 2)}
    return QueryHandler(lm, "fake 0123", offered, book, FAST)


def ask(handler: QueryHandler, secret: str, query: Query, split: int = 1, key: str | None = None) -> Any:
    token, where = handler.book.token(secret), handler.places[TASK.name, split]
    assert token is not None
    return handler.query(token, where, QueryBody.of(query, where.shots), b"body", key)


def test_a_cap_outlives_the_server(house: House, tmp_path: Path) -> None:
    texts = place().shots.train.texts
    first = handler(house.book, house.lm, Defences(most_texts=3))
    ask(first, house.token, Query(texts[:2]), key="once")
    ask(first, house.token, Query(texts[:2]), key="once")  # a retry is given nothing new
    book = Accounts(str(tmp_path / "service.db"))
    second = handler(book, house.lm, Defences(most_texts=3))
    with pytest.raises(Refusal, match="4 different texts would have been asked about in this cell; 3 are allowed"):
        ask(second, house.token, Query(texts[2:4]))
    ask(second, house.token, Query(texts[:3]))
    ask(second, house.token, Query(texts[:3]), split=2)  # another cell counts for itself
    assert house.ledger == [2, 3], "what is refused costs nothing"
    book.close()


def test_only_the_task_s_words_and_no_states(house: House) -> None:
    closed = handler(house.book, house.lm, Defences(words="task", hidden_states=False))
    texts = place().shots.train.texts
    assert ask(closed, house.token, Query(texts)).row is not None
    with pytest.raises(Refusal, match="no hidden states"):
        ask(closed, house.token, Query(texts, features="mask"))
    other = next(word for word in house.lm.words if word and word not in TASK.words)
    with pytest.raises(Refusal, match="1 of 1 words are none of the task's"):
        ask(closed, house.token, Query(texts, words=(other,)))


def test_without_defences_it_is_counted_all_the_same(house: House) -> None:
    texts = place().shots.train.texts
    ask(handler(house.book, house.lm, Defences()), house.token, Query(texts[:2]))
    later = handler(house.book, house.lm, Defences(most_texts=2))
    with pytest.raises(Refusal, match="3 different texts would have been asked about"):
        ask(later, house.token, Query(texts[2:3]))


def test_what_was_given_before_it_was_counted_is_not_known(house: House) -> None:
    """An account of an older version of the book: its cell says nothing, and not too little."""
    texts, book = place().shots.train.texts, house.book
    ask(handler(book, house.lm, Defences()), house.token, Query(texts[:2]))
    with book._engine.begin() as connection:
        connection.execute(seen_table.delete())
    ask(handler(book, house.lm, Defences()), house.token, Query(texts[:3]))
    with book.reading() as connection:
        assert read(connection, 1, 2) is None
        assert read(connection, 1, 0) == Seen()
