"""What an entry alone decides is kept by the digest of its cells: a new entry is all that is computed anew."""
# ruff: noqa: E402 - what may be missing is looked for first

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

for needed in ("jinja2", "markdown_it", "matplotlib", "plotly"):
    pytest.importorskip(needed, reason=f"{needed} is in the extra `report`")

import report_site
from report_site import CELLS, TRACK

from harness.leaderboard.exports import tidy_cells
from harness.leaderboard.rank import score_cell
from harness.leaderboard.report import build as module
from harness.leaderboard.report.build import build
from harness.leaderboard.report.facts import gather
from harness.leaderboard.report.kept import Kept
from harness.leaderboard.report.kept_cells import KeptCells
from harness.leaderboard.table import as_csv
from harness.results.store import Store
from harness.tracks.examples import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = {"cells", "steps", "cells.csv", "entry", "disclosure"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two entries."""
    made = Store(str(tmp_path / "results.db"))
    report_site.add(made, "good", 0.8)
    report_site.add(made, "poor", 0.6)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn each time, and most of a small report's time goes into them."""
    monkeypatch.setattr(module, "draw_all", lambda *_: False)


def built(store: Store, out: Path, kept: Kept | None) -> dict[str, bytes]:
    """All files of a report."""
    build(store, TRACK, out, Source("embedded"), out.parent, kept)
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_a_new_entry_is_all_that_is_computed_anew(store: Store, tmp_path: Path) -> None:
    """And the report is the same, byte for byte, as one that computes everything."""
    first, again, one_more = (Kept(tmp_path / "kept") for _ in range(3))
    built(store, tmp_path / "site", first)
    assert first.computed == dict.fromkeys(KINDS, 2)
    built(store, tmp_path / "site", again)
    assert not again.computed
    report_site.add(store, "new", 0.7)
    site = built(store, tmp_path / "site", one_more)
    assert one_more.computed == dict.fromkeys(KINDS, 1)
    assert site == built(store, tmp_path / "fresh", None)
    assert site["cells.csv"].decode() == as_csv(tidy_cells(gather(store, TRACK, Source("embedded")).ranking))


def test_an_entry_that_changed_is_computed_anew(store: Store, tmp_path: Path) -> None:
    """It has run again with other code: the older run is summed up for the history, and the others stay as they are."""
    built(store, tmp_path / "site", Kept(tmp_path / "kept"))
    report_site.add(store, "poor", 0.75)
    kept = Kept(tmp_path / "kept")
    site = built(store, tmp_path / "site", kept)
    assert kept.computed == dict.fromkeys(KINDS, 1) | {"outcome": 1}
    assert site == built(store, tmp_path / "fresh", None)


def test_what_a_report_hides_is_not_taken_from_one_that_shows_it(store: Store, tmp_path: Path) -> None:
    built(store, tmp_path / "site", Kept(tmp_path / "kept"))
    kept = Kept(tmp_path / "kept")
    build(store, TRACK, tmp_path / "hidden", Source("embedded"), tmp_path, kept, hidden=True)
    assert kept.computed == {"entry": 2}


def test_damaged_values_are_computed_anew(tmp_path: Path) -> None:
    """Half of a file, or a value of another type."""
    kept = Kept(tmp_path)
    assert kept.value("number", (1, "a"), list[float], lambda: [0.1, float("nan")])[0] == 0.1
    (file,) = (tmp_path / "number").iterdir()
    for content in (file.read_bytes()[:-3], b"\xa3abc"):
        file.write_bytes(content)
        assert kept.value("number", (1, "a"), list[float], lambda: [0.2]) == [0.2]
    assert kept.computed["number"] == 3
    assert kept.value("number", (1, "a"), list[float], lambda: [0.3]) == [0.2]
    assert kept.value("number", (2, "a"), list[float], lambda: [0.3]) == [0.3]


def test_scored_cells_are_what_they_were(store: Store) -> None:
    """With their arrays; cells of a test set share its labels."""
    run = store.runs()[0].id
    cells = [score_cell(cell) for cell in store.cells(run)]
    found = KeptCells.of(cells).scores()
    assert found == cells
    for one, other in zip(found, cells, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.predicted, other.predicted)
        assert one.predicted.dtype == other.predicted.dtype
        assert list(one.incumbents) == list(other.incumbents)
        assert all(np.array_equal(one.incumbents[mark], other.incumbents[mark]) for mark in one.incumbents)
    assert len({id(cell.labels) for cell in found}) == len({task for task, _ in CELLS})
