"""The table and the figure of `mini-long` are what its published database gives."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tools import convergence
from tools.convergence import DRAWN, FIGURE, PAGE

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_has_the_table_of_the_published_database(tmp_path: Path) -> None:
    again, figure = tmp_path / "again.md", tmp_path / "figure.svg"
    shutil.copy(PAGE, again)
    assert convergence.main(["--page", str(again), "--figure", str(figure)]) == 0
    assert again.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), "run: python tools/convergence.py"
    drawn = figure.read_text(encoding="utf-8")
    assert all(name in drawn for name in DRAWN)
    assert "mathdefault" not in drawn
    titles = [line for line in FIGURE.read_text(encoding="utf-8").splitlines() if "<!-- " in line]
    assert titles == [line for line in drawn.splitlines() if "<!-- " in line], "run: python tools/convergence.py"


def test_a_page_without_markers_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figure = tmp_path / "page.md", tmp_path / "figure.svg"
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit):
        convergence.main(["--page", str(page), "--figure", str(figure)])
    assert "0 tables between" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "no markers"
    assert not figure.exists()


def test_a_database_without_the_track_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- convergence -->\n<!-- end convergence -->\n", encoding="utf-8")
    other = convergence.FACTS.with_name("measured-text.db.xz")
    with pytest.raises(SystemExit):
        convergence.main(["--store", str(other), "--page", str(page), "--figure", str(tmp_path / "figure.svg")])
    assert "no run on track mini-long" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.md"]
