"""The report of a running evaluation, on this machine alone, which refreshes itself: `harness watch --web`.

One thread reads the database: it looks what runs, and makes the report anew when cells have ended. Threads of the
server only give files and the last look away. The report is made beside the old one, so a page is never half there.
It is not made more often than one part in `SHARE` of the time allows, because the evaluation needs the processor.
"""

from __future__ import annotations

import datetime as dt
import functools
import http.server
import json
import shutil
import socketserver
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.leaderboard.report.build import build_site
from harness.leaderboard.watch import look, shown_seconds
from harness.results.at_rest import state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.leaderboard.report.build import Part
    from harness.leaderboard.report.kept import Kept
    from harness.leaderboard.watch import Look
    from harness.results.store import Store

LOOPBACK = "127.0.0.1"
SHARE = 4
HOSTS = (LOOPBACK, "localhost")
"""Names by which a browser may ask: others are those of a page that was made to reach this server."""


class Live:
    """The report and the last look, made by one thread and read by others."""

    def __init__(self, store: Store, part: Part, folder: Path, submissions: Path, kept: Kept) -> None:
        self._store, self._part, self._folder = store, part, folder
        self._submissions, self._kept = submissions, kept
        self._state: object = None
        self._seen: Look | None = None
        self._number, self._may_build_at = 0, 0.0
        self.site = folder
        """The directory of the newest report."""
        self.news: dict[str, Any] = {}
        """What pages ask for."""

    def turn(self, now: float | None = None) -> bool:
        """Look, and make the report anew if cells have ended and it is time. Returns whether it was made."""
        at = time.monotonic() if now is None else now
        self._seen = look(self._store, self._part.track, self._seen)
        found = state(self._store)
        made = found != self._state and at >= self._may_build_at
        if made:
            self._state = found
            self._build(at)
        self.news = self.news | _news(self._seen)
        return made

    def _build(self, at: float) -> None:
        self._number += 1
        site = self._folder / f"report-{self._number}"
        built = build_site(self._store, [self._part], site, self._submissions, self._kept, live=True)
        before, self.site = self.site, site
        self._may_build_at = at + SHARE * built.seconds
        self.news = self.news | {"version": self._number, "built": _clock(time.time())}
        if before != self._folder:
            shutil.rmtree(before, ignore_errors=True)


def _news(seen: Look) -> dict[str, Any]:
    """A look for the script of the pages."""
    runs = [
        {
            "entry": run.entry,
            "finished": run.finished,
            "planned": run.planned,
            "last": run.last,
            "left": "" if run.left_s is None else shown_seconds(run.left_s),
            "open": [
                {
                    "name": f"{cell.task}/{cell.split}",
                    "calls": f"{cell.calls:,.0f}",
                    "budget": f"{cell.budget:,}",
                    "done": cell.calls,
                    "total": cell.budget,
                    "rate": f"{cell.calls_per_s:,.1f}",
                    "left": "" if cell.left_s is None else shown_seconds(cell.left_s),
                }
                for cell in run.open
            ],
        }
        for run in seen.runs
    ]
    return {"at": _clock(seen.at), "runs": runs}


def _clock(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%H:%M:%S} UTC"


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Gives files of the newest report away, and the news."""

    def __init__(self, *arguments: Any, live: Live) -> None:
        self._live = live
        super().__init__(*arguments, directory=str(live.site))

    def do_GET(self) -> None:
        """A file, or the news; the request must name this machine."""
        if self._foreign():
            return
        if self.path != "/live.json":
            super().do_GET()
            return
        body = json.dumps(self._live.news).encode()
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        """As `do_GET`, without the content."""
        if not self._foreign():
            super().do_HEAD()

    def end_headers(self) -> None:
        """Pages change; the library of the plots does not."""
        self.send_header("Cache-Control", "max-age=3600" if self.path.endswith("plotly.min.js") else "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """No directory is listed."""
        del path
        self.send_error(http.HTTPStatus.NOT_FOUND)

    def log_message(self, *_: Any) -> None:
        """The terminal is for people."""

    def _foreign(self) -> bool:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in HOSTS:
            self.send_error(http.HTTPStatus.FORBIDDEN, "this server answers to localhost alone")
        return host not in HOSTS


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


@contextmanager
def serving(live: Live, port: int) -> Iterator[str]:
    """Serve the report on the loopback address while the ``with`` lasts; gives its address. Port 0 is any free one.

    Raises:
        InputError: the port is taken.
    """
    try:
        server = _Server((LOOPBACK, port), functools.partial(_Handler, live=live))
    except OSError as problem:
        raise InputError(
            f"port {port} of {LOOPBACK}: {problem.strerror}; name another with --port, 0 is any free one"
        ) from problem
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
