"""Runs a notebook of ``examples/`` from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import nbformat as nbformat_types

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def executed(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, timeout: int = 120
) -> nbformat_types.NotebookNode:
    """The notebook after all its cells have run; Jupyter's own files go into `folder`. Skipped without Jupyter."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook: nbformat_types.NotebookNode = nbformat.read(EXAMPLES / name, as_version=4)
    where = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=timeout, resources=where, kernel_name="python3").execute()
    return notebook


def said(notebook: nbformat_types.NotebookNode) -> str:
    """What its cells have printed."""
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
