"""The report says what the database says, and nothing in it can do or load anything."""
# ruff: noqa: E402 - what may be missing is looked for first

from __future__ import annotations

import csv
import html
import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

for needed in ("jinja2", "markdown_it", "matplotlib", "plotly"):
    pytest.importorskip(needed, reason=f"{needed} is in the extra `report`")

import plotly.graph_objects as go
import report_site
from report_site import CALLS, CELLS, FROZEN, HOSTILE, TRACK

from harness.errors import InputError
from harness.leaderboard.compare import compare, verdict
from harness.leaderboard.report.build import Part, build, build_site
from harness.leaderboard.report.facts import confusion, gather, page_name
from harness.leaderboard.report.pages import Axis
from harness.leaderboard.report.plots import log_with_zero
from harness.leaderboard.report.prose import rendered
from harness.results.store import Store
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.leaderboard.report.build import Built

ROOT = Path(__file__).resolve().parents[2]
BARE = FROZEN["manual"]
ENTRIES = 6
"""Complete entries of the main division."""
PAIRS = ENTRIES * (ENTRIES - 1) // 2
LOADING = {"src", "srcset", "action", "data", "poster", "background", "formaction"}


class Page(HTMLParser):
    """The parts of a page that tests need: attributes, ids, links, tables, and the JSON of plots."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.tags, self.text = path, [], path.read_text(encoding="utf-8")
        self.attributes: list[tuple[str, str, str]] = []
        self.plots: list[Any] = []
        self.scripts: list[str] = []
        self._open = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self._open = dict(attrs).get("type") or "code"

    def handle_data(self, data: str) -> None:
        """Remember what is inside scripts."""
        if self._open == "application/json":
            self.plots.append(json.loads(data))
        elif self._open:
            self.scripts.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        """The end of a script."""
        if tag == "script":
            self._open = ""

    def rows(self, table: str) -> list[list[str]]:
        """The cells of a table's body, as HTML."""
        body = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', self.text, flags=re.DOTALL)
        assert body
        return [re.findall(r"<t[dh]\b(.*?)</t[dh]>", row, flags=re.DOTALL) for row in body[1].split("</tr>")[:-1]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One site for all tests that only read it."""
    return report_site.made(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def pages(built: Built) -> dict[str, Page]:
    """All pages by path."""
    return {p.relative_to(built.path).as_posix(): Page(p) for p in sorted(built.path.rglob("*.html"))}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty database."""
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def in_csv(built: Built) -> list[dict[str, str]]:
    """The lines of the CSV beside the pages."""
    return list(csv.DictReader((built.path / "ranking.csv").read_text(encoding="utf-8").splitlines()))


def test_there_is_a_page_for_everything(built: Built, pages: dict[str, Page]) -> None:
    """One per entry, task and pair, and the eight of the head."""
    assert built.pages == len(pages) == 9 + 5 + 9 + PAIRS
    assert built.bytes == sum(p.stat().st_size for p in built.path.rglob("*") if p.is_file())
    assert len([name for name in pages if name.startswith("submissions/")]) == 9


def test_the_numbers_of_the_ranking_are_those_of_the_csv(built: Built, pages: dict[str, Page]) -> None:
    """Each figure shown is the CSV's, rounded to a tenth of a point; sort keys are the CSV's to the last digit."""
    records = {row["run"]: row for row in in_csv(built)}
    rows = [row for n in (1, 2) for row in pages["index.html"].rows(f"ranking-{n}")]
    assert len(rows) == len(records) == 9
    by_slug = {page_name(row["submission"], run): row for run, row in records.items()}
    for row in rows:
        (slug,) = re.findall(r'href="submissions/([^"]+)\.html"', row[1])
        record = by_slug.pop(slug)
        keys = [re.findall(r'data-v="([^"]*)"', cell) for cell in row]
        tasks = sorted(TRACK.tasks)
        calls = "" if record["access"] == "white-box" else record["calls"]  # nothing of a reference's is metered
        given = [record["rank"], record["average"], record["behind"], calls, record["wall_s"]]
        given += [*(record[t] for t in tasks), record["runs"]]
        assert [key[0] for n, key in enumerate(keys) if key and n != len(row) - 1] == given
        shown = re.search(r">([\d.]+)", row[2])
        assert shown
        assert float(shown[1]) == pytest.approx(100 * float(record["average"]), abs=0.0551)
        if record["average_low"]:
            low, high = (float(x) for x in re.findall(r"\[([\d.]+), ([\d.]+)\]", row[2])[0])
            limits = [100 * float(record["average_low"]), 100 * float(record["average_high"])]
            assert [low, high] == pytest.approx(limits, abs=0.0551)
    assert not by_slug


def test_the_json_beside_it_is_that_of_the_leaderboard(built: Built) -> None:
    """The same entries as in the CSV, with their ranks; null where the CSV is empty."""
    document = json.loads((built.path / "ranking.json").read_text(encoding="utf-8"))
    records = in_csv(built)
    assert ["" if entry["rank"] is None else str(entry["rank"]) for entry in document["entries"]] == [
        record["rank"] for record in records
    ]


def test_the_rules_and_the_columns_are_beside_the_ranking(built: Built, pages: dict[str, Page]) -> None:
    """The rules with their reference; every column of both files."""
    assert "was not found" not in pages["rules.html"].text
    assert pages["rules.html"].tags.count("h2") > 5
    text = (built.path / "columns.md").read_text(encoding="utf-8")
    for name in ("ranking.csv", "cells.csv"):
        header = (built.path / name).read_text(encoding="utf-8").partition("\n")[0].split(",")
        kept = [column for column in header if column.removesuffix("_std").removesuffix("_splits") not in TRACK.tasks]
        assert [column for column in kept if f"`{column}`" not in text] == [], name
    assert "](" not in text


def test_the_efficiency_list_stands_with_the_ranking(built: Built, pages: dict[str, Page]) -> None:
    """In the order of the CSV's ranks, with what each cost; and the page says what the list can tell."""
    text = pages["index.html"].text
    start = text.index('aria-label="Efficiency table')
    body = text[start : text.index("</table>", start)]
    shown = re.findall(r'rank" data-v="(\d+)".*?data-v="([\d.]+)"', body, flags=re.DOTALL)
    main = [row for row in in_csv(built) if row["division"].startswith("pure / cpu / sandbox process")]
    ordered = sorted((row for row in main if row["efficiency"]), key=lambda row: -float(row["efficiency"]))
    assert [(row["efficiency_rank"], float(row["efficiency"])) for row in ordered] == [
        (rank, float(value)) for rank, value in shown
    ]
    assert "What this can tell:" in text
    assert "is seen in 9 of 10 cases" in text


def test_the_first_words_say_who_leads_by_how_much_and_who_ties(pages: dict[str, Page]) -> None:
    """Right below the title; the interval of the lead is that of the table."""
    text = pages["index.html"].text
    said = html.unescape(re.sub(r"<[^>]+>", "", text[text.index("</h1>") :].partition("</p>")[0])).strip()
    found = re.fullmatch(r"good leads by ([\d.]+) points (\[[\d.]+, [\d.]+\]) over poor; nearly ties with it\.", said)
    assert found, said
    rows = {row[1].split(">")[2].split("<")[0]: row for row in pages["index.html"].rows("ranking-1")}
    behind = re.sub(r"<[^>]+>", "", rows["poor"][3].partition(">")[2]).strip()
    assert behind == f"{found[1]} {found[2]}"
    assert re.sub(r"<[^>]+>", "", rows["good"][3].partition(">")[2]).strip() == ""


def test_headings_are_in_order(pages: dict[str, Page]) -> None:
    """One first, and no level left out on the way down; READMEs of others included."""
    for page in pages.values():
        levels = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1, page.path
        assert levels.count(1) == 1, page.path
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), (page.path, levels)


