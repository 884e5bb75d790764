"""A hub on this machine: the few endpoints that the ordinary clients need, over a folder of repositories."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0ff"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?$")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


class Hub(ThreadingHTTPServer):
    """Serves ``root/{models,datasets}/<owner>/<name>/**``: branch ``main``, and the same under any commit."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.seen: list[str] = []
        """Each request: method and path."""
        self.cut: dict[str, int] = {}
        """File name -> bytes after which each download of it breaks off."""

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self) -> list[str]:
        """Files that were asked for, in order."""
        return [path.rpartition("/")[2] for path in self.seen if path.startswith("GET ") and "/resolve/" in path]


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub over `root` that runs until the block ends."""
    hub = Hub(root)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append(f"{self.command} {path}")
        api, file = _API.match(path), _FILE.match(path)
        folder = None
        if api:
            kind, name, what, revision, inside = api.groups()
            folder = self.server.root / kind / name
        elif file:
            kind, name, revision, inside = file.groups()
            folder = self.server.root / (kind or "models") / name
        if folder is None or not folder.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in {None, "main"} and not re.fullmatch("[0-9a-f]{40}", revision):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif file:
            self._file(folder / inside, _commit(revision))
        elif what == "tree":
            self._json(_tree(folder, inside or "", recursive="recursive=true" in self.path.lower()))
        else:
            siblings = [{"rfilename": entry["path"]} for entry in _tree(folder, "", recursive=True)]
            self._json({"id": name, "sha": _commit(revision), "siblings": siblings})

    def _file(self, path: Path, commit: str) -> None:
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = path.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"'}
        self._send(200, content, headers, self.server.cut.get(path.name) if self.command == "GET" else None)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


def _tree(folder: Path, inside: str, *, recursive: bool) -> list[dict[str, Any]]:
    paths = sorted((folder / inside).rglob("*") if recursive else (folder / inside).glob("*"))
    return [_entry(path, folder) for path in paths if path.is_file() or not recursive]


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": "0"}
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


def _commit(revision: str | None) -> str:
    return COMMIT if revision in {None, "main"} else str(revision)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
