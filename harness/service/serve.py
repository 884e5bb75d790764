"""From a track to a running server, and from submitted answers to stored cells."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
from typing import TYPE_CHECKING

import msgspec
import uvicorn

from harness.blackbox.checkpoints import at_checkpoints, checkpoint
from harness.blackbox.session import Incumbent
from harness.errors import InputError, StoreError
from harness.evaluation.billing import between
from harness.evaluation.referee import HandedIn, priced_model, score_handed
from harness.evaluation.text_cells import read_as
from harness.leaderboard.rank import score_cell
from harness.results.records import Usage
from harness.service import seen
from harness.service.app import make_app
from harness.service.connections import AtOnce, connections
from harness.service.exchanged import exchanged
from harness.service.gate import Gate
from harness.service.line import Closing
from harness.service.queries import Limits, Place, QueryHandler
from harness.service.request_log import RequestLog, writer
from harness.service.starting import Starting
from harness.solving import answers
from harness.tracks.examples import load_shots
from harness.tracks.tiers import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import FastAPI

    from harness.evaluation.referee import Cell
    from harness.evaluation.run import Evaluation, Plan
    from harness.lm.endpoint.requests import Traffic
    from harness.lm.served import Served
    from harness.results.store import Store
    from harness.service.accounts import Account, Accounts
    from harness.service.tokens import Token

_AT_ONCE = 256
_MOST_TRIES = 5
_KEEP_ALIVE_S = 75
_GRACE_S = 30


def track_id(evaluation: Evaluation) -> str:
    """Name and digest of what is served: everything that identifies a run except the solver. Budgets depend on it."""
    return f"{evaluation.plan.base.track} {evaluation.plan.base.id}"


def places(evaluation: Evaluation) -> dict[tuple[str, int], Place]:
    """The cells of an evaluation, without their test sets."""
    found = {}
    for cell in evaluation.cells:
        shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
        info = evaluation.lm.info(shots.train.texts, read_as(cell.task))
        priced = priced_model(cell, shots, evaluation.lm)
        found[cell.task.name, cell.split] = Place(
            cell.task, cell.split, shots, info, cell.spec.calls, priced.row_tokens, cell.defences, priced.text
        )
    return found


def service_of(
    evaluation: Evaluation, book: Accounts, per_s: float, burst: int, *, show_scores: bool = False
) -> FastAPI:
    """The service for an evaluation's cells as an ASGI application.

    Args:
        evaluation: track, model, data and results database.
        book: the accounts.
        per_s: requests a second that one token may make.
        burst: requests that one token may make at once.
        show_scores: whether a participant sees the scores of their own answers.
    """
    limits = evaluation.track.limits
    allowed = Limits(limits.answer_mb << 20, limits.frame_mb << 20, limits.answers, per_s=per_s, burst=burst)

    def scores(run: str) -> dict[tuple[str, int], float]:
        cells = [cell for cell in evaluation.store.cells(run) if cell.predictions]
        return {(cell.task, cell.split): score_cell(cell).score for cell in cells}

    gate = Gate(evaluation.track.competition)
    told = scores if show_scores else None
    handler = QueryHandler(evaluation.lm, track_id(evaluation), places(evaluation), book, allowed, gate, told)
    failed: set[int] = set()
    return make_app(handler, lambda others: settle(evaluation, book, failed, others))


def run(app: FastAPI | Starting, host: str, port: int, log: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM. The log has a line for each request (`harness.service.request_log`).

    Args:
        app: the service, or a `Starting` that becomes one.
        host: address to listen on.
        port: port to listen on; 0 means any free port.
        log: file to which the log is appended; None means standard error.

    Raises:
        InputError: the address cannot be used. This is found before anything is loaded.
        HarnessError: the error of a `Starting` that could not load the model.
    """
    _check_free(host, port)
    server = uvicorn.Server(
        uvicorn.Config(
            RequestLog(AtOnce(app, _AT_ONCE), writer(log)),
            access_log=False,
            host=host,
            port=port,
            http=connections(),
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
            proxy_headers=False,
        )
    )
    if not isinstance(app, Starting):
        server.run()
        return

    def give_up() -> None:
        server.should_exit = True

    app.give_up = give_up
    server.run()
    if app.problem is not None:
        raise app.problem