def test_every_dot_and_interval_is_drawn_as_svg(pages: dict[str, Page]) -> None:
    """Since paper shows no backgrounds: a line and a circle for each entry with an interval."""
    rows = pages["index.html"].rows("ranking-1")
    drawn = [cell for row in rows for cell in row if "<svg" in cell]
    assert len(drawn) == len([row for row in rows if "limits" in row[2]]) > 0
    assert all(("<circle" in cell and "<line" in cell) or "below</text>" in cell for cell in drawn)


def test_each_plot_has_a_figure_or_a_word_for_those_without_scripts(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert page.text.count("<noscript>") == len(page.plots), page.path
    assert pages["progress.html"].text.count('class="still"') == 3 + 5
    assert 'src="../figures/progress-sst2.svg"' in pages["tasks/sst2.html"].text


def test_lists_with_less_access_show_ties_as_the_table_does(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "good", 0.80)
    report_site.add(store, "nearly", 0.795)
    report_site.add(store, "deep", 0.9, level=3)
    site = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path)
    store.close()
    text = (site.path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'class="place">([^<]+)</span> <a[^>]+>(\w+)<', text) == [("1=", "good"), ("1=", "nearly")]


def test_ties_are_marked(pages: dict[str, Page]) -> None:
    """Entries that cannot be told from the first share its rank, others do not."""
    table = {row[1].split(">")[2].split("<")[0]: row[0] for row in pages["index.html"].rows("ranking-1")}
    assert ">1=" in table["good"]
    assert ">1=" in table["nearly"]
    assert ">3" in table["poor"]
    assert "\N{EN DASH}" in table["partial"]
    assert "\N{EN DASH}" in table["tuned"]


