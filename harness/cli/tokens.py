"""Tokens of the service, from the command line: making them, for one or for a class, and what each has spent."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from harness.cli.console import err, say, shown, whole
from harness.errors import InputError, counted
from harness.sandbox.submission import check_team
from harness.service.tokens import NewToken
from harness.tracks.competition import moment

if TYPE_CHECKING:
    from harness.service.accounts import Accounts
    from harness.service.tokens import Token

BOOK = "results/service.db"
_COLUMNS = ("name", "calls", "expires", "team")
_DAY = len("2026-12-31")


def how_to_make(book: str) -> str:
    """What to type to make a token."""
    return f"harness serve --new-token NAME{'' if book == BOOK else f' --book {shown(book)}'}"


@dataclass(frozen=True)
class TokenWork:
    """What `harness serve` was asked to do with tokens, in place of serving."""

    new: str | None
    new_for: Path | None
    rotated: str | None
    revoked: str | None
    listed: bool
    usage: bool
    calls: int | None
    expires: str | None
    team: str | None
    as_json: bool

    @property
    def of_existing(self) -> bool:
        """Whether it needs a database of accounts that is there."""
        return bool(self.rotated or self.revoked or self.listed or self.usage)

    def done(self, kept: Accounts, book: str) -> bool:
        """Do it; False if nothing was asked.

        Raises:
            InputError: something is wrong with what was asked. Nothing was changed.
        """
        if self.expires and not (self.new or self.new_for):
            raise InputError("--expires belongs to --new-token or --new-tokens; a token that exists keeps its end")
        if self.team and not (self.new or self.new_for):
            raise InputError("--team belongs to --new-token or --new-tokens; a token that exists keeps its team")
        if self.as_json and not self.usage:
            raise InputError("--json belongs to --usage")
        if self.new is not None:
            _make(kept, NewToken(self.new, self.calls, _moment(self.expires), _team(self.team)))
        elif self.new_for is not None:
            _make_for_class(kept, self.new_for, NewToken("", self.calls, _moment(self.expires), _team(self.team)))
        elif self.rotated is not None:
            _rotate(kept, self.rotated)
        elif self.revoked is not None:
            kept.revoke(self.revoked)
            say(f"{self.revoked} opens nothing any more; what it spent stays in {kept.name}")
        elif self.usage:
            _show_usage(kept, book, self.as_json)
        elif self.listed:
            _show(kept, book)
        return bool(self.new is not None or self.new_for or self.of_existing)


def _make(kept: Accounts, wanted: NewToken) -> None:
    """Make a token and print it."""
    typer.echo(kept.new_tokens([wanted])[0])
    err.print(f"the token of {wanted.name}; it is shown this once, and only its digest is kept", soft_wrap=True)


def _make_for_class(kept: Accounts, file: Path, usual: NewToken) -> None:
    """Make a token for each line of a CSV file, and write name and token into a new file beside it.

    Raises:
        InputError: the file cannot be read, a line is wrong, or the new file is there already. No token is made.
    """
    wanted = _wanted(file, usual)
    written = file.with_name(f"{file.stem}-tokens.csv")
    try:
        handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(f"{written} is there already, perhaps with tokens that are in use; move it away") from None
    except OSError as problem:
        raise InputError(f"{written} cannot be written: {problem.strerror}") from problem
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as opened:
            made = kept.new_tokens(wanted)
            rows = csv.writer(opened)
            rows.writerow(("name", "token"))
            rows.writerows(zip((each.name for each in wanted), made, strict=True))
    except InputError:
        written.unlink()
        raise
    say(f"{len(made)} tokens are in {written}, which only you can read; they are kept nowhere else. Hand each one out")


def _rotate(kept: Accounts, name: str) -> None:
    """Give a token a new secret and print it."""
    typer.echo(kept.rotate(name))
    err.print(f"the new token of {name}; the old one opens nothing any more, and budgets go on", soft_wrap=True)


def _show(kept: Accounts, book: str) -> None:
    """List all tokens with what they have spent."""
    from harness.service.spending import spending  # noqa: PLC0415 - keeps `--help` quick

    spent: dict[str, list[int]] = {}
    for each in spending(kept):
        sums = spent.setdefault(each.token, [0, 0, 0])
        for place, value in enumerate((each.rows_spent, each.queries, each.submitted is not None)):
            sums[place] += value
    for token in kept.tokens():
        budget = "the track's budget" if token.calls is None else f"{token.calls:,} calls a cell"
        rows, queries, submitted = spent.get(token.name, (0, 0, 0))
        used = f"{rows:,} rows in {queries:,} queries, {submitted} answers" if queries or submitted else "unused"
        whose = "" if token.team == token.name else f"of team {token.team}, "
        say(f"{token.name}  {whose}{budget}, {used}{_end(token)}")
    if not kept.tokens():
        say(f"no tokens in {kept.name}; make one with: {how_to_make(book)}")


def _show_usage(kept: Accounts, book: str, as_json: bool) -> None:
    """Print what each token has spent on each cell."""
    from harness.service.spending import spending  # noqa: PLC0415

    found = spending(kept)
    if as_json:
        for each in found:
            typer.echo(json.dumps(asdict(each) | {"last": _said(each.last), "submitted": _said(each.submitted)}))
        return
    if not found:
        say(f"nothing was asked yet; {kept.name} has {counted(len(kept.tokens()), 'token')}")
        _show(kept, book)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("token", "team", "track", "cell"):
        table.add_column(name, overflow="fold")
    served = any(each.sent is not None for each in found)
    for name in ("rows", "of", "queries", "seconds", "MB down", *(("sent", "received") if served else ())):
        table.add_column(name, justify="right")
    for name in ("last query", "answer"):
        table.add_column(name)
    for each in found:
        answer = "" if each.submitted is None else "handed in" if each.run is None else "scored"
        table.add_row(
            each.token, each.team, each.track.partition(" ")[0], f"{each.task}/{each.split}", f"{each.rows_spent:,}",
            f"{each.rows_total:,}", f"{each.queries:,}", f"{each.seconds:.1f}", f"{each.bytes_down / 1e6:.1f}",
            *((f"{each.sent or 0:,}", f"{each.received or 0:,}") if served else ()),
            "" if each.last is None else moment(each.last), answer,
        )  # fmt: skip
    whole(table)


def _end(token: Token) -> str:
    if token.revoked is not None:
        return ", revoked"
    if token.expires is None:
        return ""
    return f", {'expires' if token.valid(time.time()) else 'expired'} {moment(token.expires)}"


def _said(at: float | None) -> str | None:
    """Unix seconds for programs, in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _moment(given: str | None) -> float | None:
    """Unix seconds of a date, which counts to its end, or of a moment; UTC where no offset is given."""
    if not given:
        return None
    try:
        end = datetime.fromisoformat(given)
    except ValueError:
        raise InputError(f"--expires {given}: a date such as 2026-12-31, or 2026-12-31T18:00, is needed") from None
    if len(given) <= _DAY:
        end += timedelta(days=1)
    end = end.replace(tzinfo=end.tzinfo or UTC)
    if end.timestamp() <= time.time():
        raise InputError(f"--expires {given} is past; a token that opens nothing is of no use")
    return end.timestamp()


def _team(given: str | None) -> str | None:
    return check_team(given) if given else None


def _wanted(file: Path, usual: NewToken) -> list[NewToken]:
    """A token for each line; what a line does not say is as in `usual`."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{file} cannot be read: {problem}") from problem
    columns = rows[0].keys() if rows else ()
    if "name" not in columns or (unknown := [each for each in columns if each not in _COLUMNS]):
        wrong = f"unknown columns {', '.join(map(str, unknown))}" if "name" in columns else "no column name"
        others = "'calls', 'expires' and 'team'"
        raise InputError(f"{file}: {wrong}; its first line is 'name', and with it, if you like, {others}")
    wanted = []
    for number, row in enumerate(rows, 2):
        try:
            calls = int(row["calls"]) if row.get("calls") else usual.calls
        except ValueError:
            raise InputError(f"{file}, line {number}: calls {row['calls']!r} is not a number") from None
        expires = _moment(row.get("expires")) or usual.expires
        wanted.append(NewToken(row["name"].strip(), calls, expires, _team(row.get("team")) or usual.team))
    return wanted
