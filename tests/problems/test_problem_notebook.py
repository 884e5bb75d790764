"""The notebook for teachers runs from top to bottom, on the fake model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from notebooks import executed, said

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook_has_five_exercises_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_TASK", "fake")
    notebook = executed("notebook_optimizers.ipynb", tmp_path, monkeypatch)
    headings = [cell.source for cell in notebook.cells if cell.source.startswith("## Exercise")]
    assert len(headings) == 5
    printed = said(notebook)
    for shown in ("random", "cma", "dim   5", "minibatch 8", "gap", "word of class0 ->"):
        assert shown in printed
