"""Runs a page of the documentation: its files are written, and its commands are run in order, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from harness.cli import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
_BLOCK = re.compile(
    r"(?:^`(?P<file>[^`\n]+)`(?P<how>, at its end)?:\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Ran:
    """One command of a page, and what it printed."""

    line: str
    stdout: str
    stderr: str


def follow(page: str, folder: Path) -> list[Ran]:
    """Do what a page says, in a folder that is the current one; every command must succeed.

    A block after a line with a path and a colon is that file, or more of it. In a block without a language each line is
    a command.
    """
    ran: list[Ran] = []
    for block in _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        if block["file"]:
            path = folder / block["file"]
            assert path.is_file() == (block["how"] is not None or path.suffix == ".py"), path
            before = path.read_text(encoding="utf-8") if block["how"] else ""
            path.write_text(before + block["text"], encoding="utf-8")
        elif not block["kind"]:
            ran += [_run(line, folder) for line in block["text"].splitlines() if line]
    return ran


def _run(line: str, folder: Path) -> Ran:
    if not line.startswith("harness "):
        subprocess.run(line, shell=True, cwd=folder, check=True)  # noqa: S602 - a line of this project's own page
        return Ran(line, "", "")
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, f"{line}\n{done.stdout}{done.stderr}{done.exception}"
    return Ran(line, done.stdout, done.stderr)
