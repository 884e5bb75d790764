"""The service's HTML pages: the interface is told whole, and a participant sees the own cells and no others."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from small_service import TASK, TRAIN, WHERE, House, served, until

import harness
from harness.contract import Answer
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.service.accounts import Accounts
from harness.service.serve import service_of, track_id
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.book.close()


class Loads(HTMLParser):
    """Collects what a page loads or links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect addresses."""
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]


@pytest.mark.parametrize("path", ["/docs", "/me"])
def test_pages_need_no_token_and_load_nothing(house: House, path: str) -> None:
    with served(house.app) as where:
        page = httpx2.get(where + path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    rules = page.headers["content-security-policy"]
    assert rules.startswith("default-src 'none'")
    assert "unsafe-inline" not in rules.partition("script-src")[2].partition(";")[0]
    loads = Loads()
    loads.feed(page.text)
    assert all(found.startswith("#") or found in {"openapi.json", "docs", "me"} for found in loads.found)
    assert house.token.split(".")[1] not in page.text


def test_the_interface_has_every_operation_and_type_of_the_description(house: House) -> None:
    with served(house.app) as where:
        page, made = httpx2.get(f"{where}/docs").text, httpx2.get(f"{where}/openapi.json").json()
    for path, methods in made["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    for name in made["components"]["schemas"]:
        assert f'<h3 id="{name}">{name}</h3>' in page
    targets = set(re.findall(r'id="(\w+)"', page))
    assert set(re.findall(r'href="#(\w+)"', page)) <= targets
    assert not [path for path in ("/docs", "/me") if path in made["paths"]]


def test_a_participant_is_told_of_the_own_cells(house: House) -> None:
    bob = house.book.new_token("bob", calls=3)
    with served(house.app) as where, httpx2.Client(base_url=where) as client:
        mine = {"Authorization": f"Bearer {house.token}"}
        client.post(f"{WHERE}/query", json={"texts": "train"}, headers=mine)
        found = client.get("/v1/me", headers=mine).json()
        others = client.get("/v1/me", headers={"Authorization": f"Bearer {bob}"}).json()
        unknown = client.get("/v1/me", headers={"Authorization": "Bearer alice.x"})
        assert client.get("/ready").json()["status"] == "ok"
    assert (found["token"], found["scores_shown"]) == ("alice", False)
    first, second = found["cells"]
    assert (first["task"], first["split"], first["rows_spent"], first["queries"]) == (TASK.name, 1, TRAIN, 1)
    assert (second["rows_spent"], second["answer"], second["score"]) == (0, "open", None)
    assert [cell["rows_total"] for cell in others["cells"]] == [3 * TRAIN, 3 * TRAIN]
    assert sum(cell["rows_spent"] for cell in others["cells"]) == 0
    assert unknown.status_code == 401
    assert "unknown or revoked token" in unknown.json()["message"]


@pytest.mark.parametrize("show", [False, True])
def test_scores_are_told_only_if_the_organiser_shows_them(tiny_track: Path, tmp_path: Path, show: bool) -> None:
    store, book = Store(str(tmp_path / "results.db")), Accounts(str(tmp_path / "service.db"))
    evaluation = Evaluation(load_track(str(tiny_track)), Overrides(tasks=("qqp",)), store)
    token = book.new_token("alice")
    with served(service_of(evaluation, book, 1000, 1000, show_scores=show)) as url:
        with harness.connect(url, token, task="qqp", split=1) as box:
            box.logits(None, box.shots.train.texts)
            box.submit(Answer.of(box.task))
        until(lambda: not book.unscored(track_id(evaluation)), 60)
        (cell,) = httpx2.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {token}"}).json()["cells"]
    (stored,) = [cell for run in store.runs() for cell in store.cells(run.id)]
    assert cell["answer"] == "scored"
    if show:
        assert evaluation.cells[0].task.metric == "accuracy"
        assert cell["score"] == pytest.approx(np.mean(stored.predictions[max(stored.predictions)] == stored.labels))
    else:
        assert cell["score"] is None
    store.close()
    book.close()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; install the package `chromium`")
def test_the_pages_work_in_a_browser_and_have_no_barrier(house: House) -> None:
    pytest.importorskip("playwright", reason="playwright is in the extra `dev`")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="it is in the extra `dev`")
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with served(house.app) as where, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(bypass_csp=False)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(where) else None)
        httpx2.post(
            f"{where}{WHERE}/query", json={"texts": "train"}, headers={"Authorization": f"Bearer {house.token}"}
        )
        page.goto(f"{where}/me")
        page.fill("#token", house.token)
        page.press("#token", "Enter")
        page.wait_for_selector("#cells:not([hidden])")
        cells = page.locator("#cells tbody tr").all_inner_texts()
        assert [cell.split()[0] for cell in cells] == [f"{TASK.name}/1", f"{TASK.name}/2"]
        assert str(TRAIN) in cells[0]
        assert not wrong
        page.fill("#token", "alice.wrong")
        page.press("#token", "Enter")
        page.wait_for_selector("#said:has-text('unknown or revoked')")
        wrong.clear()  # the browser tells of the 401
        page.reload()
        assert page.input_value("#token") == ""
        page.goto(f"{where}/docs")
        assert not wrong
        browser.close()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for name in ("me", "docs"):
                page = browser.new_context(color_scheme=scheme, bypass_csp=True).new_page()  # axe is a script
                page.goto(f"{where}/{name}")
                found = axe.Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
        browser.close()
