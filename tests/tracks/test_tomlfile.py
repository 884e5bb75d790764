"""An error in a TOML file is reported with file, line and expectation."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from harness.errors import TaskError, TrackError
from harness.tracks.tomlfile import line_of, read_toml


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A table."""

    size: Annotated[int, msgspec.Meta(gt=0)]
    word: str = ""


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    """A file."""

    name: str
    one: Inner
    many: dict[str, Inner] = {}


GOOD = """# a comment
name = "n"

[one]
size = 1
word = "name = 3"

[many.a]
size = 1

[many.b]
word = "w"
size = 2
"""


def wrong(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "file.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(TrackError) as problem:
        read_toml(path, Outer, TrackError)
    return str(problem.value).removeprefix(f"{path}")


def test_a_good_file_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(GOOD)
    assert read_toml(path, Outer, TrackError) == Outer("n", Inner(1, "name = 3"), {"a": Inner(1), "b": Inner(2, "w")})


@pytest.mark.parametrize(
    ("old", "new", "line", "expectation"),
    [
        ('name = "n"', "name = 3", 2, "Expected `str`, got `int`"),
        ('name = "n"\n', "", 1, "missing required field `name`"),
        ('name = "n"', 'name = "n"\ncolour = 1', 3, "unknown field `colour`"),
        ("[one]\nsize = 1", "[one]\nsize = 0", 5, "`int` >= 1"),
        ("[one]\nsize = 1\n", "[one]\n", 4, "missing required field `size`"),
        ("[one]\nsize = 1", "[one]\nsize = 1\nname = 2", 6, "unknown field `name`"),
        ("[many.a]\nsize = 1", "[many.a]\nsize = 1.5", 9, "Expected `int`, got `float`"),
        ("size = 2", "size = -2", 13, "$.many.b.size"),
        ("size = 2\n", "", 11, "missing required field `size` - at `$.many.b`"),
        ("size = 2", "size = 2\nsize2 = 2", 14, "unknown field `size2`"),
        ("[many.b]", "[several.b]", 11, "unknown field `several`"),
        ("size = 2", "size 2", 13, "not valid TOML"),
        ("size = 2", "size = 2\nsize = 3", 14, "not valid TOML"),
    ],
)
def test_a_mistake_is_reported_at_its_line(tmp_path: Path, old: str, new: str, line: int, expectation: str) -> None:
    message = wrong(tmp_path, GOOD.replace(old, new, 1))
    assert message.startswith(f":{line}: ")
    assert expectation in message


def test_a_file_that_ends_too_early_is_reported_at_its_end(tmp_path: Path) -> None:
    assert wrong(tmp_path, 'name = "n"\nlist = [1,\n2').startswith(":3: not valid TOML")


def test_inline_tables_are_found_by_their_outer_key(tmp_path: Path) -> None:
    assert wrong(tmp_path, 'name = "n"\none = { size = 1 }\nmany.x = { size = 0 }\n').startswith(":3: ")


def test_a_missing_file_a_directory_and_bytes_that_are_no_text_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such file"):
        read_toml(tmp_path / "none.toml", Outer, TaskError)
    with pytest.raises(TaskError, match="cannot be read"):
        read_toml(tmp_path, Outer, TaskError)
    assert "cannot be read" in wrong(tmp_path, b'name = "\xff"')


def test_line_of_takes_the_longest_beginning_of_a_key_and_else_the_first_line() -> None:
    assert line_of(GOOD, ["many", "b", "size"]) == 13
    assert line_of(GOOD, ["many", "b", "none"]) == 11
    assert line_of(GOOD, ["none"]) == 1
