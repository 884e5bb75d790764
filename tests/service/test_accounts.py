"""The book: what it keeps of tokens, and that it is the truth about budgets."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from harness.blackbox.defence import Seen
from harness.errors import InputError, StoreError
from harness.results.audit import audit
from harness.results.records import LedgerRow
from harness.results.store import Store
from harness.service import accounts as books
from harness.service.accounts import Account, Accounts, Charge, Moved
from harness.service.seen import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def book(place: str) -> Iterator[Accounts]:
    made = Accounts(place)
    made.new_token("alice")
    yield made
    made.close()


def account(book: Accounts, split: int = 1, total: int = 100) -> Account:
    return book.account("alice", "mini f", "sst2", split, total)


def charge(key: str, rows: int = 10, reply: bytes = b"reply", down: int | None = None) -> Charge:
    row = LedgerRow(rows, 5, 100, len(reply) if down is None else down, 0.01, 1, "0" * 64)
    return Charge(key, f"digest of {key}", reply, row, 7, 8)


def test_a_token_is_nowhere_in_the_file(tmp_path: Path) -> None:
    book = Accounts(str(tmp_path / "deep" / "service.db"))
    token = book.new_token("bob")
    name, secret = token.split(".")
    assert name == "bob"
    assert len(secret) == 43  # 256 bits in base64
    book.close()
    files = list((tmp_path / "deep").iterdir())
    assert files
    assert not any(secret.encode() in file.read_bytes() for file in files)


def test_a_token_opens_what_its_name_says_until_it_is_revoked(book: Accounts) -> None:
    token = book.new_token("bob", calls=7)
    found = book.token(token)
    assert found is not None
    assert (found.name, found.calls) == ("bob", 7)
    book.revoke("bob")
    assert book.token(token) is None
    assert [t.name for t in book.tokens() if t.revoked is None] == ["alice"]


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "", lambda _: "bob", lambda _: "bob.", lambda t: t[:-1], lambda t: t + "A", lambda t: t.upper(),
        lambda t: "alice" + t[3:], lambda t: " " + t, lambda _: "nobody.nobody", lambda t: "böb." + t[4:],
        lambda _: "b" * 100_000, lambda t: t.replace(".", "\0"), lambda t: "' OR 1=1 --." + t,
    ],
)  # fmt: skip
def test_anything_but_the_token_opens_nothing(book: Accounts, change: object) -> None:
    token = book.new_token("bob")
    assert book.token(change(token)) is None  # type: ignore[operator]


@pytest.mark.parametrize("name", ["", "alice", "a.b", "a b", "-a", "a" * 65, "ä", "a\n"])
def test_a_name_that_is_taken_or_none_is_refused(book: Accounts, name: str) -> None:
    with pytest.raises(InputError):
        book.new_token(name)


def test_two_tokens_are_never_alike(book: Accounts) -> None:
    secrets = {book.new_token(f"t{n}").split(".")[1] for n in range(50)}
    assert len(secrets) == 50


def test_an_account_is_opened_once_and_keeps_its_budget(book: Accounts) -> None:
    first = account(book, total=100)
    assert account(book, total=999) == first
    assert account(book, split=2).number != first.number


def test_what_was_charged_is_there_after_it_is_opened_again(book: Accounts, place: str) -> None:
    book.charge(account(book), charge("k", rows=40))
    again = Accounts(place)
    opened = account(again)
    assert (opened.rows_spent, opened.queries) == (40, 1)
    answered = again.answered(opened.number, "k")
    assert answered is not None
    assert (answered.reply, answered.request) == (b"reply", "digest of k")
    (charged,) = again.ledger(opened.number)
    assert (charged.row.rows, charged.nominal_up, charged.nominal_down) == (40, 7, 8)
    again.close()


def test_a_charge_on_an_account_that_moved_changes_nothing(book: Accounts) -> None:
    stale = account(book)
    book.charge(stale, charge("first"))
    with pytest.raises(Moved):
        book.charge(stale, charge("second"))
    now = account(book)
    assert (now.rows_spent, now.queries) == (10, 1)
    assert book.answered(now.number, "second") is None


def test_the_budget_is_the_database_s_business_as_well(book: Accounts) -> None:
    with pytest.raises(Moved):
        book.charge(account(book, total=9), charge("k", rows=10))
    assert account(book).rows_spent == 0


def test_a_closed_account_takes_no_charge_and_no_second_answer(book: Accounts) -> None:
    book.submit(account(book), b"answer")
    for work in (lambda: book.charge(account(book), charge("k")), lambda: book.submit(account(book), b"other")):
        with pytest.raises(Moved):
            work()
    assert book.submitted(account(book).number) == b"answer"


def test_old_replies_are_dropped_and_their_keys_stay(book: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "KEPT_REPLIES", 3)
    for n in range(6):
        book.charge(account(book), charge(str(n), reply=b"r%d" % n))
    kept = [book.answered(account(book).number, str(n)) for n in range(6)]
    assert [k.reply for k in kept if k] == [None, None, None, b"r3", b"r4", b"r5"]


def test_kept_replies_are_bounded_in_bytes_and_the_newest_is_always_kept(
    book: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "KEPT_BYTES", 100)
    for n, down in enumerate((60, 50, 40, 500)):
        book.charge(account(book), charge(str(n), down=down))
        replies = [book.answered(account(book).number, str(k)) for k in range(n + 1)]
        assert [r.reply is not None for r in replies if r] == [
            [True], [False, True], [False, True, True], [False, False, False, True],
        ][n]  # fmt: skip


def test_answers_wait_to_be_scored_until_they_are(book: Accounts) -> None:
    for split in (1, 2):
        book.submit(account(book, split), b"answer")
    assert [a.split for a in book.unscored("mini f")] == [1, 2]
    book.scored(account(book, 1).number, "run")
    assert [a.split for a in book.unscored("mini f")] == [2]
    assert book.unscored("another track") == []


def test_a_book_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    Accounts(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE service_schema SET version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        Accounts(str(path))


def test_a_book_that_had_a_row_for_each_piece_goes_on(book: Accounts, place: str) -> None:
    """Schema 2: what defences count is not lost, and who was counted by none is not known."""
    for split in (1, 2):
        book.charge(account(book, split), charge(f"k{split}"))
    with book._engine.execution_options(writes="anything").begin() as old:
        old.execute(sa.text("DROP TABLE service_seen"))
        columns = "account INTEGER NOT NULL REFERENCES service_accounts, kind TEXT NOT NULL, digest TEXT NOT NULL"
        old.execute(sa.text(f"CREATE TABLE service_seen ({columns}, PRIMARY KEY (account, kind, digest))"))
        for kind, digest in (("word", "7"), ("word", "12"), ("text", "a0"), ("row", "b1"), ("row", "b0")):
            row = {"kind": kind, "digest": digest}
            old.execute(sa.text("INSERT INTO service_seen VALUES (1, :kind, :digest)"), row)
        old.execute(sa.text("UPDATE service_schema SET version = 2"))
    for _ in range(2):  # the second time there is nothing to do
        again = Accounts(place)
        with again.reading() as connection:
            assert read(connection, 1, 1) == Seen({"7", "12"}, {"a0"}, {"b0", "b1"})
            assert read(connection, 2, 1) is None
        again.close()
    more = Accounts(place)
    more.charge(account(more, 2), replace(charge("later"), seen=Seen({"3"}, {"a1"}, {"b2"})))
    with more.reading() as connection:
        assert read(connection, 2, 2) == Seen({"3"}, {"a1"}, {"b2"})
    more.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    path.write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match=r"service\.db"):
        Accounts(str(path))


def test_a_password_in_the_address_is_in_no_message() -> None:
    with pytest.raises(StoreError) as caught:
        Accounts("nosuchdialect://user:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_a_results_database_is_no_book_and_stays_as_it_is(place: str) -> None:
    store = Store(place)
    with pytest.raises(StoreError, match="something else than a service's book"):
        Accounts(place)
    assert audit(store).findings == ()
    store.close()
