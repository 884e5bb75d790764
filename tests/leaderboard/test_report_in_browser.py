"""The report in a real browser: nothing is loaded from anywhere, everything works by mouse and keyboard."""
# ruff: noqa: E402 - what may be missing is looked for first

from __future__ import annotations

import csv
import itertools
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

for needed in ("jinja2", "markdown_it", "matplotlib", "plotly", "playwright", "axe_playwright_python"):
    pytest.importorskip(needed, reason=f"{needed} is in the extra `dev`")

import report_site
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from harness.leaderboard.report.build import Part
from harness.leaderboard.report.kept import Kept
from harness.leaderboard.report.live import Live, serving
from harness.results.store import Store
from harness.tracks.examples import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; install the package `chromium`"),
]
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One site for all tests."""
    return report_site.made(tmp_path_factory.mktemp("report")).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Watched:
    """A page, and everything that should not happen on it."""

    def __init__(self, page: Page) -> None:
        self.page, self.wrong = page, []
        page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))
        page.on("request", lambda request: self._request(request.url))

    def _request(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.wrong.append(f"request: {url}")

    def open(self, path: Path) -> Page:
        """Load a page and wait until its plots are drawn."""
        self.page.goto(path.as_uri())
        return self.drawn()

    def drawn(self) -> Page:
        """Wait until the plots of the page are drawn."""
        plots = self.page.locator("figure.plot").count()
        if plots:
            self.page.locator(".canvas.js-plotly-plot .main-svg:first-child").nth(plots - 1).wait_for(state="attached")
        return self.page


@pytest.fixture(params=["light", "dark"])
def watched(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Watched]:
    """A fresh page at desktop size, in each colour scheme; nothing wrong may have happened on it in the end."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=request.param)
    made = Watched(context.new_page())
    yield made
    assert made.wrong == []
    context.close()


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """The ranking, at desktop size."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    made = Watched(context.new_page())
    yield made.open(site / "index.html")
    assert made.wrong == []
    context.close()


def column(page: Page, number: int) -> list[str]:
    """Sort keys of the first table's column."""
    cells = page.locator(f"table >> nth=0 >> css=tbody tr:not([hidden]) > :nth-child({number})")
    return [(cell.get_attribute("data-v") or cell.inner_text()) for cell in cells.all()]


def test_every_page_opens_without_errors_or_requests(watched: Watched, site: Path) -> None:
    """All pages, plots drawn, hostile strings included: no script of theirs has run."""
    for path in sorted(site.rglob("*.html")):
        opened = watched.open(path)
        assert opened.evaluate("window.hacked") is None, path
        assert opened.locator("h1").count() == 1


def test_axe_finds_nothing_serious(watched: Watched, site: Path) -> None:
    """One page of each kind, in both colour schemes."""
    names = ["index", "progress", "cost", "pairs", "history", "cells", "tasks", "rules", "tasks/dbpedia"]
    entries = [next(site.glob(f"submissions/{name}*.html")) for name in ("good", "evil", "crashed", "script")]
    pair = next(site.glob("pairs/good-*.html"))
    for path in [*(site / f"{name}.html" for name in names), *entries, pair]:
        watched.open(path)
        for details in watched.page.locator("details").all()[:8]:
            details.evaluate("each => { each.open = true }")
        options = {"preload": False}  # it would be a request
        found = Axe().run(watched.page, options=options).response["violations"]
        serious = [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] != "minor"]
        assert serious == [], path


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
def test_no_page_is_wider_than_the_screen(browser: Browser, site: Path, size: tuple[int, int]) -> None:
    """Only tables scroll sideways."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    made = Watched(context.new_page())
    for path in sorted(site.rglob("*.html")):
        made.open(path)
        assert made.page.evaluate("document.documentElement.scrollWidth") <= size[0], path
    context.close()


def test_headers_sort_by_mouse_and_keyboard(page: Page, site: Path) -> None:
    """By the CSV's numbers, highest first, then lowest; what is missing stays last; the order is announced."""
    records = list(csv.DictReader((site / "ranking.csv").read_text(encoding="utf-8").splitlines()))
    averages = sorted((float(r["average"]) for r in records if "external" not in r["division"]), reverse=True)
    header = page.locator("th", has=page.get_by_role("button", name="Average")).first
    button = header.get_by_role("button")
    button.click()
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(key) for key in column(page, 3)] == averages
    assert "sorted by Average, highest first" in page.locator("#said").inner_text()
    button.focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert [float(key) for key in column(page, 3)] == averages[::-1]
    page.locator("th", has=page.get_by_role("button", name="qnli")).first.get_by_role("button").click()
    assert column(page, 10)[-1] == "" or "" not in column(page, 10)
    assert page.locator("th[aria-sort]").count() == 1