def test_what_lacks_cells_says_so_and_its_scores_are_told_apart(built: Built, tmp_path: Path) -> None:
    """For an entry and a reference: the number of finished cells, grey scores, and no interval."""
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "whole", 0.8)
    report_site.add(store, "reference", 0.9, cells=CELLS[:4], access="white-box")
    site = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path)
    store.close()
    whole, reference = Page(site.path / "index.html").rows("ranking-1")
    assert "of 15 cells" not in whole[1]
    assert "4 of 15 cells" in reference[1]
    assert "part" in reference[2]
    assert "part" not in whole[2]
    assert "limits" not in reference[2]
    (page,) = site.path.glob("submissions/reference*.html")
    assert "over the 4 cells that have run, of 15" in page.read_text(encoding="utf-8")


def test_nothing_that_is_not_metered_is_shown_as_nothing(pages: dict[str, Page]) -> None:
    """A reference has no calls, tokens and bytes. They are shown as a dash and not as zero."""
    (cost,) = [row for row in pages["cost.html"].rows("cost") if ">tuned<" in row[0]]
    assert [cell.split(">")[1] for cell in cost[2:6]] == ["\N{EN DASH}"] * 4
    (tuned,) = [page for name, page in pages.items() if name.startswith("submissions/tuned")]
    assert tuned.plots == []
    assert "<dt>Tokens</dt>" not in tuned.text


def test_names_stand_beside_the_dots_of_the_front_alone(pages: dict[str, Page]) -> None:
    """All names would overlap. The others are shown at the pointer."""
    trade = pages["cost.html"].plots[1]
    for choice in trade["choices"]:
        named = {name for name in choice["text"][1] if name}
        scores = dict(zip(trade["data"][1]["hovertext"], choice["y"][1], strict=True))
        assert named == {name for name, score in scores.items() if score in choice["y"][0]}
    assert len(trade["data"][1]["hovertext"]) == len(trade["data"][1]["y"])


def test_another_division_has_a_table_of_its_own(pages: dict[str, Page]) -> None:
    """An entry with outside data stands in no other list."""
    assert "outside" not in str(pages["index.html"].rows("ranking-1"))
    (row,) = pages["index.html"].rows("ranking-2")
    assert "outside" in row[1]


