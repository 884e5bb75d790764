"""Writes a results page from results databases: table, intervals, differences, speed-up, how it was measured.

python tools/make_results.py --store results/harness.db --track mini --out docs/results-mini.md

Several `--store` are read as one; a published `.db.xz` is a database, too. Of each entry's runs, the one with the most
cells counts, and the newest of several. The text between `<!-- findings -->` and `<!-- end findings -->` of an existing
page is kept; everything else is written again, and the same stores give the same page. If there is no run on the track,
the page is not changed.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.cli.console import STORE
from harness.errors import HarnessError
from harness.leaderboard.table import write_text
from harness.results.store import Store
from harness.tracks.track import load_track, track_names
from tools.measured import measure
from tools.results_page import NO_FINDINGS, page
from tools.text_section import read

if TYPE_CHECKING:
    from collections.abc import Sequence

FINDINGS = re.compile(r"<!-- findings -->.*?<!-- end findings -->", re.DOTALL)


def kept_findings(text: str) -> str:
    """The findings of an existing page, markers included.

    Raises:
        ValueError: it has none, and writing the page again could lose somebody's text.
    """
    found = FINDINGS.search(text)
    if found is None:
        raise ValueError("no <!-- findings --> … <!-- end findings --> in the page; put them back, or remove the page")
    return found.group()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the stores, write the page."""
    parser = argparse.ArgumentParser(description="Write a results page from results databases.")
    parser.add_argument("--store", action="append", help=f"results database, may be given again; default {STORE}")
    parser.add_argument("--track", default="mini", choices=track_names(), help="which track")
    parser.add_argument("--out", type=Path, help="the page; default docs/results-TRACK.md")
    parser.add_argument("--losses", type=Path, help="of a track of text tasks, what tools/text_losses.py wrote")
    given = parser.parse_args(arguments)
    paths = given.store or [STORE]
    absent = [path for path in paths if "://" not in path and not Path(path).is_file()]
    if absent:
        parser.error(f"{absent[0]}: no such results database; run: harness evaluate submissions/ajo")
    if given.losses is not None and not given.losses.is_file():
        parser.error(f"{given.losses}: no such file; run: python tools/text_losses.py --help")
    out = given.out or Path("docs") / f"results-{given.track}.md"
    try:
        with contextlib.ExitStack() as opened:
            stores = [opened.enter_context(contextlib.closing(Store(path, create=False))) for path in paths]
            measured = measure(stores, load_track(given.track))
        losses = read(given.losses) if given.losses else ()
    except HarnessError as problem:
        parser.error(str(problem))
    if measured is None:
        print(f"no run on track {given.track} in {', '.join(paths)}: {out} is left as it is")
        return 0
    try:
        findings = kept_findings(out.read_text(encoding="utf-8")) if out.is_file() else NO_FINDINGS
    except ValueError as problem:
        parser.error(f"{out}: {problem}")
    text = page(measured, findings, losses)
    try:
        write_text(text, out)  # whole or not at all: findings are written by hand
    except HarnessError as problem:
        parser.error(str(problem))
    print(f"written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
