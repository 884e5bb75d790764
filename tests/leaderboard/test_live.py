"""The report of a running evaluation: served on this machine alone, and made anew when cells have ended."""
# ruff: noqa: E402 - what may be missing is looked for first

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

for needed in ("jinja2", "markdown_it", "matplotlib", "plotly"):
    pytest.importorskip(needed, reason=f"{needed} is in the extra `report`")

import report_site
from report_site import CELLS, TRACK

from harness.errors import InputError
from harness.leaderboard.report.build import Part
from harness.leaderboard.report.kept import Kept
from harness.leaderboard.report.live import Live, serving
from harness.results.store import Store
from harness.tracks.examples import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An entry of which a cell is running."""
    made = Store(str(tmp_path / "results.db"))
    run = report_site.add(made, "good", 0.8, cells=CELLS[:2])
    made.begin(run, *CELLS[2])
    yield made
    made.close()


@pytest.fixture
def live(store: Store, tmp_path: Path) -> Live:
    folder = tmp_path / "served"
    folder.mkdir()
    return Live(store, Part(TRACK, Source("embedded")), folder, tmp_path, Kept(tmp_path / "kept"))


def ask(address: str, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://").strip("/"), timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def news(address: str) -> Any:
    return json.loads(ask(address, "/live.json")[1])


def test_a_new_cell_makes_a_new_report_when_it_is_time(live: Live, store: Store) -> None:
    """Pages learn of it by a number; what runs is looked at each time."""
    with serving(live, 0) as address:
        assert live.turn(now=0)
        first = news(address)
        assert first["version"] == 1
        (run,) = first["runs"]
        assert (run["entry"], run["finished"], run["planned"]) == ("good", 2, 15)
        assert [cell["name"] for cell in run["open"]] == ["{}/{}".format(*CELLS[2])]
        status, page, headers = ask(address, "/")
        assert status == 200
        assert b"2 of 15 cells" in page
        assert b"live.js" in page
        assert headers["Cache-Control"] == "no-store"
        report_site.add(store, "good", 0.8, cells=CELLS[3:])
        assert not live.turn(now=0.001)  # the last one took longer
        assert news(address)["version"] == 1
        assert live.turn(now=1e6)
        assert news(address)["version"] == 2
        assert b"14 of 15 cells" in ask(address, "/index.html")[1]
        assert not live.turn(now=2e6)  # nothing has ended since
        for path in ("/assets/live.js", "/assets/site.css", "/progress.html", "/ranking.csv"):
            assert ask(address, path)[0] == 200, path


def test_it_answers_this_machine_alone_and_gives_nothing_else_away(live: Live, tmp_path: Path) -> None:
    """A page of another site that resolves its name to this machine is refused, and so is every way out."""
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    live.turn(now=0)
    with serving(live, 0) as address:
        port = address.strip("/").rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
            assert ask(address, "/", host=host)[0] == 403
            assert ask(address, "/live.json", host=host)[0] == 403
            assert ask(address, "/", "HEAD", host=host)[0] == 403
        assert ask(address, "/", host=f"localhost:{port}")[0] == 200
        for path in ("/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/assets", "/assets/", "//etc/passwd"):
            assert b"secret" not in ask(address, path)[1]
            assert ask(address, path)[0] in {301, 400, 404}, path
        assert ask(address, "/", "POST")[0] == 501
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.1", int(port)))  # it is closed with the `with`


def test_a_port_that_is_taken_is_told(live: Live) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"port {port} of 127.0.0.1: .* --port, 0 is any free one"),
            serving(live, port),
        ):
            pass


def test_a_report_from_disk_asks_nobody(tmp_path: Path, store: Store) -> None:
    from harness.leaderboard.report.build import build

    built = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path)
    for page in built.path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "live.js" not in text
        assert "connect-src" not in text
        assert "refresh" not in text.partition("<main")[0]