def test_nothing_loads_or_links_anything_outside(built: Built, pages: dict[str, Page]) -> None:
    """No attribute that loads or leads has an address; nor has the style sheet; nor have the figures."""
    for page in pages.values():
        for tag, name, value in page.attributes:
            assert name not in LOADING | {"href"} or "//" not in value, (page.path, tag, name, value)
            assert not value.lower().startswith("javascript:")
    for file in ("site.css", "site.js"):
        text = (built.path / "assets" / file).read_text(encoding="utf-8")
        assert not re.search(r"https?:|@import|url\(", text)
    for figure in (built.path / "figures").glob("*.svg"):
        text = figure.read_text(encoding="utf-8")
        assert not re.search(r'(?:href|src)="(?!#)', text)
        assert "<script" not in text


def test_every_link_leads_somewhere(pages: dict[str, Page], built: Built) -> None:
    """Files exist, and so do the places in them."""
    count = 0
    for page in pages.values():
        ids = {value for _, name, value in page.attributes if name == "id"}
        for _, name, value in page.attributes:
            if name not in {"href", "src"} or value == "data:,":
                continue
            count += 1
            if value.startswith("#"):
                assert value[1:] in ids
            else:
                target = (page.path.parent / value).resolve()
                assert target.is_file(), (page.path, value)
                assert target.is_relative_to(built.path)
    assert count > 100


def test_strings_of_submissions_do_nothing(pages: dict[str, Page]) -> None:
    """Names, details, output, configurations and READMEs with markup in them add no element to any page."""
    for page in pages.values():
        pictures = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
        assert page.tags.count("img") == len(pictures), page.path
        assert all(re.fullmatch(r"(\.\./)?figures/[a-z0-9_-]+\.svg", each) for each in pictures), page.path
        assert not any(name.startswith("on") for _, name, _ in page.attributes), page.path
        assert not any(page.scripts), page.path
        assert page.tags.count("script") == 1 + bool(page.plots) + len(page.plots), page.path
    (evil,) = [page for name, page in pages.items() if name.startswith("submissions/evil")]
    assert "&lt;script&gt;window.hacked" in evil.text
    assert "a paper <small>(http://evil.example/paper)</small>" in evil.text
    assert "a picture" in evil.text
    assert "../../docs" not in evil.text
    assert "may describe other code" in evil.text


def test_a_hostile_name_is_shown_as_it_is(pages: dict[str, Page]) -> None:
    """Its page has a harmless file name and shows the name letter by letter."""
    (name,) = [name for name in pages if name.startswith("submissions/script")]
    assert re.fullmatch(r"submissions/[a-z0-9-]+\.html", name)
    heading = re.search(r"<h1>(.*?)</h1>", pages[name].text)
    assert heading
    assert html.unescape(heading[1]) == HOSTILE


def test_plots_are_what_plotly_reads(pages: dict[str, Page]) -> None:
    """Each plot passes plotly's own validation, and names in it are escaped: plotly reads a kind of HTML."""
    plots = [plot for page in pages.values() for plot in page.plots]
    # progress on average and by task, targets and profiles; cost; history; tasks; entries that are no references; pairs
    assert len(plots) == (6 + 2) + 2 + 1 + 5 + 8 + 6 * PAIRS
    for plot in plots:
        go.Figure({"data": plot["data"], "layout": plot["layout"]})
        labels = [note["text"] for note in plot["layout"].get("annotations", [])]
        assert "<script" not in json.dumps([[t["name"], t.get("text")] for t in plot["data"]] + labels)
    trade = pages["cost.html"].plots[1]
    assert [choice["name"] for choice in trade["choices"]] == ["tokens", "bytes", "seconds"]


def lines(plot: Any) -> dict[str, Any]:
    """Traces that are no bands, by name."""
    return {trace["name"]: trace for trace in plot["data"] if "band" not in trace["meta"]}