def test_the_first_press_on_a_cost_sorts_the_cheapest_first(page: Page) -> None:
    header = page.locator("th", has=page.get_by_role("button", name="Calls")).first
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    calls = [float(key) for key in column(page, 5) if key != "\N{EN DASH}"]
    assert calls == sorted(calls)


def test_the_filter_narrows_by_name_and_access(page: Page) -> None:
    """Shown rows are counted."""
    page.get_by_label("Name").first.fill("near")
    assert page.locator("#ranking-1 tbody tr:visible").count() == 1
    assert page.locator("form.filter output").first.inner_text() == "1 of 8 shown"
    page.get_by_label("Name").first.fill("")
    page.get_by_label("Access").first.select_option("white-box")
    assert page.locator("#ranking-1 tbody tr:visible").count() == 1


def test_lines_are_named_at_their_ends_and_can_be_chosen(watched: Watched, site: Path) -> None:
    """By keyboard, too; the plots of the tasks follow."""
    page = watched.open(site / "progress.html")
    figure = page.locator("#progress")
    named = figure.locator(".annotation")
    assert {"good", "nearly", "bare template"} <= set(named.all_text_contents())
    boxes = sorted(box["y"] for name in named.all() if (box := name.bounding_box()))
    assert all(after - before > 11 for before, after in itertools.pairwise(boxes))
    figure.locator("summary").click()
    box = figure.get_by_role("checkbox", name="good")
    figures = "[...document.querySelectorAll('#progress, .multiples figure')]"
    counts = f"{figures}.map((each) => each.querySelectorAll('.scatterlayer .trace').length)"
    before = page.evaluate(counts)
    assert box.is_checked()
    box.click()
    page.wait_for_function(
        f"JSON.stringify({counts}) === '{json.dumps([n - 3 for n in before], separators=(',', ':'))}'"
    )
    assert "good" not in named.all_text_contents()
    box.press("Space")
    page.wait_for_function(f"JSON.stringify({counts}) === '{json.dumps(before, separators=(',', ':'))}'")


def test_the_cost_axis_can_be_chosen(watched: Watched, site: Path) -> None:
    """Tokens, bytes, seconds; calls have a plot of their own."""
    page = watched.open(site / "cost.html")
    for name, title in (("seconds", "seconds of tuning"), ("bytes", "bytes"), ("tokens", "tokens")):
        page.locator("#trade select").select_option(name)
        page.wait_for_function(f"document.querySelector('#trade .xtitle').textContent.startsWith('{title}')")
    assert page.locator("#budgets .textpoint").first.text_content()


def test_two_entries_can_be_chosen_and_compared(watched: Watched, site: Path) -> None:
    """From the page of pairs by two choices or by a field, and from the page of an entry."""
    page = watched.open(site / "pairs.html")
    first, second = page.locator("form.pick >> nth=0 >> css=select").all()
    first.select_option(label="poor")
    second.select_option(label="good")
    page.locator("form.pick >> nth=0").get_by_role("link").click()
    assert watched.drawn().locator("h1").inner_text() == "good and poor"
    page.go_back()
    page.get_by_role("link", name="poor minus good:").click()
    assert watched.drawn().locator("h1").inner_text() == "good and poor"
    (own,) = site.glob("submissions/poor*.html")
    watched.open(own)
    page.locator("form.pick select").select_option(label="nearly")
    page.locator("form.pick").get_by_role("link").click()
    assert watched.drawn().locator("h1").inner_text() == "nearly and poor"
    page.locator("summary").first.click()
    assert page.locator("ol.texts li").first.is_visible()


