"""Track files: those that ship load, and each rule has an error with file, line and expectation."""

from pathlib import Path

import pytest

from harness.errors import TrackError
from harness.track import load_track, track_names, track_tasks, tracks_dir

MINI = (tracks_dir() / "mini.toml").read_text(encoding="utf-8")


def wrong(tmp_path: Path, old: str, new: str) -> tuple[str, int]:
    """Message of the error without the file, and the line of the change."""
    assert old in MINI
    path = tmp_path / "mini.toml"
    path.write_text(MINI.replace(old, new, 1))
    with pytest.raises(TrackError) as problem:
        load_track(str(path))
    assert str(problem.value).startswith(f"{path}:")
    return str(problem.value).removeprefix(f"{path}"), MINI[: MINI.index(old)].count("\n") + 1


@pytest.mark.parametrize("name", ["kit", "mini", "official", "paper"])
def test_every_shipped_track_loads_with_its_tasks(name: str) -> None:
    track = load_track(name)
    assert track.name == name
    assert list(track_tasks(track)) == list(track.tasks)


def test_no_shipped_track_is_left_untested() -> None:
    assert {"kit", "mini", "official", "paper"} <= set(track_names())
    for name in track_names():
        load_track(name)


def test_the_official_budgets_are_the_competitions() -> None:
    track = load_track("official")
    assert {name: spec.calls for name, spec in track.tasks.items()} == {
        "sst2": 3000, "dbpedia": 3000, "snli": 8000, "qqp": 8000, "qnli": 8000,
    }  # fmt: skip
    assert all(isinstance(spec.splits, tuple) and len(spec.splits) == 5 for spec in track.tasks.values())


@pytest.mark.parametrize(
    ("old", "new", "expectation"),
    [
        ('device = "cpu"', 'device = "tpu"', "Invalid enum value 'tpu'"),
        ("rules = 1", "rules = 0", "`int` >= 1"),
        ("tokens = 8", 'tokens = "8"', "Expected `int`, got `str`"),
        ("wall_s = 600", "wall_s = 0", "`float` > 0"),
        ("wall_s = 600", "wall_s = inf", "`float` <= 1000000000.0"),
        ("wall_s = 600", "wall_s = nan", "`float`"),
        ("memory_gb = 4", "memory_mb = 4", "memory"),
        ('dtype = "bfloat16"', 'dtype = "int8"', "Invalid enum value 'int8'"),
        ('name = "mini"', 'name = "maxi"', "name is 'maxi' but the file is mini.toml"),
        ('profile = "house"', 'profile = "none"', "no profile 'none'; there are house"),
        ("splits = [1, 2, 3]", "splits = [1, 1]", "must be distinct and at least one"),
        ("splits = [1, 2, 3]", "splits = []", "must be distinct and at least one"),
        ("splits = [1, 2, 3]", 'splits = "present"', 'needs data.source = "kit"; list the splits'),
        ("splits = [1, 2, 3]", 'splits = "all"', "'all'"),
        ("[tasks.qqp]", "[tasks.mnli]", "no task 'mnli'"),
    ],
)
def test_each_rule_is_told_with_file_and_expectation(tmp_path: Path, old: str, new: str, expectation: str) -> None:
    assert expectation in wrong(tmp_path, old, new)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rules = 1", "rules = 0"),
        ("wall_s = 600", "wall_s = 0"),
        ("[tasks.snli]\ncalls = 600", "[tasks.snli]\ncalls = 0"),
        ("[tasks.qqp]", "[tasks.mnli]"),
        ("splits = [1, 2, 3]", "splits = [1, 1]"),
        ("device = ", "device "),
    ],
)
def test_the_line_is_that_of_the_mistake(tmp_path: Path, old: str, new: str) -> None:
    message, line = wrong(tmp_path, old, new)
    assert message.startswith(f":{line + old.count(chr(10))}: ")


def test_a_track_without_tasks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mini.toml"
    path.write_text(MINI[: MINI.index("[tasks.")] + "[tasks]\n")
    with pytest.raises(TrackError, match="at least one task is needed"):
        load_track(str(path))


def test_unknown_names_and_paths_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(TrackError, match=r"no track 'maxi'; there are .*mini.*\.toml"):
        load_track("maxi")
    with pytest.raises(TrackError, match="no such file"):
        load_track(str(tmp_path / "maxi.toml"))


def test_the_fingerprint_changes_with_anything_in_the_track(tmp_path: Path) -> None:
    def fingerprint(old: str, new: str) -> str:
        path = tmp_path / "mini.toml"
        path.write_text(MINI.replace(old, new, 1))
        return load_track(str(path)).fingerprint

    same = load_track("mini").fingerprint
    assert fingerprint("# no such text", "") == same
    assert fingerprint("calls = 300", "calls = 301") != same
    assert fingerprint("first_id = 2000", "first_id = 2001") != same
    assert fingerprint("splits = [1, 2, 3]", "splits = [1, 2, 4]") != same