def test_the_progress_plot_shows_scores_over_calls_with_bands(built: Built, pages: dict[str, Page]) -> None:
    """It ends at the average with its interval, and begins with the bare template; a name is at each line's end."""
    plot = pages["progress.html"].plots[0]
    (record,) = [row for row in in_csv(built) if row["submission"] == "good"]
    line, bare = lines(plot)["good"], 100 * np.mean(list(BARE.values()))
    bands = [trace for trace in plot["data"] if trace["meta"] == line["meta"] | {"band": True}]
    ends = [bands[0]["y"][-1], line["y"][-1], bands[1]["y"][-1]]
    names = ("average_low", "average", "average_high")
    assert ends == pytest.approx([100 * float(record[name]) for name in names], abs=0.006)
    assert line["y"][0] == lines(plot)["bare template"]["y"][0] == pytest.approx(bare, abs=0.001)
    assert line["x"][0] == 1
    assert line["x"] == sorted(line["x"])
    notes = {note["name"]: note for note in plot["layout"]["annotations"]}
    assert notes[str(line["meta"]["series"])]["text"] == "good"
    assert notes[str(line["meta"]["series"])]["y"] == line["y"][-1]
    assert f"({bare:.1f} points on average)" in pages["progress.html"].text


def test_an_entry_that_failed_does_not_press_the_others_together(pages: dict[str, Page]) -> None:
    """Its line lies below the plot."""
    plot = pages["progress.html"].plots[0]
    low, high = plot["layout"]["yaxis"]["range"]
    assert max(lines(plot)["crashed"]["y"]) < low
    assert high - low <= 45
    best = lines(plot)["good"]["y"][-1]
    assert low < best < high


def test_the_progress_plot_of_a_task_ends_at_its_budget(pages: dict[str, Page]) -> None:
    plot = pages["tasks/snli.html"].plots[0]
    line = lines(plot)["good"]
    assert line["x"][-1] == report_site.CALLS  # as the cells say, whatever the track file says
    assert plot["layout"]["xaxis"]["title"]["text"] == "calls of a cell"
    small = pages["progress.html"].plots[1:6]
    assert [lines(each)["good"]["y"] for each in small if lines(each)["good"]["y"] == line["y"]]
    assert all("annotations" not in each["layout"] for each in small)


def test_a_track_without_a_frozen_reference_says_how_to_freeze_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "good", 0.80, model_sha256="another model")
    site = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path)
    store.close()
    text = (site.path / "progress.html").read_text(encoding="utf-8")
    assert "harness leaderboard --track mini --freeze good" in text
    assert "its score is not known here" in text


def test_the_front_over_budgets_is_drawn_and_written_down(pages: dict[str, Page]) -> None:
    page = pages["cost.html"]
    front, dots = page.plots[0]["data"][-2:]
    ways = {trace["name"]: trace for trace in page.plots[0]["data"][:-2]}
    assert set(ways) == set(dots["text"])
    for x, y in zip(front["x"], front["y"], strict=True):
        before = [way["y"][max(n for n, c in enumerate(way["x"]) if c <= x)] for way in ways.values()]
        assert y == pytest.approx(max(before), abs=1e-9)
    assert [name for name in front["text"] if name][-1] == "good"
    assert "bare template</td>" in page.text
    for way in ways.values():  # each ends at the calls that it used
        assert way["x"][-1] == dots["x"][dots["text"].index(way["name"])] == CALLS


def test_the_matrix_has_every_pair_with_its_p(built: Built, pages: dict[str, Page]) -> None:
    """Those of `behind` in the CSV; a field leads to the page of its pair, from both sides to the same one."""
    page = pages["pairs.html"]
    rows = page.rows("pair-1")
    assert len(rows) == ENTRIES
    assert all(len(row) == ENTRIES + 1 for row in rows)
    records = {row["submission"]: row for row in in_csv(built)}
    leads = [f"{100 * float(records[name]['behind']):+.1f}" for name in ("nearly", "poor")]
    shown = [re.findall(r">([+-][\d.]+)<small>([^<]+)<", cell)[0] for cell in rows[0][2:4]]
    assert [value for value, _ in shown] == leads
    assert [float(p.replace("&lt; ", "")) <= 0.05 for _, p in shown] == [False, True]
    assert [" better" in cell for cell in rows[0][2:4]] == [False, True]
    paths = [re.findall(r'href="(pairs/[^"]+)"', cell) for row in rows for cell in row[1:]]
    assert sorted(path for own in paths for path in own) == sorted([p for p in pages if p.startswith("pairs/")] * 2)


