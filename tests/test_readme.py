"""The commands in the README work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from harness.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
LINES = [line.partition("#")[0].strip() for kind, block in BLOCKS if not kind for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("harness ")]


def test_the_readme_opens_with_the_two_commands() -> None:
    assert [line for line in LINES if line.startswith("make ")][:2] == ["make run", "make test"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"run", "test", "test-slow", "check", "setup", "setup-run"} <= set(targets)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_is_accepted(line: str) -> None:
    """Parsed with all options, not run."""
    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(words[0], words[1:], resilient_parsing=False).close()


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_solver_printed_in_the_readme_runs(tmp_path: Path) -> None:
    """The example of the README, as it stands there, passes `harness check`."""
    from harness.evaluation.check import check

    (block,) = [block for kind, block in BLOCKS if kind == "python"]
    folder = tmp_path / "readme"
    folder.mkdir()
    (folder / "submission.py").write_text(block, encoding="utf-8")
    assert check(folder, {})["answers"] >= 1
