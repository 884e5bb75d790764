"""A server process on the fake model, to be killed: ``python fake_server.py BOOK PORT [text]``.

A book is a file or a URL. With ``text`` it serves a task whose answer is text.
"""

from __future__ import annotations

import sys

import small_text_service as text
from small_service import FAST, TASK, handler

from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.service.accounts import Accounts
from harness.service.app import make_app
from harness.service.serve import run

if __name__ == "__main__":
    book, port = sys.argv[1], int(sys.argv[2])
    if sys.argv[3:] == ["text"]:
        made = text.handler(Accounts(book), text.model(service_s=0.01), FAST, calls=10_000)
    else:
        made = handler(Accounts(book), FakeLanguageModel(TASK, service_s=0.01), FAST, calls=10_000)
    run(make_app(made), "127.0.0.1", port)