def test_the_page_of_a_pair_is_what_compare_says(pages: dict[str, Page], tmp_path: Path) -> None:
    """Differences on average and by task; texts on which the two disagree; costs."""
    store = Store(str(tmp_path / "results.db"))
    report_site.fill(store)
    found = compare(gather(store, TRACK, Source("embedded")).ranking, "good", "poor")
    store.close()
    (page,) = [page for name, page in pages.items() if re.fullmatch(r"pairs/good-\w+-poor-\w+\.html", name)]
    text = html.unescape(re.sub(r"<[^>]+>", "", page.text))
    for each in (found.average, *(task.found for task in found.tasks)):
        low, high = (f"{100 * limit:+.1f}" for limit in (each.difference.low, each.difference.high))
        assert f"{100 * each.difference.value:+.1f} [{low}, {high}]" in text
    assert verdict(found) in text
    assert all(f"{task.task}" in text for task in found.tasks)
    assert "good right in 3 of 3 splits" in text
    assert "140,000" not in text
    assert "calls" in text


def test_private_test_texts_are_left_out_everywhere(tmp_path: Path) -> None:
    """Their numbers stand for them."""
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "good", 0.80)
    report_site.add(store, "poor", 0.60)
    site = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path, hidden=True)
    store.close()
    texts = [each[0] for name in TRACK.tasks for each in load_test(load_task(name), Source("embedded")).texts]
    pages = [page.read_text(encoding="utf-8") for page in site.path.rglob("*.html")]
    assert not [text for text in texts for page in pages if len(text) > 20 and html.escape(text) in page]
    (pair,) = site.path.glob("pairs/*.html")
    assert re.search(r"test text \d+, kept private", pair.read_text(encoding="utf-8"))
    (entry,) = site.path.glob("submissions/good*.html")
    assert "kept private" in entry.read_text(encoding="utf-8")


def test_the_targets_plot_rises_to_the_share_that_was_reached(pages: dict[str, Page]) -> None:
    """A step function of calls that ends where the table says."""
    page = pages["progress.html"]
    shares = page.plots[6]["data"][0]["y"]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 100
    assert f"{shares[-1]:.0f} %</td></tr>" in page.text


def test_every_cell_is_on_its_entrys_page_with_its_reason(pages: dict[str, Page]) -> None:
    """A failed one with what went wrong."""
    (crashed,) = [page for name, page in pages.items() if name.startswith("submissions/crashed")]
    assert len(re.findall(r'aria-hidden="true">✗</span> crashed', crashed.text)) == len(CELLS)
    assert crashed.text.count("<summary>Traceback") == len(CELLS)
    assert "3 crashed" in pages["cells.html"].text


def test_wrong_predictions_can_be_read(pages: dict[str, Page]) -> None:
    """The page lists texts of the test set with the predicted classes."""
    (good,) = [page for name, page in pages.items() if name.startswith("submissions/good")]
    assert re.search(r"wrong in 3 of 3 cells; predicted as \w+ \(3\)", good.text)
    assert "wrong in" in pages["tasks/sst2.html"].text
    assert "It was [MASK] ." in pages["tasks/sst2.html"].text


def test_figures_for_a_paper_are_there(built: Built) -> None:
    """In three formats, each what its name says."""
    begin = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    found = sorted(path.name for path in (built.path / "figures").iterdir())
    assert {name.partition(".")[0] for name in found} >= {"ranking", "progress", "cost", "leaders", "progress-sst2"}
    for name in found:
        assert (built.path / "figures" / name).read_bytes().startswith(begin[name.partition(".")[2]])


