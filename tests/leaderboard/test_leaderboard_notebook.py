"""The notebook that makes a leaderboard of its cells runs, and finds the leaderboard's own numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import report_site

from harness.leaderboard.exports import tidy_cells
from harness.leaderboard.rank import rank
from harness.leaderboard.table import document, write_document, write_records
from harness.results.store import Store

if TYPE_CHECKING:
    import nbformat as nbformat_types

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib", reason="matplotlib is in the extra `report`")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook_leaderboard.ipynb"


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
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook: nbformat_types.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where, kernel_name="python3").execute()
    said = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    found = re.search(r"difference of averages: ([\d.]+); of ends of curves: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= 0.00006  # the ranking's are rounded to four digits
    assert float(found[2]) <= 0.00001
    assert "of 3" in said
