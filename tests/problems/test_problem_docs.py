"""The code of docs/optimizers.md runs, on the fake model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        assert '"sst2"' in block
        exec(block.replace('"sst2"', '"fake"'), names)  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "generalisation gap" in said
    assert "word of class0" in said
    assert "nevergrad:OnePlusOne" in said


def test_every_adapter_has_its_line() -> None:
    from harness.problems.adapters import OPTIMIZERS

    assert set(re.findall(r"^\| `(\w+)` \| (?:numpy|\[)", PAGE, flags=re.MULTILINE)) == set(OPTIMIZERS)
