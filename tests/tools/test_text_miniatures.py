"""The miniatures of text tasks are what their program writes, and what it checks can fail."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

PATH = Path(__file__).resolve().parents[2] / "tools" / "make_text_miniatures.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The program, which is in no package."""
    spec = importlib.util.spec_from_file_location("make_text_miniatures", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["headline", "describe", "reply", "plain"])
def test_a_miniature_has_no_problem_and_enough_texts(tool: ModuleType, name: str) -> None:
    assert list(tool.problems(name)) == []
    pool, test = tool.made(name)
    assert len(test) >= 200
    assert not {item.content for item in pool} & {item.content for item in test}
    assert len({item.text for item in (*pool, *test)}) == len(pool) + len(test)


def test_a_changed_file_is_told(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    assert len(list(tool.problems("plain"))) == 2
