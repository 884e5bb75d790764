"""The service's database of accounts: tokens, what each has spent, and the replies that each got. It decides budgets.

It is a database of its own, SQLite unless a SQLAlchemy URL says otherwise. A query's row, its idempotency key and its
reply are committed in one transaction before the reply is sent. So a charge survives any crash, and a retry of a
charged query is answered from here.

Tokens are 256 random bits and are stored as plain SHA-256 hashes. Slow, salted hashes protect secrets that can be
guessed from a dictionary. Nobody can guess one of 2^256 equally likely values, so a fast hash is as safe.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from harness.errors import InputError, StoreError
from harness.results.database import open_engine, readers, shown
from harness.results.records import LedgerRow
from harness.service import exchanged
from harness.service.seen import keep
from harness.service.tables import (
    SCHEMA,
    accounts_table,
    metadata,
    migrate,
    queries_table,
    schema_version,
    teams_table,
    tokens_table,
)
from harness.service.tokens import NAME, NewToken, Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from harness.blackbox.defence import Seen
    from harness.lm.endpoint.requests import Traffic

DEFAULT = "results/service.db"
KEPT_REPLIES = 64
"""Number of replies kept for retries of each account, the newest ones."""
KEPT_BYTES = 128 << 20
"""Largest total size of these replies in bytes. The newest reply is always kept."""
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True)
class Account:
    """What one token has spent on one cell."""

    number: int
    token: str
    track: str
    task: str
    split: int
    rows_total: int
    rows_spent: int
    queries: int
    submitted: float | None
    """Unix seconds of the submission, which closed the account."""
    run: str | None


@dataclass(frozen=True)
class Answered:
    """A query that was charged."""

    number: int
    request: str
    reply: bytes | None
    """None if it is no longer kept."""


@dataclass(frozen=True)
class Charge:
    """Everything that is committed for one query."""

    key: str
    request: str
    reply: bytes
    row: LedgerRow
    nominal_up: int
    nominal_down: int
    exchanged: Traffic | None = None
    """With the server of a served model."""
    seen: Seen | None = None
    """All that the account was given, with this query; None where it is nothing new."""


@dataclass(frozen=True)
class Charged:
    """A charged query as it is stored."""

    row: LedgerRow
    nominal_up: int
    """Bytes by the papers' formula; see `harness.results.records.Usage`."""
    nominal_down: int
    answered: float
    """Unix seconds."""


class Moved(StoreError):  # noqa: N818 - reads as the fact it states
    """Another process charged or closed the account in the meantime. This process charged nothing."""


