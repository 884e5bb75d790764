"""The notebook in `examples/` runs from top to bottom against a service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_service import TASK, House, served

from harness.solving.answers import from_bytes

if TYPE_CHECKING:
    import nbformat as nbformat_types

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook_bbt.ipynb"


@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook_tunes_a_prompt_and_hands_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    token = house.book.new_token("reader", calls=200)
    notebook: nbformat_types.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("HARNESS_TOKEN", token)
    monkeypatch.setenv("HARNESS_TASK", TASK.name)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with served(house.app) as url:
        monkeypatch.setenv("HARNESS_URL", url)
        nbclient.NotebookClient(
            notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}, kernel_name="python3"
        ).execute()
    shown = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    assert "dev accuracy without a prompt" in shown
    assert "rows asked" in shown  # the budget's end
    assert token.split(".")[1] not in nbformat.writes(notebook)
    (account,) = house.book.unscored("fake 0123")
    assert account.token == "reader"  # noqa: S105 - a name
    assert account.rows_total - account.rows_spent < account.rows_total / 4
    answer = from_bytes(house.book.submitted(account.number) or b"")
    assert answer.members[0].prompt is not None
    house.book.close()


def test_the_notebook_as_kept_shows_no_token() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "harness.connect" in text
    assert not re.search(r"[\w-]+\.[\w-]{43}", text)
