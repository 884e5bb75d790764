"""The report shows references over forward passes beside entries over calls, and what changed weights forget."""
# ruff: noqa: E402 - what may be missing is looked for first

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

for needed in ("jinja2", "markdown_it", "matplotlib", "plotly"):
    pytest.importorskip(needed, reason=f"{needed} is in the extra `report`")

import report_site
from made_up import key
from report_site import CALLS, CELLS, FROZEN, TRACK

from harness.leaderboard.report.build import build
from harness.results.forgetting import Forgotten
from harness.results.observations import forgotten, insert
from harness.results.records import CellRecord, KeptAnswer
from harness.results.status import MARKS
from harness.results.store import Store
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from pathlib import Path

FORWARDS = 2_900
DASH = "\N{EN DASH}"


def reference(store: Store, entry: str, budget: int, forwards: int | None) -> None:
    """A reference that is right where it can be; with a budget it is kept at each mark."""
    same = {name: FROZEN[name] for name in ("track_fingerprint", "model_sha256", "data_sha256")}
    run = store.open_run(
        key(entry, track="mini", access="white-box", submission_sha256=entry, **same), {"packages": {}}
    )
    for task, split in CELLS:
        labels = load_test(load_task(task), Source("embedded")).labels
        wrong = (labels + 1) % len(load_task(task).classes)
        facts: dict[str, Any] = {"train_rows": 32, "calls_total": budget, "rows_total": 32 * budget, "level": 4}
        facts |= {"forwards": forwards, "access": "white-box", "sandbox": "none (referee process)", "marks": MARKS}
        marks = MARKS if budget else (1.0,)
        kept = []
        for n, mark in enumerate(marks):
            said = np.where(np.arange(len(labels)) % 10 < 3 + n, labels, wrong)
            kept.append(KeptAnswer(mark, int(mark * 32 * budget), b"", said))
        store.begin(run, task, split).finish("budget_exhausted", CellRecord(**facts), f"{task} texts", labels, kept)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    store = Store(str(folder / "results.db"))
    run = report_site.add(store, "walker", 0.8, level=5)
    report_site.add(store, "poor", 0.6)
    reference(store, "trained[forwards=budget]", CALLS, FORWARDS)
    reference(store, "counted", 0, 99_000)
    reference(store, "older", 0, None)
    with store.changes() as connection:
        for task, split in CELLS[:2]:
            others = {name: 0.6 for name in TRACK.tasks if name != task}
            lost = dict.fromkeys(others, 0.55)
            name = hashlib.sha256(b"answer").hexdigest()
            fact = Forgotten(run, task, split, name, 1, others, lost, 5.0, 5.2, 200, 200, "other tasks", 0, "int8", 1.0)
            insert(connection, fact)
    try:
        return build(store, TRACK, folder / "site", Source("embedded"), folder).path
    finally:
        store.close()


def plots(page: str) -> list[Any]:
    return [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)]


def test_a_reference_with_a_budget_shares_the_axis_of_the_entries(site: Path) -> None:
    page = (site / "progress.html").read_text(encoding="utf-8")
    for plot in plots(page)[:6]:
        named = {trace["name"]: trace for trace in plot["data"] if "band" not in trace["meta"]}
        assert {"walker", "poor", "trained[forwards=budget]"} <= named.keys()
        assert not {"counted", "older"} & named.keys()
        line = named["trained[forwards=budget]"]
        assert line["line"]["dash"] == "longdash"
        assert line["x"] == sorted(line["x"])
        assert line["x"][-1] == CALLS
        assert line["y"] == sorted(line["y"])
    notes = [note["text"] for note in plots(page)[0]["layout"]["annotations"]]
    assert "trained[forwards=budget]" in notes
    assert "are in the plots above, with long dashes" in page


def test_forward_passes_are_a_table_with_what_was_not_counted_left_open(site: Path) -> None:
    page = (site / "progress.html").read_text(encoding="utf-8")
    table = page.partition("Forward passes of a cell</caption>")[2].partition("</table>")[0]
    rows = {
        re.sub(r"<[^>]+>", "", head).strip(): [re.sub(r"<[^>]+>", "", c) for c in re.findall(r"<td.*?</td>", line)]
        for head, line in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    }
    found = {name.replace("\u200b", "").split(" ")[0]: cells[1:] for name, cells in rows.items()}
    assert found["walker"] == ["3,200", "100"]
    assert found["trained[forwards=budget]"] == ["2,900", "91"]
    assert found["counted"] == ["99,000", "3,094"]
    assert found["older"] == [DASH, DASH]


def test_what_is_forgotten_is_a_column_where_it_was_measured(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "Other tasks</button>" in page
    assert f'-5.0 <span class="limits">of 2 cells</span></td><td class="num" data-v="{5.2 - 5.0}">+0.200' in page
    empty = f'<td class="num" data-v="">{DASH}</td>'
    assert page.count(empty + empty) >= 2


def test_without_a_fact_there_is_no_column(tmp_path: Path) -> None:
    """Nor if the fact is about a run of another track in the same database."""
    store = Store(str(tmp_path / "results.db"))
    report_site.add(store, "poor", 0.6)
    other = store.open_run(key("walker", track="another"), {"packages": {}})
    labels = load_test(load_task("qqp"), Source("embedded")).labels
    store.begin(other, "qqp", 1).finish("ok", CellRecord(), "t", labels, [KeptAnswer(1.0, 0, b"answer", labels)])
    name, before, after = hashlib.sha256(b"answer").hexdigest(), {"sst2": 0.6}, {"sst2": 0.5}
    fact = Forgotten(other, "qqp", 1, name, 1, before, after, 5.0, 5.2, 200, 200, "other tasks", 0, "int8", 1.0)
    with store.changes() as connection:
        insert(connection, fact)
    assert forgotten(store) == {other: [fact]}
    made = build(store, TRACK, tmp_path / "site", Source("embedded"), tmp_path).path
    store.close()
    assert "Other tasks" not in (made / "index.html").read_text(encoding="utf-8")
    page = (made / "progress.html").read_text(encoding="utf-8")
    assert "would be in the plots above; here is none" in page


def test_pages_of_tasks_and_figures_have_the_reference_as_well(site: Path) -> None:
    page = (site / "tasks" / "snli.html").read_text(encoding="utf-8")
    assert "trained[forwards=budget]" in {trace["name"] for trace in plots(page)[0]["data"]}
    for name in ("progress", "progress-snli"):
        assert "trained[forwards=budget]" in (site / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert "counted" not in (site / "figures" / f"{name}.svg").read_text(encoding="utf-8")
