"""The notebook in `examples/` runs from top to bottom against a service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from notebooks import EXAMPLES, executed, said
from small_service import TASK, House, served

from harness.solving.answers import from_bytes

if TYPE_CHECKING:
    from pathlib import Path

nbformat = pytest.importorskip("nbformat")

NAME = "notebook_bbt.ipynb"


@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook_tunes_a_prompt_and_hands_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    token = house.book.new_token("reader", calls=200)
    monkeypatch.setenv("HARNESS_TOKEN", token)
    monkeypatch.setenv("HARNESS_TASK", TASK.name)
    with served(house.app) as url:
        monkeypatch.setenv("HARNESS_URL", url)
        notebook = executed(NAME, tmp_path, monkeypatch)
    shown = said(notebook)
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
    text = (EXAMPLES / NAME).read_text(encoding="utf-8")
    assert "harness.connect" in text
    assert not re.search(r"[\w-]+\.[\w-]{43}", text)
