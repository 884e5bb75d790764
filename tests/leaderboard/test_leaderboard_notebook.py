"""The notebook that makes a leaderboard of its cells runs, and finds the leaderboard's own numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import report_site
from notebooks import executed, said

from harness.leaderboard.exports import tidy_cells
from harness.leaderboard.rank import rank
from harness.leaderboard.table import document, write_document, write_records
from harness.results.store import Store

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="matplotlib is in the extra `report`")


@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook_recomputes_the_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("sqlite://")
    for name, right in (("good", 0.8), ("nearly", 0.795), ("poor", 0.6)):
        report_site.add(store, name, right)
    report_site.add(store, "tuned", 0.9, access="white-box")
    ranking = rank(store, "mini", report_site.TRACK.fingerprint, report_site.TRACK.planned)
    store.close()
    write_document(document(ranking), tmp_path / "mini.csv", tmp_path / "mini.json")
    write_records(tidy_cells(ranking), tmp_path / "mini-cells.csv")
    monkeypatch.setenv("HARNESS_CELLS", str(tmp_path / "mini-cells.csv"))
    printed = said(executed("notebook_leaderboard.ipynb", tmp_path, monkeypatch, timeout=300))
    found = re.search(r"difference of averages: ([\d.]+); of ends of curves: ([\d.]+)", printed)
    assert found, printed
    assert float(found[1]) <= 0.00006  # the ranking's are rounded to four digits
    assert float(found[2]) <= 0.00001
    assert "of 3" in printed
