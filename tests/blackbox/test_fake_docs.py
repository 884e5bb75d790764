"""The tests that docs/author.md shows run, on the solvers that the pages show."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str) -> list[str]:
    """The Python code of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


CONFIG = """
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Config:
    pass


"""


@pytest.mark.parametrize(
    ("name", "page", "more"),
    [("test_it_finds_a_better_prompt", "README.md", ""), ("test_it_writes_better_text", "docs/text.md", CONFIG)],
)
def test_the_tests_of_the_page_pass(name: str, page: str, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("submission")
    monkeypatch.setitem(sys.modules, "submission", made)
    (code,) = [block for block in blocks(page) if "def tune(" in block]
    exec(more + code, vars(made))  # noqa: S102 - our own page
    names: dict[str, object] = {}
    for block in blocks("docs/author.md"):
        exec(block, names)  # noqa: S102 - our own page
    names[name]()  # type: ignore[operator]