def _check_free(host: str, port: int) -> None:
    """Listen for a moment, since uvicorn finds a port in use only when the model is being loaded."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
            tried.listen(1)
    except OSError as problem:
        way_out = "End what listens there, or choose another with --port; 0 takes a free one"
        raise InputError(f"{host}:{port} cannot be listened on: {problem.strerror}. {way_out}") from problem


def settle(evaluation: Evaluation, book: Accounts, failed: set[int], others: Callable[[], None] = lambda: None) -> bool:
    """Score the oldest answer that was submitted for a cell of this evaluation and is not in its store yet.

    Returns False if there is none. An answer that could not be scored is added to `failed` and skipped, so that the
    others need not wait for it. `others` is called during the scoring, whenever other work may use the model. Scoring
    that was started `_MOST_TRIES` times and never ended is not tried again. This is stored as the cell's outcome.

    Raises:
        Closing: raised by `others`. The next call scores the same answer.
        StoreError: a fact could not be written to disk. The next call scores the same answer.
    """
    cells = {(cell.task.name, cell.split): cell for cell in evaluation.cells}
    for account in book.unscored(track_id(evaluation)):
        cell = cells.get((account.task, account.split))
        if cell is None or account.number in failed:
            continue
        meanwhile = _Meanwhile(evaluation.lm, others)
        try:
            with at_checkpoints(meanwhile):
                run = _score(evaluation, book, account, cell, meanwhile)
            book.scored(account.number, run)
        except (Closing, StoreError):
            raise
        except Exception:
            failed.add(account.number)
            raise
        return True
    return False


class _Meanwhile:
    """Work for others in the midst of a scoring, and what it exchanges with the server of a served model."""

    def __init__(self, lm: Served, others: Callable[[], None]) -> None:
        self._lm, self._others = lm, others
        self.traffic: Traffic | None = None

    def __call__(self) -> None:
        before = self._lm.traffic
        self._others()
        more = between(before, self._lm.traffic)
        self.traffic = more if self.traffic is None or more is None else self.traffic + more


def _score(evaluation: Evaluation, book: Accounts, account: Account, cell: Cell, meanwhile: _Meanwhile) -> str:
    """Store ledger, answer and predictions as a cell of the token's run, and return the run's id.

    Raises:
        InputError: the store has another answer of the same token.
    """
    (token,) = [each for each in book.tokens() if each.name == account.token]
    store, blob = evaluation.store, book.submitted(account.number) or b""
    run_id = _run_of(token, evaluation.plan, store)
    if (account.task, account.split) in store.finished(run_id):
        if store.answer(run_id, account.task, account.split) not in {None, blob}:  # None: it could not be applied
            raise InputError(
                f"{account.token}: {store.url} has another answer for {account.task}/{account.split}; serve with the "
                "store that goes with this book"
            )
        return run_id
    place = account.task, account.split
    tries = sum((task, split) == place for _, task, split in store.attempts(run_id))
    attempt, usage = store.begin(run_id, *place), Usage()
    began = account.submitted or 0.0
    for charged in book.ledger(account.number):
        checkpoint()
        attempt.record(charged.row)
        usage.count(charged.row, charged.nominal_up, charged.nominal_down)
        began = min(began, charged.answered - charged.row.seconds)
    incumbent = Incumbent(account.rows_spent, answers.from_bytes(blob), blob)
    note = incumbent.answer.note
    history = ((account.rows_spent, {"loss": note["loss"]} if "loss" in note else {}),)
    spec = msgspec.structs.replace(cell.spec, calls=account.rows_total // cell.train_rows)
    with book.reading() as connection:
        given, tuned = seen.read(connection, account.number, account.queries), exchanged(connection, account.number)
    asked = None if given is None or not usage.queries else given.counts
    tuning_s = (account.submitted or began) - began
    handed = HandedIn(incumbent, history, usage, tuning_s, asked=asked, exchanged=tuned)
    meanwhile.traffic = None
    problem = ""
    if tries >= _MOST_TRIES:
        problem = f"the server began to score this answer {tries} times, and ended each time before it was done"
    cell = dataclasses.replace(cell, spec=spec)
    score_handed(cell, handed, evaluation.lm, attempt, ELSEWHERE, problem, lambda: meanwhile.traffic)
    return run_id


def _run_of(token: Token, plan: Plan, store: Store) -> str:
    """The run of a token. A token with a budget of its own gets a run that is never ranked with the track."""
    own = token.calls is not None and "calls" not in plan.base.modified
    return plan.record(
        store,
        "black-box",
        ruled=False,  # its answer was accepted; withdrawn entries are left out of the ranking
        entry=f"{token.name}@service",
        submission_sha256=hashlib.sha256(f"service {token.name} {token.created!r}".encode()).hexdigest(),
        modified=(*plan.base.modified, "calls") if own else plan.base.modified,
        calls=plan.base.calls if token.calls is None else token.calls,
        team="" if token.team == token.name else token.team,
    )
