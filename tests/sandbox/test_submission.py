"""Submission folders: found without running anything, loaded in the worker, options converted."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from harness import Count, NonNegative, Positive, Several, Share  # noqa: TC001 - read at run time
from harness.errors import SubmissionError
from harness.sandbox import submission
from harness.sandbox.submission import check_source, entry_name, find, folder_of, load, loaded, parse_options


@pytest.fixture(autouse=True)
def modules() -> Any:
    """Loading changes the interpreter, as it may in a worker; put it back."""
    path, kept = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(kept):
        del sys.modules[name]


def make(folder: Path, text: str = "tune = 1\n", name: str = "mine") -> Path:
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "submission.py").write_text(text, encoding="utf-8")
    return place


def test_an_entry_is_named_by_folder_and_options() -> None:
    assert entry_name("bbt", {}) == "bbt"
    assert entry_name("ng", {"b": "2", "a": "x"}) == "ng[a=x,b=2]"


@pytest.mark.parametrize("options", [{}, {"a": "x"}, {"words": "[1]", "b": "2"}])
def test_the_folder_of_an_entry_is_what_it_was_named_by(options: dict[str, str]) -> None:
    assert folder_of(entry_name("ng", options)) == "ng"


def test_a_folder_is_found_without_running_it(tmp_path: Path) -> None:
    place = make(tmp_path, "raise SystemExit('ran')\n")
    found = find(place)
    assert (found.name, found.path) == ("mine", place)
    assert find(place / "submission.py") == found


def test_the_digest_covers_every_file_but_caches(tmp_path: Path) -> None:
    place = make(tmp_path)
    first = find(place).sha256
    (place / "__pycache__").mkdir()
    (place / "__pycache__" / "submission.cpython-311.pyc").write_bytes(b"x")
    assert find(place).sha256 == first
    (place / "table.npy").write_bytes(b"\0")
    second = find(place).sha256
    (place / "table.npy").rename(place / "other.npy")
    assert len({first, second, find(place).sha256}) == 3


def test_what_a_desktop_leaves_in_a_folder_is_no_part_of_a_submission(tmp_path: Path) -> None:
    place = make(tmp_path)
    first = find(place)
    (place / "pictures").mkdir()
    for name in (".DS_Store", "pictures/.DS_Store", "Thumbs.db", "desktop.ini", "._submission.py"):
        (place / name).write_bytes(b"\0\0\0\1Bud1")
    assert find(place) == first


def test_moving_bytes_between_files_changes_the_digest(tmp_path: Path) -> None:
    place = make(tmp_path)
    (place / "a").write_bytes(b"12")
    (place / "b").write_bytes(b"3")
    first = find(place).sha256
    (place / "a").write_bytes(b"1")
    (place / "b").write_bytes(b"23")
    assert find(place).sha256 != first


def test_a_folder_below_a_cache_folder_is_digested(tmp_path: Path) -> None:
    below = tmp_path / "__pycache__"
    below.mkdir()
    first = find(make(below, "a = 1\n")).sha256
    assert find(make(below, "a = 2\n")).sha256 != first


def test_no_folder_and_no_submission_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere" / "submission.py"):
        with pytest.raises(SubmissionError, match="harness new"):
            find(path)


def test_a_folder_of_submissions_names_some_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "gbaced":
        Path("entries").mkdir(exist_ok=True)
        make(Path("entries"), name=name)
    Path("entries/empty").mkdir()
    some = ", ".join(f"entries/{name}" for name in "abcde")
    with pytest.raises(SubmissionError, match=rf"name one of the folders in it: {some}, \.\.\.$"):
        find("entries")


@pytest.mark.parametrize("name", ["1st", "with space", "a.b", "x" * 65, "-a"])
def test_an_unusable_name_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SubmissionError, match="name"):
        find(make(tmp_path, name=name))


def test_too_many_bytes_are_an_error_before_they_are_read(tmp_path: Path) -> None:
    place = make(tmp_path)
    with (place / "weights.bin").open("wb") as file:
        file.truncate(1 << 40)  # a hole; reading it would take for ever
    with pytest.raises(SubmissionError, match="MiB"):
        find(place)


def test_a_link_out_of_the_folder_is_an_error(tmp_path: Path) -> None:
    place = make(tmp_path)
    (place / "lib").symlink_to("/usr")
    with pytest.raises(SubmissionError, match="leads out"):
        find(place)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "nowhere or in a circle"),
        ("loop", "nowhere or in a circle"),
        ("more", "a link to a folder"),
    ],
)
def test_a_link_that_is_no_file_is_an_error(tmp_path: Path, target: str, message: str) -> None:
    place = make(tmp_path)
    (place / "more").mkdir()
    (place / "loop").symlink_to(target)
    with pytest.raises(SubmissionError, match=message):
        find(place)


def test_a_link_to_a_file_of_the_folder_is_that_file(tmp_path: Path) -> None:
    place = make(tmp_path)
    (place / "again.py").symlink_to("submission.py")
    assert dict(find(place).files) == {"again.py": b"tune = 1\n", "submission.py": b"tune = 1\n"}


def test_a_name_that_cannot_be_hashed_is_an_error(tmp_path: Path) -> None:
    place = make(tmp_path)
    Path(os.fsdecode(bytes(place) + b"/\xff.txt")).write_bytes(b"")
    with pytest.raises(SubmissionError, match="is not UTF-8"):
        find(place)


GOOD = """
from dataclasses import dataclass
import helper

