"""A line of JSON for each request: who asked for which cell, what it cost, how long it waited, and how it ended.

A line has these fields, and null where a request has nothing of the kind: ``time`` (UTC, ISO 8601), ``token`` (its
name, never the secret), ``method``, ``path``, ``cell``, ``rows`` (charged; 0 for a retry), ``ahead`` (requests that
were in line for the model when it came), ``waited_s`` (for the model), ``seconds`` (from its headers to the end of its
reply) and ``status`` (null: the client left before a reply).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACTS = ("token", "cell", "rows", "ahead", "waited_s")
"""What the service writes into a request's state."""
_LONGEST_PATH = 200


class RequestLog:
    """An ASGI application in front of another one. It writes a line when a reply is sent."""

    def __init__(self, app: Callable[[Any, Any, Any], Any], write: Callable[[str], None]) -> None:
        """Log the requests to `app` with `write`, which gets one line at a time."""
        self._app, self._write = app, write

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), None
        state = scope["state"] = dict(scope.get("state") or {})

        async def sending(message: Any) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]

        try:
            await self._app(scope, receive, sending)
        finally:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "method": scope["method"],
                "path": scope["path"][:_LONGEST_PATH],
                **{name: state.get(name) for name in FACTS},
                "seconds": round(time.perf_counter() - began, 4),
                "status": status,
            }
            self._write(json.dumps(line))


def writer(path: Path | None) -> Callable[[str], None]:
    """A function that appends a line to a file, or prints it to standard error if `path` is None.

    A log that cannot be written must not end the service. The first failure is told on standard error.
    """
    lock, told = threading.Lock(), False

    def write(line: str) -> None:
        nonlocal told
        try:
            with lock:
                if path is None:
                    sys.stderr.write(line + "\n")
                    sys.stderr.flush()
                else:
                    with path.open("a", encoding="utf-8") as log:
                        log.write(line + "\n")
        except OSError as problem:
            if not told and path is not None:
                sys.stderr.write(f"{path} cannot be written ({problem.strerror}); requests are not logged\n")
            told = True

    return write
