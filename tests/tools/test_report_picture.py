"""The tool that takes the README's picture takes one, and says what is missing."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("playwright", reason="playwright is in the extra `dev`")

from tools import report_picture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; install the package `chromium`")
def test_it_takes_the_upper_part_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><h1>Ranking</h1>", encoding="utf-8")
    assert report_picture.main(["--site", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 0
    assert struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24]) == (1280, 900)


def test_without_a_site_it_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report_picture.main(["--site", str(tmp_path / "none"), "--out", str(tmp_path / "a.png")])
    assert "make site" in capsys.readouterr().err or CHROMIUM is None
