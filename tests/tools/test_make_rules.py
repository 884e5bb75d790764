"""RULES.md is what the track and task files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_of_the_rules_are_up_to_date() -> None:
    """`make rules` would change nothing."""
    spec = importlib.util.spec_from_file_location("make_rules", ROOT / "tools" / "make_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "RULES.md").read_text(encoding="utf-8")
    assert module.filled(text) == text
