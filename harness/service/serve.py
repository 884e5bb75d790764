"""From a track to a running server, and from answers that were handed in to stored cells."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import msgspec
import uvicorn

from harness import answer as answers
from harness.data import load_shots
from harness.environment import environment_sha256
from harness.lm.broker import Incumbent, Service
from harness.referee import score_handed
from harness.service.app import make_app
from harness.service.desk import Desk, Limits, Place

if TYPE_CHECKING:
    from fastapi import FastAPI

    from harness.evaluate import Evaluation
    from harness.referee import Cell
    from harness.service.book import Account, Book

WHERE = "none (a solver elsewhere, over HTTP)"
"""Stands where the sandbox tier does: such runs are a division of their own."""
_AT_ONCE = 256
_KEEP_ALIVE_S = 75
_GRACE_S = 30


def track_id(evaluation: Evaluation) -> str:
    """Name and digests of what is served: the track with its replaced choices, data, weights. Budgets belong to it."""
    base = evaluation.plan.base
    return f"{evaluation.track.name} {evaluation.track.fingerprint} {base.data_sha256} {base.model_sha256[:16]}"


def places(evaluation: Evaluation) -> dict[tuple[str, int], Place]:
    """The cells of an evaluation, without their test sets."""
    found = {}
    for cell in evaluation.cells:
        shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
        info = evaluation.lm.info(shots.train.texts, cell.task.template)
        found[cell.task.name, cell.split] = Place(cell.task, cell.split, shots, info, cell.spec.calls)
    return found


def service_of(evaluation: Evaluation, book: Book, per_s: float, burst: int) -> FastAPI:
    """The service of an evaluation's cells as an ASGI application."""
    limits = evaluation.track.limits
    allowed = Limits(limits.answer_mb << 20, limits.frame_mb << 20, per_s=per_s, burst=burst)
    desk = Desk(evaluation.lm, track_id(evaluation), places(evaluation), book, allowed)
    return make_app(desk, lambda: settle(evaluation, book))


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. The log has one line per request: path and status, no headers, so no token."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        limit_concurrency=_AT_ONCE,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
        proxy_headers=False,
    )


def settle(evaluation: Evaluation, book: Book) -> None:
    """Score every answer that was handed in for a cell of this evaluation and is not in its store yet.

    Raises:
        StoreError: a fact could not be made durable; what is left is taken up by the next call.
    """
    cells = {(cell.task.name, cell.split): cell for cell in evaluation.cells}
    for account in book.unscored(track_id(evaluation)):
        cell = cells.get((account.task, account.split))
        if cell is not None:
            book.scored(account.number, _score(evaluation, book, account, cell))


def _score(evaluation: Evaluation, book: Book, account: Account, cell: Cell) -> str:
    """Store ledger, answer and predictions as a cell of the token's run; return the run's id."""
    calls = account.rows_total // cell.train_rows
    plan, store = evaluation.plan, evaluation.store
    other = calls != cell.spec.calls and "calls" not in plan.base.modified
    key = dataclasses.replace(
        plan.base,
        entry=f"{account.token}@service",
        submission_sha256=hashlib.sha256(f"service {account.token}".encode()).hexdigest(),
        environment_sha256=environment_sha256(plan.environments["black-box"]),
        modified=(*plan.base.modified, "calls") if other else plan.base.modified,
    )
    run_id = store.open_run(key, plan.environments["black-box"] | {"numerics": plan.numerics})
    if (account.task, account.split) in store.finished(run_id):
        return run_id
    attempt, service = store.begin(run_id, account.task, account.split), Service(config={})
    began = account.submitted or 0.0
    for row, nominal_up, nominal_down, answered in book.ledger(account.number):
        attempt.record(row)
        service.count(row)
        service.nominal_up += nominal_up
        service.nominal_down += nominal_down
        began = min(began, answered - row.seconds)
    blob = book.submitted(account.number) or b""
    service.last = Incumbent(account.rows_spent, answers.from_bytes(blob), blob)
    service.incumbents = {1.0: service.last}
    note = service.last.answer.note
    service.history = [(account.rows_spent, {"loss": note["loss"]} if "loss" in note else {})]
    spec = msgspec.structs.replace(cell.spec, calls=calls)
    tuning_s = (account.submitted or began) - began
    score_handed(dataclasses.replace(cell, spec=spec), service, evaluation.lm, attempt, tuning_s, WHERE)
    return run_id