def test_two_reports_of_the_same_facts_are_equal(tmp_path: Path) -> None:
    """To the last byte of every file, figures included."""
    sites = []
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "good", 0.8)
    for name in ("a", "b"):
        build(store, TRACK, tmp_path / name, Source("embedded"), tmp_path)
        files = (p for p in (tmp_path / name).rglob("*") if p.is_file())
        sites.append({p.relative_to(tmp_path / name): p.read_bytes() for p in files})
    store.close()
    assert sites[0] == sites[1]


def test_an_empty_database_has_a_report_that_says_what_to_do(store: Store, tmp_path: Path) -> None:
    """All pages of the head are there, without an entry."""
    made = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path)
    assert made.pages == 9
    assert "harness evaluate" in (made.path / "index.html").read_text(encoding="utf-8")


def test_without_the_data_the_page_says_so(store: Store, tmp_path: Path) -> None:
    """The kit is missing, or its texts have other labels than those that were scored."""
    report_site.add(store, "good", 0.8)
    made = build(store, TRACK, tmp_path / "site", Source("kit", tmp_path / "nowhere"), tmp_path)
    assert "not available" in (made.path / "tasks" / "sst2.html").read_text(encoding="utf-8")


def test_a_report_replaces_a_report_and_nothing_else(store: Store, tmp_path: Path) -> None:
    """An older report is replaced whole; a directory with anything else in it is left alone."""
    site = tmp_path / "site"
    build(store, TRACK, site, Source("embedded"), tmp_path)
    (site / "stale.html").write_text("old", encoding="utf-8")
    build(store, TRACK, site, Source("embedded"), tmp_path)
    assert not (site / "stale.html").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="is not a report"):
        build(store, TRACK, mine, Source("embedded"), tmp_path)
    assert (mine / "thesis.tex").read_text(encoding="utf-8") == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["mine", "site"]


