"""A server process on the fake model, to be killed: ``python fake_server.py BOOK PORT``; a book is a file or a URL."""

from __future__ import annotations

import sys

from small_service import FAST, TASK, handler

from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.service.accounts import Accounts
from harness.service.app import make_app
from harness.service.serve import run

if __name__ == "__main__":
    book, port = sys.argv[1], int(sys.argv[2])
    lm = FakeLanguageModel(TASK, service_s=0.01)
    run(make_app(handler(Accounts(book), lm, FAST, calls=10_000)), "127.0.0.1", port)