class Accounts:
    """The database of accounts. Several threads, and several servers, may use it at once."""

    def __init__(self, url: str = DEFAULT) -> None:
        """Open or create the database; a path is SQLite.

        Raises:
            StoreError: it cannot be opened or has another schema.
        """
        self.name = shown(url)
        """The name for messages, without the password."""
        self._engine = open_engine(url, name="the service's book", option="--book")
        self._reader = readers(self._engine)
        self._founder = self._engine.execution_options(writes="anything")
        self._writer = self._engine.execution_options(writes="its own")
        """Updates name the state from which they start. So on PostgreSQL they need not wait for each other."""
        try:
            self._open()
        except StoreError:
            self.close()
            raise

    def _open(self) -> None:
        with self._transaction(self._founder) as connection:
            there = sa.inspect(connection).get_table_names()
            if there and schema_version.name not in there:
                raise StoreError(f"{self.name} holds something else than a service's book; choose another with --book")
            metadata.create_all(connection)
            version = connection.execute(sa.select(schema_version.c.version)).scalar()
            if version is None:
                connection.execute(schema_version.insert().values(version=SCHEMA))
            else:
                version = migrate(connection, version)
        if version not in {None, SCHEMA}:
            raise StoreError(f"{self.name}: schema version {version}, this program reads {SCHEMA}; choose another book")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────

    def new_token(
        self, name: str, calls: int | None = None, expires: float | None = None, team: str | None = None
    ) -> str:
        """Make a token and return it. It is not stored and cannot be shown again.

        Args:
            name: names the token in the log, in `--usage` and, as NAME@service, in the leaderboard.
            calls: budget of each cell in calls; None means the track's.
            expires: Unix seconds from which it gives no access; None means never.
            team: whose it is; None makes it a team of its own.

        Raises:
            InputError: the name is taken or cannot be one, or `calls` are not positive or too many.
        """
        return self.new_tokens([NewToken(name, calls, expires, team)])[0]

    def new_tokens(self, wanted: Sequence[NewToken]) -> list[str]:
        """Make several tokens: all of them, or none.

        Raises:
            InputError: as `new_token`; the message names the token.
        """
        secret_of = {each.name: secrets.token_urlsafe(32) for each in wanted}
        if len(secret_of) < len(wanted):
            twice = next(name for name, count in Counter(each.name for each in wanted).items() if count > 1)
            raise InputError(f"{twice} is named twice; each token needs a name of its own")
        for each in wanted:
            each.check()
        with self._transaction(self._reader) as connection:
            taken = set(connection.execute(sa.select(tokens_table.c.name)).scalars()) & set(secret_of)
        now = time.time()
        try:
            with self._transaction(self._writer) as connection:
                for each in wanted:
                    row = {"name": each.name, "sha256": _sha256(secret_of[each.name]), "calls": each.calls}
                    connection.execute(tokens_table.insert().values(**row, created=now, expires=each.expires))
                    if each.team is not None:
                        connection.execute(teams_table.insert().values(token=each.name, team=each.team))
        except IntegrityError:
            names = ", ".join(sorted(taken)) or "one of these names"
            raise InputError(f"there is a token named {names} already; choose another name") from None
        return [f"{name}.{secret}" for name, secret in secret_of.items()]

    def rotate(self, name: str) -> str:
        """Give a token a new secret and return it. The old one opens nothing any more; budgets go on.

        Raises:
            InputError: there is no token of that name, or it was revoked.
        """
        secret = secrets.token_urlsafe(32)
        with self._transaction(self._writer) as connection:
            there = tokens_table.update().where(tokens_table.c.name == name, tokens_table.c.revoked.is_(None))
            if not connection.execute(there.values(sha256=_sha256(secret))).rowcount:
                raise InputError(f"no token named {name} that is not revoked; list them with --tokens")
        return f"{name}.{secret}"

    def revoke(self, name: str) -> None:
        """Revoke a token, so that it gives no access. What it spent stays recorded.

        Raises:
            InputError: there is no token of that name.
        """
        with self._transaction(self._writer) as connection:
            change = tokens_table.update().where(tokens_table.c.name == name).values(revoked=time.time())
            if not connection.execute(change).rowcount:
                raise InputError(f"no token named {name}; list them with --tokens")

    def tokens(self) -> list[Token]:
        """All tokens, oldest first."""
        with self._transaction(self._reader) as connection:
            query = _token_columns().order_by(tokens_table.c.created, tokens_table.c.name)
            return [Token(*row[:-1]) for row in connection.execute(query)]

    def token(self, given: str) -> Token | None:
        """The owner of a token, or None. The time of the comparison reveals nothing about the secret."""
        name, _, secret = given.partition(".")
        query = _token_columns().where(tokens_table.c.name == name)
        with self._transaction(self._reader) as connection:
            row = connection.execute(query).first() if NAME.fullmatch(name) else None
        right = hmac.compare_digest(_sha256(secret), _NOBODY if row is None else row.sha256)
        found = Token(*row[:-1]) if row is not None and right else None
        return found if found is not None and found.valid(time.time()) else None

    # ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────

    def account(self, token: str, track: str, task: str, split: int, rows_total: int) -> Account:
        """The account of a token on a cell. A new account may spend `rows_total` rows."""
        place = {"token": token, "track": track, "task": task, "split": split}
        fresh = {"rows_total": rows_total, "rows_spent": 0, "queries": 0}
        found = self._account(**place)
        if found is None:
            try:
                with self._transaction(self._writer) as connection:
                    connection.execute(accounts_table.insert().values(**place, **fresh))
            except IntegrityError:
                pass  # another thread or server created it first
            found = self._account(**place)
        if found is None:
            raise StoreError(f"{self.name}: an account that was just opened is gone; is the file being replaced?")
        return found

    def _account(self, **place: Any) -> Account | None:
        query = _account_columns().filter_by(**place)
        with self._transaction(self._reader) as connection:
            row = connection.execute(query).first()
        return None if row is None else Account(*row)

    def answered(self, account: int, key: str) -> Answered | None:
        """The query that was charged under an idempotency key, or None."""
        columns = queries_table.c
        query = sa.select(columns.number, columns.request, columns.reply)
        with self._transaction(self._reader) as connection:
            row = connection.execute(query.where(columns.account == account, columns.key == key)).first()
        return None if row is None else Answered(*row)

    def charge(self, account: Account, charge: Charge) -> None:
        """Commit an answered query. When this returns, the charge survives a crash.

        Raises:
            Moved: the account has changed since it was read. Nothing is charged.
            StoreError: it could not be made durable. Nothing is charged, and the reply must not be sent.
        """
        row = charge.row
        values = {name: getattr(row, name) for name in LedgerRow.__dataclass_fields__}
        with self._transaction(self._writer) as connection:
            change = accounts_table.update().where(
                accounts_table.c.account == account.number,
                accounts_table.c.queries == account.queries,
                accounts_table.c.submitted.is_(None),
                accounts_table.c.rows_spent + row.rows <= accounts_table.c.rows_total,
            )
            new = {"rows_spent": accounts_table.c.rows_spent + row.rows, "queries": accounts_table.c.queries + 1}
            if connection.execute(change.values(new)).rowcount != 1:
                raise Moved("the budget was moved by another server; ask again")
            connection.execute(
                queries_table.insert().values(
                    account=account.number,
                    number=account.queries,
                    key=charge.key,
                    request=charge.request,
                    reply=charge.reply,
                    nominal_up=charge.nominal_up,
                    nominal_down=charge.nominal_down,
                    answered=time.time(),
                    **values,
                )
            )
            if charge.exchanged is not None:
                exchanged.add(connection, account.number, charge.exchanged)
            self._forget(connection, account.number)
            if charge.seen is not None:
                keep(connection, account.number, charge.seen)

    @staticmethod
    def _forget(connection: sa.Connection, account: int) -> None:
        """Drop replies that are too old for a retry. Their keys stay, so that they are never charged twice."""
        columns = queries_table.c
        kept = sa.and_(columns.account == account, columns.reply.is_not(None))
        query = sa.select(columns.number, columns.bytes_down).where(kept)
        size = 0
        for place, (number, bytes_down) in enumerate(connection.execute(query.order_by(columns.number.desc())).all()):
            size += bytes_down
            if place and (place >= KEPT_REPLIES or size > KEPT_BYTES):
                connection.execute(queries_table.update().where(kept, columns.number <= number).values(reply=None))
                return

    def submit(self, account: Account, answer: bytes) -> None:
        """Store an answer and close the account.

        Raises:
            Moved: the account is closed already, or a query was charged in the meantime.
        """
        change = accounts_table.update().where(
            accounts_table.c.account == account.number,
            accounts_table.c.submitted.is_(None),
            accounts_table.c.queries == account.queries,
        )
        with self._transaction(self._writer) as connection:
            if connection.execute(change.values(answer=answer, submitted=time.time())).rowcount != 1:
                raise Moved("the account was moved by another server; ask again")

    def submitted(self, account: int) -> bytes | None:
        """The answer that closed an account, or None."""
        with self._transaction(self._reader) as connection:
            return connection.execute(
                sa.select(accounts_table.c.answer).where(accounts_table.c.account == account)
            ).scalar()

    def unscored(self, track: str) -> list[Account]:
        """Accounts of a track whose answer is not in the results yet, oldest answer first."""
        columns = accounts_table.c
        query = _account_columns().where(columns.track == track, columns.submitted.is_not(None), columns.run.is_(None))
        with self._transaction(self._reader) as connection:
            return [Account(*row) for row in connection.execute(query.order_by(columns.submitted))]

    def scored(self, account: int, run: str) -> None:
        """Record that an answer's cell is in the results database, in this run."""
        with self._transaction(self._writer) as connection:
            connection.execute(accounts_table.update().where(accounts_table.c.account == account).values(run=run))

    def ledger(self, account: int) -> list[Charged]:
        """All charged queries, in order."""
        names = (*LedgerRow.__dataclass_fields__, "nominal_up", "nominal_down", "answered")
        query = sa.select(*(queries_table.c[name] for name in names)).where(queries_table.c.account == account)
        with self._transaction(self._reader) as connection:
            rows = connection.execute(query.order_by(queries_table.c.number)).all()
        return [Charged(LedgerRow(*row[:-3]), *row[-3:]) for row in rows]

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that reads."""
        return self._transaction(self._reader)

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as problem:
            cause = getattr(problem, "orig", None) or type(problem).__name__
            raise StoreError(f"{self.name}: {cause}. Nothing half-written is in it; free the cause") from problem


def _token_columns() -> sa.Select[Any]:
    """Fields of a `Token`, and the digest of its secret."""
    team = sa.func.coalesce(teams_table.c.team, tokens_table.c.name)
    table = tokens_table.c
    columns = (table.name, table.calls, table.created, table.revoked, team, table.expires, table.sha256)
    return sa.select(*columns).join(teams_table, isouter=True)


def _account_columns() -> sa.Select[Any]:
    names = ("account", "token", "track", "task", "split", "rows_total", "rows_spent", "queries", "submitted", "run")
    return sa.select(*(accounts_table.c[name] for name in names))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
