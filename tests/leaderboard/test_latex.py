"""The LaTeX of a ranking compiles, and fits on the page."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import report_site
from test_exports import HOSTILE
from test_table import ranked

from harness.leaderboard.exports import exported, exported_rows
from harness.leaderboard.formats import Format
from harness.leaderboard.rank import rank
from harness.results.store import Store

if TYPE_CHECKING:
    from pathlib import Path

PDFLATEX = shutil.which("pdflatex")
pytestmark = pytest.mark.skipif(
    PDFLATEX is None, reason="no pdflatex here; install texlive-latex-base and texlive-latex-recommended"
)
DOCUMENT = (
    "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage{graphicx}\n\\begin{document}\n%s\\end{document}\n"
)


def compiled(text: str, folder: Path) -> str:
    """What pdflatex says about a document with this table."""
    (folder / "paper.tex").write_text(DOCUMENT % text, encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300)
    said = done.stdout.decode("utf-8", errors="replace")
    assert done.returncode == 0, said[-2_000:]
    assert (folder / "paper.pdf").is_file()
    return said


def site_ranking(shared: bool) -> str:
    """Entries with shared ranks, or with ranks of their own."""
    store = Store("sqlite://")
    for name, right in (("good", 0.8), ("nearly", 0.795 if shared else 0.7), ("poor", 0.6)):
        report_site.add(store, name, right)
    found = rank(store, "mini", report_site.TRACK.fingerprint, report_site.TRACK.planned)
    store.close()
    return exported(found, Format.LATEX)


@pytest.mark.parametrize("shared", [True, False])
def test_a_ranking_compiles_and_fits(tmp_path: Path, shared: bool) -> None:
    text = site_ranking(shared)
    assert ("1= & good" in text) == shared
    assert "Overfull" not in compiled(text, tmp_path)


def test_hostile_names_and_ranks_that_are_missing_compile(tmp_path: Path) -> None:
    """A name with every mark of LaTeX, and a list without ranks."""
    compiled(exported(ranked(HOSTILE), Format.LATEX), tmp_path)
    compiled(exported_rows("Cost", [{"submission": HOSTILE, "n": None}], Format.LATEX), tmp_path)
