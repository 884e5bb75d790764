"""The tables of docs/rules-reference.md are what the track and task files say."""

from __future__ import annotations

import re

import pytest

from harness.tracks.track import load_track
from tools import make_rules


def test_the_tables_of_the_rules_are_up_to_date() -> None:
    """`make rules` would change nothing."""
    text = make_rules.PAGE.read_text(encoding="utf-8")
    assert make_rules.filled(text) == text


def test_a_table_that_was_edited_by_hand_is_written_anew() -> None:
    """Every table by itself, so that none is left out of the check."""
    text = make_rules.PAGE.read_text(encoding="utf-8")
    for name in make_rules.tables():
        start = f"<!-- generated: {name} -->"
        edited = text.replace(start, f"{start}\nan edit", 1)
        assert edited != text
        assert make_rules.filled(edited) == text


def test_a_page_without_the_place_of_a_table_is_refused_with_its_name() -> None:
    text = make_rules.PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape("lacks the block <!-- generated: limits -->")):
        make_rules.filled(text.replace("<!-- generated: limits -->", ""))


def test_the_limits_on_the_page_for_participants_are_those_of_mini() -> None:
    text = (make_rules.PAGE.parents[1] / "RULES.md").read_text(encoding="utf-8")
    limits = load_track("mini").limits
    assert " ".join(f"{limits.wall_s:g} s and {limits.memory_gb:g} GiB for a cell of `mini`".split()) in " ".join(
        text.split()
    )
