"""Tokens for one and for a class: expiry, rotation, spending; books of the schema before."""

from __future__ import annotations

import csv
import json
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from small_service import TASK, TRAIN, House
from typer.testing import CliRunner

from harness.cli import app as cli
from harness.errors import InputError
from harness.service.accounts import Accounts
from harness.service.messages import QueryBody
from harness.service.spending import spending

if TYPE_CHECKING:
    from pathlib import Path


def serve(book: Path, *arguments: str) -> Any:
    """Run the command."""
    return CliRunner().invoke(cli, ["serve", "--book", str(book), *arguments])


def test_a_class_gets_its_tokens_by_one_command(tmp_path: Path) -> None:
    names, book = tmp_path / "class.csv", tmp_path / "service.db"
    names.write_text(
        "\ufeffname,calls,expires\n" + "".join(f"student-{n},,\n" for n in range(100)) + "guest,5,2999-01-01\n"
    )
    began = time.monotonic()
    done = serve(book, "--new-tokens", str(names), "--expires", "2998-12-31")
    assert done.exit_code == 0, done.output
    assert time.monotonic() - began < 20
    written = tmp_path / "class-tokens.csv"
    assert written.stat().st_mode & 0o777 == 0o600
    with written.open() as opened:
        made = {row["name"]: row["token"] for row in csv.DictReader(opened)}
    assert len(made) == 101
    kept = Accounts(str(book))
    found = {name: kept.token(token) for name, token in made.items()}
    assert all(each is not None and each.name == name for name, each in found.items())
    guest, student = found["guest"], found["student-7"]
    assert guest is not None
    assert student is not None
    assert (guest.calls, student.calls) == (5, None)
    assert guest.expires == datetime(2999, 1, 1, tzinfo=UTC).timestamp() + 86_400  # the day counts to its end
    assert student.expires == guest.expires - 86_400
    kept.close()
    again = serve(book, "--new-tokens", str(names))
    assert isinstance(again.exception, InputError)
    assert "class-tokens.csv is there already" in str(again.exception)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "no column name"),
        ("student\nanna\n", "no column name"),
        ("name,mail\nanna,a@example.org\n", "unknown columns mail"),
        ("name\nanna\nanna\n", "anna is named twice"),
        ("name\nanna\nberta b\n", "'berta b' cannot be a token's name"),
        ("name,calls\nanna,many\n", "line 2: calls 'many' is not a number"),
        ("name,calls\nanna,0\n", "a positive number of calls"),
        ("name,expires\nanna,soon\n", "--expires soon: a date"),
        ("name,expires\nanna,2001-01-01\n", "is past"),
        ("name\nanna\nold\n", "there is a token named old already"),
    ],
)
def test_a_list_with_a_fault_makes_no_token_and_no_file(tmp_path: Path, lines: str, said: str) -> None:
    names, book = tmp_path / "class.csv", tmp_path / "service.db"
    names.write_text(lines)
    kept = Accounts(str(book))
    kept.new_token("old")
    done = serve(book, "--new-tokens", str(names))
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert [token.name for token in kept.tokens()] == ["old"]
    assert not (tmp_path / "class-tokens.csv").exists()
    kept.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--expires", "2999-01-01"], "--expires belongs to --new-token"),
        (["--team", "alice"], "--team belongs to --new-token"),
        (["--json"], "--json belongs to --usage"),
        (["--rotate-token", "nobody"], "no token named nobody"),
        (["--new-token", "x", "--expires", "2001-01-01"], "is past"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    Accounts(str(tmp_path / "service.db")).close()
    done = serve(tmp_path / "service.db", *arguments)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


def test_a_token_opens_nothing_after_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Accounts(str(tmp_path / "service.db"))
    token = kept.new_token("anna", expires=time.time() + 3600)
    assert kept.token(token) is not None
    late = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: late)
    assert kept.token(token) is None
    assert "anna  the track's budget, unused, expired" in serve(tmp_path / "service.db", "--tokens").output
    kept.close()


def test_a_rotated_token_keeps_its_budget_and_the_old_secret_opens_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    place = house.handler.places[TASK.name, 1]
    old = house.book.token(house.token)
    assert old is not None
    house.handler.query(old, place, QueryBody("train"), b"", None)
    done = serve(tmp_path / "service.db", "--rotate-token", "alice")
    assert done.exit_code == 0
    fresh = house.book.token(done.stdout.strip())
    assert house.book.token(house.token) is None
    assert fresh is not None
    assert fresh == old
    assert house.handler.account(fresh, place).rows_spent == TRAIN
    house.book.revoke("alice")
    with pytest.raises(InputError, match="not revoked"):
        house.book.rotate("alice")


def test_spending_is_told_by_token_and_cell(tmp_path: Path) -> None:
    house = House(tmp_path)
    bob = house.book.token(house.book.new_token("bob"))
    alice = house.book.token(house.token)
    assert alice is not None
    assert bob is not None
    for who, split, times in ((alice, 1, 3), (alice, 2, 1), (bob, 2, 2)):
        for _ in range(times):
            house.handler.query(who, house.handler.places[TASK.name, split], QueryBody("train"), b"", None)
    found = {(each.token, each.split): each for each in spending(house.book)}
    assert {place: each.queries for place, each in found.items()} == {("alice", 1): 3, ("alice", 2): 1, ("bob", 2): 2}
    for each in found.values():
        ledger = house.book.ledger(house.book.account(each.token, each.track, each.task, each.split, 0).number)
        assert each.rows_spent == sum(charged.row.rows for charged in ledger) == each.queries * TRAIN
        assert each.tokens == sum(charged.row.tokens for charged in ledger)
        assert each.seconds == pytest.approx(sum(charged.row.seconds for charged in ledger))
        assert each.last == max(charged.answered for charged in ledger)
    assert spending(house.book, "bob") == [found["bob", 2]]
    book = tmp_path / "service.db"
    lines = [json.loads(line) for line in serve(book, "--usage", "--json").stdout.splitlines()]
    assert [(line["token"], line["split"], line["rows_spent"]) for line in lines] == [
        ("alice", 1, 3 * TRAIN), ("alice", 2, TRAIN), ("bob", 2, 2 * TRAIN),
    ]  # fmt: skip
    assert "alice" in serve(book, "--usage").stdout
    assert f"bob  the track's budget, {2 * TRAIN} rows in 2 queries, 0 answers" in serve(book, "--tokens").stdout


def test_a_book_of_the_schema_before_is_used_as_it_is(tmp_path: Path) -> None:
    """Its tokens never expire, and its budgets go on."""
    house = House(tmp_path)
    alice = house.book.token(house.token)
    assert alice is not None
    house.handler.query(alice, house.handler.places[TASK.name, 1], QueryBody("train"), b"", None)
    house.book.close()
    with sqlite3.connect(tmp_path / "service.db") as old:
        old.execute("ALTER TABLE service_tokens DROP COLUMN expires")
        old.execute("UPDATE service_schema SET version = 1")
    old.close()
    kept = Accounts(str(tmp_path / "service.db"))
    found = kept.token(house.token)
    assert found is not None
    assert found.expires is None
    assert spending(kept)[0].rows_spent == TRAIN
    assert kept.new_token("bob", expires=time.time() + 10)
    kept.close()
