"""A small service of text tasks on the fake model: two cells, whose rows have four tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from small_service import FAST

from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.fake_text import fake_text_shots, fake_text_task
from harness.blackbox.text_pricing import TextPricing
from harness.service.accounts import Accounts
from harness.service.app import make_app
from harness.service.queries import Limits, Place, QueryHandler

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI

TASK, TRAIN, CALLS, ROW_TOKENS = fake_text_task(), 4, 20, 4
ROWS = CALLS * TRAIN
WHERE = f"/v1/cells/{TASK.name}/1"
SHOTS = {split: fake_text_shots(np.random.default_rng(split), TRAIN) for split in (1, 2)}


def model(service_s: float = 0.0) -> Any:
    """The fake model, whose "token ids" are words."""
    return FakeLanguageModel(TASK, service_s=service_s)


def handler(book: Accounts, lm: Any, limits: Limits = FAST, calls: int = CALLS) -> QueryHandler:
    """A handler with two cells."""
    text = TextPricing(lm, lm.text_model(), TASK, limits.frame_bytes, ROW_TOKENS)
    offered = {
        (TASK.name, split): Place(TASK, split, shots, lm.info((), ""), calls, ROW_TOKENS, text=text)
        for split, shots in SHOTS.items()
    }
    return QueryHandler(lm, "fake-text 0123", offered, book, limits)


class TextHouse:
    """A book in a folder, a token, and a handler on both."""

    def __init__(self, folder: Path, calls: int = CALLS, lm: Any = None, **limits: Any) -> None:
        """Open everything."""
        self.lm = lm or model()
        self.book = Accounts(str(folder / "service.db"))
        self.token = self.book.new_token("alice")
        self.handler = handler(self.book, self.lm, replace(FAST, **limits), calls)

    @property
    def app(self) -> FastAPI:
        """A fresh application."""
        return make_app(self.handler)

    @property
    def _account(self) -> Any:
        found = self.book.token(self.token)
        assert found is not None
        return self.handler.account(found, self.handler.places[TASK.name, 1])

    @property
    def spent(self) -> int:
        """Rows that the book says were spent on split 1."""
        return int(self._account.rows_spent)

    @property
    def ledger(self) -> list[int]:
        """Rows of each charged query of split 1."""
        return [charged.row.rows for charged in self.book.ledger(self._account.number)]