@dataclass(frozen=True)
class Config:
    dim: int = 5

def tune(lm, task, shots, rng, config):
    return helper.answer
"""


def test_a_submission_may_have_modules_of_its_own(tmp_path: Path) -> None:
    place = make(tmp_path, GOOD)
    (place / "helper.py").write_text("answer = 42\n")
    solver = load(place, {"dim": "7"})
    assert solver.config.dim == 7
    assert solver.tune(None, None, None, None, None) == 42
    assert not (place / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Config: pass\n", "no function tune"),
        ("def tune(): pass\n", "no dataclass Config"),
        ("def tune(): pass\nclass Config: pass\n", "no dataclass Config"),
        ("tune = 3\n", "no function tune"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        load(make(tmp_path, text), {})


def test_what_the_author_raises_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load(make(tmp_path, "1 / 0\n"), {})


STRICT = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    dim: int = 5

    def __post_init__(self):
        if self.dim < 1:
            raise {problem}

def tune(lm, task, shots, rng, config):
    pass
"""


def test_a_value_that_the_config_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    place = make(tmp_path, STRICT.format(problem="ValueError(f'dim={self.dim}; 1 or more is needed')"))
    with pytest.raises(SubmissionError, match=r"^dim=0; 1 or more is needed$"):
        load(place, {"dim": "0"})
    assert load(place, {"dim": "1"}).config.dim == 1
    with pytest.raises(KeyError):
        load(make(tmp_path, STRICT.format(problem="KeyError(self.dim)")), {"dim": "0"})


