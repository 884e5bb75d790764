"""A server process on the fake model, to be killed: ``python fake_server.py FOLDER PORT``."""

from __future__ import annotations

import sys
from pathlib import Path

from small_service import FAST, TASK, handler

from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.service.accounts import Accounts
from harness.service.app import make_app
from harness.service.serve import run

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    lm = FakeLanguageModel(TASK, service_s=0.01)
    run(make_app(handler(Accounts(str(folder / "service.db")), lm, FAST, calls=10_000)), "127.0.0.1", port)