def test_the_report_of_a_running_evaluation_refreshes_itself(browser: Browser, tmp_path: Path) -> None:
    """The page shows what runs, and is loaded again when a cell has ended."""
    store = Store(str(tmp_path / "results.db"))
    run = report_site.add(store, "good", 0.8, cells=report_site.CELLS[:2])
    store.begin(run, *report_site.CELLS[2])
    folder = tmp_path / "served"
    folder.mkdir()
    live = Live(store, Part(report_site.TRACK, Source("embedded")), folder, tmp_path, Kept(tmp_path / "kept"))
    live.turn(now=0)
    context = browser.new_context()
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    with serving(live, 0) as address:
        page.goto(address)
        page.get_by_text("2 of 15 cells").first.wait_for()
        page.locator("#live progress").nth(1).wait_for()  # the table has the same text before the script draws these
        assert page.locator("#live progress").count() == 2
        report_site.add(store, "good", 0.8, cells=report_site.CELLS[3:5])
        live.turn(now=1e6)
        page.locator("#ranking-1").get_by_text("4 of 15 cells").wait_for(timeout=60_000)
        assert wrong == []
    page.get_by_text("The server does not answer").wait_for(timeout=60_000)
    context.close()
    store.close()


def test_colours_follow_the_scheme(browser: Browser, site: Path) -> None:
    """Plots are drawn again when the colour scheme changes."""
    context = browser.new_context(color_scheme="light")
    page = Watched(context.new_page()).open(site / "progress.html")
    line = page.locator("#progress .scatterlayer .trace .lines path").last

    def stroke() -> Any:
        return line.evaluate("path => getComputedStyle(path).stroke")

    light = stroke()
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    assert stroke() != light
    context.close()


def test_the_keyboard_reaches_the_content_first(page: Page) -> None:
    """The first stop is the skip link, which is then to be seen and leads to the content."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    box = page.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_pages_can_be_read_without_scripts(browser: Browser, site: Path) -> None:
    """Tables stand as they are, and controls that would do nothing are not there."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    assert page.locator("#ranking-1 tbody tr").count() == 8
    assert not page.locator("form.filter").first.is_visible()
    context.close()


def test_without_scripts_every_plot_is_a_figure_and_no_box_is_empty(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        for figure in page.locator("figure.plot").all():
            assert not figure.locator(".canvas").is_visible(), path
            if not figure.is_visible():  # the small curves of a pair: the large one says where the numbers are
                assert path.parent.name == "pairs"
                continue
            assert figure.locator("img.still, noscript p").first.is_visible(), path
            assert figure.locator("img.paper:visible").count() == 0, path
        for picture in page.locator("img.still").all():
            assert picture.bounding_box()["height"] > 100, path  # type: ignore[index]
    context.close()


@pytest.mark.parametrize("width", [186, 192], ids=["A4", "letter"])
def test_paper_has_every_column_dot_and_figure(browser: Browser, site: Path, width: int) -> None:
    """Between margins of 12 mm no table of the ranking is cut, and figures stand in place of what scripts draw."""
    pixels = int(width / 25.4 * 96)
    context = browser.new_context(viewport={"width": pixels, "height": 1000})
    made = Watched(context.new_page())
    made.page.emulate_media(media="print")
    made.page.goto((site / "index.html").as_uri())
    assert made.page.evaluate("document.documentElement.scrollWidth") <= pixels
    tables = made.page.locator("table").all()
    assert max(table.bounding_box()["width"] for table in tables) <= pixels + 1  # type: ignore[index]
    for dot in made.page.locator("svg.dot circle").all():
        assert dot.bounding_box()["width"] > 4  # type: ignore[index]
    made.page.goto((site / "progress.html").as_uri())
    assert made.page.locator("img.paper:visible").count() == made.page.locator("figure.plot").count()
    assert made.page.locator(".canvas:visible").count() == 0
    assert made.page.evaluate("document.documentElement.scrollWidth") <= pixels
    assert made.page.pdf(format="A4" if width == 186 else "Letter").startswith(b"%PDF")
    assert made.wrong == []
    context.close()


def test_on_a_phone_the_first_columns_are_those_that_matter(browser: Browser, site: Path) -> None:
    """Rank, name, average, distance to the leader and calls are seen without scrolling sideways."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = Watched(context.new_page()).open(site / "index.html")
    shown = [
        header.inner_text().strip()
        for header in page.locator("#ranking-1 thead th").all()
        if header.bounding_box()["x"] + header.bounding_box()["width"] <= 390  # type: ignore[index]
    ]
    assert shown[:5] == ["#", "Submission", "Average", "Behind", "Calls"]
    context.close()