@dataclasses.dataclass(frozen=True)
class Config:
    """One field of each kind."""

    count: int = 1
    width: float = 1.0
    name: str = ""
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    number: Literal[1, 2] = 1
    maybe: int | None = None
    rounds: Count = 1
    parents: Several = 2
    rate: Positive = 0.1
    decay: NonNegative = 0.0
    share: Share = 0.5
    kept: Literal[0] | Several | None = None
    either: float | str = 0.0
    many: tuple[float, ...] = ()
    table: dict[str, int] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "-3", -3),
        ("width", "1e-3", 0.001),
        ("name", "", ""),
        ("name", "a=b", "a=b"),
        ("flag", "TRUE", True),
        ("flag", "no", False),
        ("kind", "b", "b"),
        ("number", "2", 2),
        ("maybe", "none", None),
        ("maybe", "4", 4),
        ("count", "9" * 400, int("9" * 400)),
        ("rounds", "1", 1),
        ("parents", "2", 2),
        ("rate", "1e-9", 1e-9),
        ("decay", "0", 0.0),
        ("share", "1", 1.0),
        ("kept", "0", 0),
        ("kept", "2", 2),
        ("kept", "none", None),
        ("either", "0.5", 0.5),
        ("either", "auto", "auto"),
    ],
)
def test_options_are_converted_to_the_type_of_their_field(name: str, text: str, value: object) -> None:
    converted = parse_options(Config, {name: text})
    assert converted == {name: value}
    assert type(converted[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("count", "1.5", "option count='1.5': an integer is expected"),
        ("width", "wide", "option width='wide': a number is expected"),
        ("flag", "2", "true or false"),
        ("kind", "c", "one of a, b"),
        ("number", "3", "one of 1, 2"),
        ("maybe", "x", "option maybe='x': none expected; or an integer is expected"),
        ("width", "nan", "option width='nan': a finite number is expected"),
        ("width", "1e999", "a finite number is expected"),
        ("rounds", "0", "option rounds='0': Expected `int` >= 1"),
        ("parents", "1", "Expected `int` >= 2"),
        ("rate", "0", "Expected `float` > 0"),
        ("rate", "inf", "a finite number is expected"),
        ("decay", "-1e-9", "Expected `float` >= 0"),
        ("share", "1.01", "Expected `float` <= 1"),
        ("share", "-0.01", "Expected `float` >= 0"),
        ("kept", "1", "one of 0 expected; or Expected `int` >= 2"),
        ("many", "1.5", "cannot be set"),
        ("table", "1", "cannot be set"),
        ("size", "1", "no option 'size'; Config has count"),
    ],
)
def test_options_that_do_not_fit_are_errors(name: str, text: str, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        parse_options(Config, {name: text})


def test_types_that_cannot_be_read_matter_only_when_an_option_is_given() -> None:
    @dataclasses.dataclass
    class Odd:
        loss: Nowhere = None  # type: ignore[name-defined]  # noqa: F821

    assert parse_options(Odd, {}) == {}


@pytest.mark.parametrize(
    ("text", "access"),
    [
        ("", "black-box"),
        ('access = "black-box"\n', "black-box"),
        ('access = "white-box"\nraise SystemExit("ran")\n', "white-box"),
        ('access: str = "white-box"\n', "white-box"),
        ('def access():\n    access = "white-box"\n', "black-box"),
        ('config.access = "white-box"\n', "black-box"),
        ("this is no Python\n", "black-box"),
        ("\0", "black-box"),
        ("(" * 10_000, "black-box"),
    ],
)
def test_access_is_read_without_running_anything(tmp_path: Path, text: str, access: str) -> None:
    assert find(make(tmp_path, text)).access == access


@pytest.mark.parametrize(
    "text", ['"grey-box"', "None", '"white" + "-box"', 'f"white-box"', "WHITE", '("white-box",)', "1 / 0"]
)
def test_an_access_that_is_no_plain_string_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SubmissionError, match=r'submission.py:2: .*"black-box" or "white-box"'):
        find(make(tmp_path, f"\naccess = {text}\n"))


def test_a_source_is_checked_without_running_it(tmp_path: Path) -> None:
    check_source(find(make(tmp_path, "class Config: pass\ndef tune(): pass\n1 / 0\n")))
    for text, message in (("class Config: pass", "no function tune"), ("def tune(): pass", "no dataclass Config")):
        with pytest.raises(SubmissionError, match=message):
            check_source(find(make(tmp_path, text)))


def test_a_submission_loaded_for_a_while_leaves_nothing_behind(tmp_path: Path) -> None:
    sys.modules.pop("submission", None)  # another test's
    place, path, modules = make(tmp_path, GOOD), list(sys.path), set(sys.modules)
    (place / "helper.py").write_text("answer = 42\n")
    with loaded(place, {}) as solver:
        assert solver.tune(None, None, None, None, None) == 42
        assert {"submission", "helper"} <= set(sys.modules)
    assert (sys.path, set(sys.modules)) == (path, modules)
    with pytest.raises(SubmissionError, match="no option"), loaded(place, {"x": "1"}):
        pass
    assert (sys.path, set(sys.modules)) == (path, modules)


def test_every_submission_that_ships_can_be_found() -> None:
    for file in sorted((Path(submission.__file__).parents[1] / "submissions").glob("*/submission.py")):
        assert find(file.parent).name == file.parent.name


def test_the_page_about_a_submission_is_no_part_of_its_identity(tmp_path: Path) -> None:
    folder = tmp_path / "solver"
    folder.mkdir()
    (folder / "submission.py").write_text("class Config: ...\ndef tune(): ...\n")
    bare = find(folder)
    (folder / "README.md").write_text("| score | 1.0 |")
    first = find(folder)
    (folder / "README.md").write_text("| score | 2.0 |")
    second = find(folder)
    assert bare.sha256 == first.sha256 == second.sha256
    assert first.sha256_with_page != second.sha256_with_page  # by which runs of the first release are found again
    (folder / "data.txt").write_text("can be loaded")
    assert find(folder).sha256 != second.sha256
