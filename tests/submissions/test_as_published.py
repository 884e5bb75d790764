"""The presets that `docs/official.md` lists are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

from harness.sandbox.presets import presets
from harness.sandbox.submission import find

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "official.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("| method | `--config preset=` |")[2].partition("\n\n")[0]


def test_the_page_lists_every_preset_and_no_other() -> None:
    """Row by row; several methods may share a row."""
    listed = {
        (method, preset)
        for methods, names in re.findall(r"^\| (`.*?) \| (`.*?) \|", TABLE, flags=re.MULTILINE)
        for method in re.findall(r"`(\w+)`", methods)
        for preset in re.findall(r"`([\w-]+)`", names)
    }
    there = {
        (path.parent.name, name)
        for path in (ROOT / "submissions").glob("*/presets.toml")
        for name in presets(find(path.parent))
    }
    assert listed == there


def test_one_command_reproduces_a_row() -> None:
    assert "harness evaluate submissions/bbt --track paper --config preset=icml2022\n" in PAGE
