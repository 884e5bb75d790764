"""The results pages of the project are what the published databases give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import make_results

ROOT = Path(__file__).resolve().parents[2]
TEXT_LOSSES = ROOT / "docs" / "results" / "mini-text-losses.csv"
PAGES = {
    "mini": ("measured.db.xz", ()),
    "kit": ("measured.db.xz", ()),
    "mini-text": ("measured-text.db.xz", ("--losses", str(TEXT_LOSSES))),
}
"""By track: the published database, and what else its page is made of."""


@pytest.mark.parametrize("track", PAGES)
def test_a_page_is_what_its_published_database_gives(track: str, tmp_path: Path) -> None:
    name, more = PAGES[track]
    page, again = ROOT / "docs" / f"results-{track}.md", tmp_path / "again.md"
    shutil.copy(page, again)  # findings are written by hand
    arguments = ["--store", str(ROOT / "leaderboard" / name), "--track", track, "--out", str(again), *more]
    assert make_results.main(arguments) == 0
    make = "make results-text" if more else "make results"
    assert again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), f"run: {make}"