def test_a_report_that_fails_leaves_the_old_one(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while the pages are written."""
    from harness.leaderboard.report import build as module

    site = tmp_path / "site"
    build(store, TRACK, site, Source("embedded"), tmp_path)
    before = {path: path.read_bytes() for path in site.rglob("*.html")}

    def broken(*_: object) -> Any:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "pages", broken)
    with pytest.raises(InputError, match="no space left"):
        build(store, TRACK, site, Source("embedded"), tmp_path)
    assert {path: path.read_bytes() for path in site.rglob("*.html")} == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["site"]


def test_several_tracks_share_a_site(tmp_path: Path) -> None:
    """Each in its folder, with one plotly for all, and a page that leads to each."""
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "good", 0.8)
    report_site.add(store, "poor", 0.6)
    parts = [Part(TRACK, Source("embedded")), Part(load_track("kit"), Source("kit", tmp_path / "nowhere"))]
    site = build_site(store, parts, tmp_path / "site", tmp_path)
    store.close()
    pages = [Page(path) for path in sorted(site.path.rglob("*.html"))]
    assert len(pages) == site.pages == 1 + (9 + 5 + 2 + 1) + 9
    test_every_link_leads_somewhere({str(page.path): page for page in pages}, site)
    assert len(list(site.path.rglob("plotly.min.js"))) == 1
    front = (site.path / "index.html").read_text(encoding="utf-8")
    assert "good leads by" in front
    assert "No entry is complete" in front
    for page in pages:
        assert ("plotly.min.js" in page.text) == bool(page.plots), page.path


def test_the_command_writes_a_report_and_says_where(tmp_path: Path) -> None:
    """In a process of its own, with JSON for machines."""
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "good", 0.8)
    store.close()
    command = [sys.executable, "-m", "harness.cli", "report", "--out", "site", "--store", "results.db", "--json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pages"] == 9 + 5 + 1
    assert {path.name for path in (tmp_path / "cache" / "harness" / "report").iterdir()} >= {"cells", "steps", "entry"}
    assert (Path(said["path"]) / "index.html").is_file()


def test_the_report_needs_neither_torch_nor_the_language_model() -> None:
    """It reads the database, and nothing runs."""
    program = (
        "import harness.leaderboard.report.build, sys;"
        "names = ('torch', 'transformers', 'harness.lm');"
        "sys.exit(str([m for m in sys.modules if m.startswith(names)] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr.strip()


def test_confusion_counts_pairs() -> None:
    """Rows are true classes, columns predicted ones, over all cells."""
    labels = np.array([0, 1, 2])
    said = np.array([[0, 2, 2], [1, 2, 2]])
    assert confusion(said, labels, 3).tolist() == [[1, 1, 0], [0, 0, 2], [0, 0, 2]]
    assert confusion(said[:0], labels, 3).sum() == 0


def test_what_is_off_the_axis_is_at_its_end() -> None:
    """Places are in percent, from 0 to 100."""
    axis = Axis(50, 80)
    assert [axis.at(share) for share in (0.5, 0.65, 0.8, 0.2, 0.9)] == [0, 50, 100, 0, 100]


def test_a_logarithmic_axis_has_a_place_for_zero() -> None:
    """One decade left of the smallest power of ten that is needed."""
    x, axis = log_with_zero([0.0, 30.0, 7_000.0], "calls")
    assert x == [1.0, 30.0, 7_000.0]
    assert axis["tickvals"] == [1.0, 10.0, 100.0, 1_000.0, 10_000.0]
    assert axis["ticktext"] == ["0", "10", "100", "1k", "10k"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 300, "ü/ö\\\n", ".."])
def test_page_names_are_file_names(name: str) -> None:
    """Whatever an entry is called."""
    assert re.fullmatch(r"([a-z0-9-]{1,40}-)?[a-z0-9]{8}", page_name(name, "0123456789abcdef"))


def test_entries_of_one_name_have_different_pages(store: Store) -> None:
    """A black-box entry and a reference that are called the same."""
    report_site.add(store, "same", 0.8, cells=CELLS[:1])
    report_site.add(store, "same", 0.8, cells=CELLS[:1], access="white-box")
    systems = gather(store, TRACK, Source("embedded")).systems
    assert len({system.slug for system in systems}) == len(systems) == 2


def test_markdown_of_others_is_text_and_structure_alone() -> None:
    """Headings go below the page's own; links keep their words, addresses outside are shown."""
    made = str(rendered("# A\n\n[x](https://a.example) [y](b.md) <b>bold</b> *it* https://c.example\n"))
    assert "<h3>A</h3>" in made
    assert "x <small>(https://a.example)</small> y &lt;b&gt;bold&lt;/b&gt; <em>it</em>" in made
    assert "href" not in made
    table = str(rendered("<!-- scores -->\n| a |\n|---|\n| 1 |\n<!-- end scores -->\nbehind it\n"))
    assert "scores" not in table
    assert table.count("<tr>") == 2
    assert "<p>behind it</p>" in table


@pytest.mark.parametrize("isolated", [True, False])
def test_entries_without_isolation_are_listed_without_a_rank(tmp_path: Path, isolated: bool) -> None:
    """Beside others or alone; the report of a machine that cannot isolate ended in a traceback."""
    store = Store("sqlite://")
    if isolated:
        report_site.add(store, "good", 0.8)
    report_site.add(store, "free", 0.7, sandbox="0")
    report_site.add(store, "freer", 0.75, sandbox="0")
    build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path)
    store.close()
    ranking = re.sub(r"<[^>]+>", " ", (tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    assert "freer" in ranking
    assert "2 entries ran without isolation (sandbox 0), listed without a rank." in ranking
    assert (tmp_path / "site" / "cost.html").is_file()
    with (tmp_path / "site" / "ranking.csv").open(encoding="utf-8") as stream:
        assert {row["submission"]: row["rank"] for row in csv.DictReader(stream)}["freer"] == ""
