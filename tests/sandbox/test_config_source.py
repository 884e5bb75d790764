"""What a Config's source tells about its options, without running it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness
from harness.errors import SubmissionError
from harness.sandbox.config_source import ConfigSource, check_options, read_config
from harness.sandbox.submission import find, loaded, parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDERS = sorted(path.parent for path in (Path(harness.__file__).parents[1] / "submissions").glob("*/submission.py"))
TRIED = (
    "",
    "0",
    "1",
    "-1",
    "2",
    "0.5",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "9" * 400,
    "true",
    "none",
    "add",
    "x",
    "é",
    "cls",
)
TOP = "from __future__ import annotations\nfrom dataclasses import dataclass, field\nfrom typing import Literal\n"
CONTRACT = "from harness import Count, Share\n"


def said(config: type, options: Mapping[str, str]) -> str:
    """What the worker's own code says about options, which is the reference."""
    try:
        config(**parse_options(config, options))
    except (SubmissionError, ValueError) as problem:
        return str(problem)
    return ""


def read(source: ConfigSource, options: Mapping[str, str]) -> str:
    """What the source says of them."""
    try:
        source.check(options)
    except SubmissionError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_shipped_config_is_read_as_the_worker_reads_it(folder: Path) -> None:
    """Each field with values good and bad: the same refusal in the same words, or none."""
    found = read_config(find(folder))
    assert found is not None
    assert found.complete
    with loaded(folder, {}) as solver:
        for name, value in itertools.product([*found.types, "no_such_option"], TRIED):
            wanted, got = said(type(solver.config), {name: value}), read(found, {name: value})
            if got != wanted:  # what `__post_init__` refuses is the worker's to say
                assert not found.plain, (name, value, got, wanted)
                assert not got
                assert name in found.types


def write(folder: Path, config: str, top: str = TOP + CONTRACT) -> Path:
    place = folder / "entry"
    place.mkdir(exist_ok=True)
    text = f"{top}\n{config}\n\ndef tune(lm, task, shots, rng, config):\n    yield None\n"
    (place / "submission.py").write_text(text, encoding="utf-8")
    return place


def test_nothing_of_the_source_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    place = write(
        tmp_path, f"open({str(mark)!r}, 'w')\n@dataclass\nclass Config:\n    n: Count = open({str(mark)!r}, 'w')"
    )
    check_options(find(place), {"n": "1"})
    assert not mark.exists()


def test_a_plain_config_is_settled_by_its_source(tmp_path: Path) -> None:
    place = write(
        tmp_path,
        "@dataclass(frozen=True)\nclass Config:\n    '''It.'''\n    n: Count | None = None\n    s: Share = -0.5",
    )
    assert check_options(find(place), {"n": "3", "s": "1"})
    with pytest.raises(SubmissionError, match=r"entry: option n='0': "):
        check_options(find(place), {"n": "0"})
    with pytest.raises(SubmissionError, match="no option 'm'; Config has n, s"):
        check_options(find(place), {"m": "0"})


@pytest.mark.parametrize(
    "config",
    [
        "class Base:\n    m: int = 1\n@dataclass\nclass Config(Base):\n    n: Count = 1",  # fields from elsewhere
        "@dataclass\nclass Config:\n    n: Count = 1\nConfig = dataclass(type('Config', (), {}))",  # bound again
        "if True:\n    @dataclass\n    class Config:\n        m: int = 1",  # not at the top
        "def dataclass(c):\n    return c\n@dataclass\nclass Config:\n    n: Count = 1",  # another decorator
        "@dataclass\n@repr\nclass Config:\n    n: Count = 1",
        "@dataclass\nclass Config:\n    n: Count = 1\n    __annotations__ = {'m': int}",
        "@dataclass\nclass Config:\n    n: Count = field(init=False, default=1)",
        "from elsewhere import *\n@dataclass\nclass Config:\n    n: Count = 1",
        "import harness as dataclass\n@dataclass\nclass Config:\n    n: Count = 1",
        "Config = None",
        "",
    ],
)
def test_what_the_source_leaves_open_is_left_to_the_worker(tmp_path: Path, config: str) -> None:
    """Not even a name that seems to be unknown is refused."""
    assert not check_options(find(write(tmp_path, config)), {"m": "x"})


@pytest.mark.parametrize(
    "kind",
    [
        "Mine",
        "list[int]",
        "Literal[1 + 1]",
        "'Count'",
        "Literal",
        "Count[int]",
        "Count | Mine",
        "harness.Count",
        "str.upper",
    ],
)
def test_a_type_that_is_not_known_for_sure_takes_every_value(tmp_path: Path, kind: str) -> None:
    place = write(tmp_path, f"Mine = int\n@dataclass\nclass Config:\n    n: {kind} = 1\n    s: Share = 1")
    assert not check_options(find(place), {"n": "x"})
    with pytest.raises(SubmissionError, match="option s='2'"):
        check_options(find(place), {"n": "x", "s": "2"})


@pytest.mark.parametrize(
    "top", ["from mine import Count\n", "from harness import Share as Count\nCount = int\n", "int = str\n"]
)
def test_a_name_that_means_something_else_is_not_mistaken(tmp_path: Path, top: str) -> None:
    place = write(tmp_path, "@dataclass\nclass Config:\n    n: Count = 1\n    m: int = 1", TOP + top + "\n")
    assert not check_options(find(place), {"n": "-1"})


def test_a_source_of_a_thousand_nested_types_or_of_none_is_no_error(tmp_path: Path) -> None:
    deep = " | ".join(["Count"] * 900)
    place = write(tmp_path, f"@dataclass\nclass Config:\n    n: {'(' * 90}{deep}{')' * 90} = 1")
    assert check_options(find(place), {}) in {True, False}
    assert not check_options(find(write(tmp_path, "@dataclass\nclass Config:\n    n: Count = = 1")), {"n": "0"})
