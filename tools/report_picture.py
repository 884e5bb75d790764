"""Takes the picture of the ranking page that opens the README.

python tools/report_picture.py --site site/mini --out docs/report.png
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = {"width": 1280, "height": 900}


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the page in the system's Chromium, and take its upper part."""
    parser = argparse.ArgumentParser(description="Take the picture of the ranking page that opens the README.")
    parser.add_argument("--site", type=Path, default=Path("site/mini"), help="folder of a track's report")
    parser.add_argument("--out", type=Path, default=Path("docs/report.png"))
    given = parser.parse_args(arguments)
    page = given.site / "index.html"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not page.is_file() or chromium is None:
        parser.error(f"{page} is not there; make it: make site" if chromium else "no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]  # a ViewportSize
        opened.goto(page.resolve().as_uri())
        opened.screenshot(path=given.out)
        browser.close()
    print(f"{given.out}: {given.out.stat().st_size / 1e3:,.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
