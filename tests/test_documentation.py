"""Every page of the documentation: its links lead somewhere, its commands are accepted, its words are in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from harness.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "RULES.md", ROOT / "CONTRIBUTING.md"])
COMMANDS = sorted(
    {
        (page.name, line)
        for page in PAGES
        for block in re.findall(r"^```\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for line in re.findall(r"^harness .*", block.replace("\\\n", " "), flags=re.MULTILINE)
    }
)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_of_the_docs_is_accepted(page: str, line: str) -> None:
    """Parsed with all options, not run."""
    words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(f"{words[0]} of {page}", words[1:], resilient_parsing=False).close()


def test_the_glossary_is_in_alphabetical_order() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^### (.*)$", text, flags=re.MULTILINE)
    assert words == sorted(words, key=str.lower)
    assert len(words) == len(set(words))


def test_every_page_is_linked_from_another_one() -> None:
    """A page that nobody links to is not read."""
    texts = {page: page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "README.md"]}
    for page in (ROOT / "docs").glob("*.md"):
        assert any(
            re.search(rf"\]\((docs/)?{page.name}[)#]", text) for other, text in texts.items() if other != page
        ), page
