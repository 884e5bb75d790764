"""The options that `docs/official.md` gives as published are options, and other ones than the defaults."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from harness.sandbox.submission import loaded

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "official.md").read_text(encoding="utf-8")
ROWS = [row.split(" | ") for row in re.findall(r"^\| (`\w+`.*`\w+=.*) \|$", PAGE, flags=re.MULTILINE)]
TABLE = [(name, re.findall(r"`(\w+=[\w.]+)`", row[1])) for row in ROWS for name in re.findall(r"`(\w+)`", row[0])]


def test_the_methods_with_a_choice_of_this_projects_are_in_the_table() -> None:
    """Those whose README has a value of the paper's or the code's beside its own."""
    assert {"bbt", "bbtv2", "bbt_rgb", "ajo", "dect"} <= {name for name, _ in TABLE}


@pytest.mark.parametrize(("name", "options"), TABLE)
def test_what_is_given_as_published_is_accepted_and_no_default(name: str, options: list[str]) -> None:
    """Parsed as the command line parses them."""
    given = dict(option.split("=") for option in options)
    assert given
    with loaded(ROOT / "submissions" / name, {}) as default, loaded(ROOT / "submissions" / name, given) as solver:
        changed = {
            f.name for f in fields(solver.config) if getattr(default.config, f.name) != getattr(solver.config, f.name)
        }
    assert changed == set(given)
