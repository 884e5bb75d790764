"""The notebook for teachers runs from top to bottom, on the fake model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import nbformat as nbformat_types

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook_optimizers.ipynb"


@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook_has_five_exercises_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook: nbformat_types.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)
    headings = [cell.source for cell in notebook.cells if cell.source.startswith("## Exercise")]
    assert len(headings) == 5
    monkeypatch.setenv("HARNESS_TASK", "fake")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}, kernel_name="python3"
    ).execute()
    said = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    for shown in ("random", "cma", "dim   5", "minibatch 8", "gap", "word of class0 ->"):
        assert shown in said
