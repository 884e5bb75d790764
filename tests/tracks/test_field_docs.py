"""docs/tracks.md and docs/tasks.md explain every field that a file may have, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.tracks.competition import Competition
from harness.tracks.defences import Defences
from harness.tracks.limits import Limits
from harness.tracks.numerics import EndpointSpec, Numerics
from harness.tracks.packages import PackageSpec
from harness.tracks.prices import Prices
from harness.tracks.tasks import Cloze, FilesSource, HubSource, KitSource, Profile, TaskFile
from harness.tracks.text_tasks import TextHub, TextSpec, TextTaskFile, TextWording
from harness.tracks.track import DataSpec, ModelSpec, PromptSpec, Track
from harness.tracks.track_task import TrackTask

if TYPE_CHECKING:
    import msgspec

DOCS = Path(__file__).resolve().parents[2] / "docs"
STRUCTS: dict[tuple[str, str], type[msgspec.Struct]] = {
    ("tracks.md", "The track"): Track,
    ("tracks.md", "`[model]`"): ModelSpec,
    ("tracks.md", "`[data]`"): DataSpec,
    ("tracks.md", "`[prompt]`"): PromptSpec,
    ("tracks.md", "`[limits]`"): Limits,
    ("tracks.md", "`[tasks.NAME]`"): TrackTask,
    ("tracks.md", "`[numerics]`"): Numerics,
    ("tracks.md", "`[prices]`"): Prices,
    ("tracks.md", "`[packages]`"): PackageSpec,
    ("tracks.md", "`[defences]`"): Defences,
    ("tracks.md", "`[endpoint]`"): EndpointSpec,
    ("tracks.md", "`[competition]`"): Competition,
    ("tasks.md", "The task"): TaskFile,
    ("tasks.md", "`[profiles.NAME]`"): Profile,
    ("tasks.md", "A wording"): Cloze,
    ("tasks.md", "`[files]`"): FilesSource,
    ("tasks.md", "`[kit]`"): KitSource,
    ("tasks.md", "`[hub]`"): HubSource,
    ("tasks.md", "A task answered by text"): TextTaskFile,
    ("tasks.md", "`[text]`"): TextSpec,
    ("tasks.md", "`[hub]` of a task answered by text"): TextHub,
    ("tasks.md", "`[text.profiles.NAME]`"): TextWording,
}
NOT_IN_THE_FILE = {"folder", "text_hub"}
"""Where the file is, and what the table `[hub]` of a text task says. A file that has these keys is refused."""


def sections(page: str) -> dict[str, str]:
    """The sections below "Every field", by heading."""
    text = (DOCS / page).read_text(encoding="utf-8").partition("\n## Every field\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def documented(section: str) -> dict[str, str]:
    """The default of each field in a section's table."""
    found = {}
    for names, default in re.findall(r"^\| (`[^|]*`) \| ([^|]*)\|", section, flags=re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip())
    return found


@pytest.mark.parametrize(("page", "heading"), STRUCTS)
def test_a_table_has_every_field_of_its_parser_and_says_which_are_needed(page: str, heading: str) -> None:
    kind, found = STRUCTS[page, heading], documented(sections(page)[heading])
    names = set(kind.__struct_encode_fields__)
    if kind in {Track, TaskFile}:
        names -= NOT_IN_THE_FILE
    assert set(found) == names
    needed = len(kind.__struct_encode_fields__) - len(kind.__struct_defaults__)
    assert {name for name, default in found.items() if not default} == set(kind.__struct_encode_fields__[:needed])


@pytest.mark.parametrize("page", ["tracks.md", "tasks.md"])
def test_every_section_belongs_to_a_parser(page: str) -> None:
    assert set(sections(page)) == {heading for named, heading in STRUCTS if named == page}


def test_defaults_that_are_numbers_are_the_parsers() -> None:
    for (page, heading), kind in STRUCTS.items():
        found = documented(sections(page)[heading])
        names = kind.__struct_encode_fields__
        for name, default in zip(reversed(names), reversed(kind.__struct_defaults__), strict=False):
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert found[name] == f"{default:g}", (heading, name)
