"""Track files: those that ship load, and each rule has an error with file, line and expectation."""

import re
from pathlib import Path

import pytest

from harness.errors import TrackError
from harness.tracks.tasks import load_task
from harness.tracks.track import Numerics, load_track, track_names, track_tasks, tracks_dir

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


def test_the_papers_tasks_have_its_budget_and_three_splits() -> None:
    """Seven tasks of 16 shots per class, 8,000 calls each, 20,000 on DBPedia, and the metrics of its Table 3."""
    track = load_track("paper")
    assert list(track.tasks) == ["sst2", "yelp", "agnews", "dbpedia", "mrpc", "snli", "rte"]
    for name, spec in track.tasks.items():
        calls = 20_000 if name == "dbpedia" else 8000
        assert (spec.calls, spec.splits, spec.shots, spec.dev) == (calls, (8, 13, 42), 16, 16)
    metrics = {name: file.metric for name, file in track_tasks(track).items()}
    assert {name for name, metric in metrics.items() if metric != "accuracy"} == {"mrpc"}
    assert {name for name, file in track_tasks(load_track("official")).items() if file.metric == "macro_f1"} == {
        "dbpedia",
        "snli",
    }


@pytest.mark.parametrize("name", ["official", "paper"])
def test_the_published_heads_bias_stays(name: str) -> None:
    """The published numbers contain it."""
    assert not load_track(name).model.zero_head_bias


def test_split_names_say_whose_rows_they_are() -> None:
    """The paper's draw has the paper's names; what is drawn here for the competition has names that the kit lacks."""
    paper, official, long = load_track("paper"), load_track("official"), load_track("mini-long")
    assert paper.data.draw == "bbt-2022"
    assert official.data.draw == "hash"
    assert official.data.takes_kit
    assert all(spec.splits == (1, 2, 3, 4, 5) for spec in official.tasks.values())
    assert {name: spec.calls for name, spec in long.tasks.items()} == {
        name: spec.calls for name, spec in official.tasks.items()
    }


@pytest.mark.parametrize(("name", "fingerprint"), [("mini", "8088f363d2dc772a"), ("kit", "b8849aca530e113a")])
def test_published_runs_stay_comparable(name: str, fingerprint: str) -> None:
    assert load_track(name).fingerprint == fingerprint


def test_each_track_names_its_wording_and_the_public_model_is_pinned() -> None:
    """The kit's for the competition, the paper's for the paper, one commit of the weights."""
    tracks = {name: load_track(name) for name in ("kit", "mini", "official", "paper")}
    profiles = {name: track.profile for name, track in tracks.items()}
    assert profiles == {"kit": "harness-2026", "mini": "harness-2026", "official": "kit-2022", "paper": "paper-2022"}
    for name in ("official", "paper"):
        assert (tracks[name].prompt.tokens, tracks[name].prompt.first_id) == (50, 1000)
        assert re.fullmatch("[0-9a-f]{40}", tracks[name].model.revision or "")
    assert tracks["official"].model == tracks["paper"].model


def test_a_task_without_the_tracks_wording_is_told(tmp_path: Path) -> None:
    """With the line of the task and the profiles it has."""
    text = MINI.replace("[tasks.sst2]", "[tasks.rte]").replace('profile = "harness-2026"', 'profile = "kit-2022"')
    path = tmp_path / "mini.toml"
    path.write_text(text)
    with pytest.raises(TrackError) as problem:
        load_track(str(path))
    line = text[: text.index("[tasks.rte]")].count("\n") + 1
    expectation = "tasks.rte: task rte: no profile 'kit-2022'; there are harness-2026, paper-2022"
    assert str(problem.value) == f"{path}:{line}: {expectation}"


@pytest.mark.parametrize(
    ("old", "new", "expectation"),
    [
        ('device = "cpu"', 'device = "tpu"', "Invalid enum value 'tpu'"),
        ("rules = 2", "rules = 0", "`int` >= 1"),
        ("tokens = 8", 'tokens = "8"', "Expected `int`, got `str`"),
        ("wall_s = 600", "wall_s = 0", "`float` > 0"),
        ("wall_s = 600", "wall_s = inf", "`float` <= 1000000000.0"),
        ("wall_s = 600", "wall_s = nan", "`float`"),
        ("memory_gb = 4", "memory_mb = 4", "memory"),
        ('dtype = "bfloat16"', 'dtype = "int4"', "Invalid enum value 'int4'"),
        ('name = "mini"', 'name = "maxi"', "name is 'maxi' but the file is mini.toml"),
        ('profile = "harness-2026"', 'profile = "none"', "no profile 'none'; there are harness-2026"),
        ("splits = [1, 2, 3]", "splits = [1, 1]", "must be distinct and at least one"),
        ("splits = [1, 2, 3]", "splits = []", "must be distinct and at least one"),
        ("splits = [1, 2, 3]", 'splits = "present"', '"kit"; list the splits'),
        ("splits = [1, 2, 3]", 'splits = "all"', "'all'"),
        ("[prompt]", '[numerics]\nattention = "eager"\n[prompt]', "Invalid enum value 'eager'"),
        ("[prompt]", "[numerics]\nchunk_tokens = 0\n[prompt]", "`int` >= 1"),
        ("[prompt]", "[numerics]\ntf23 = true\n[prompt]", "tf23"),
        ("[tasks.qqp]", "[tasks.mnli]", "no task 'mnli'"),
    ],
)
def test_each_rule_is_told_with_file_and_expectation(tmp_path: Path, old: str, new: str, expectation: str) -> None:
    assert expectation in wrong(tmp_path, old, new)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rules = 2", "rules = 0"),
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
    with pytest.raises(TrackError, match=r"no track 'maxi'; choose one of .*mini.*\.toml"):
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
    assert fingerprint("[prompt]", "[numerics]\nthreads = 2\n\n[prompt]") != same


PRICES = """
[prices]
currency = "EUR"
per_call = 0.5
per_million_tokens = 2
per_gb = 3
per_hour = 6
"""


def test_prices_are_read_and_change_no_fingerprint(tmp_path: Path) -> None:
    """They may be added to a track that has runs."""
    path = tmp_path / "mini.toml"
    path.write_text(MINI + PRICES, encoding="utf-8")
    track = load_track(str(path))
    assert track.fingerprint == load_track("mini").fingerprint
    assert track.prices is not None
    assert track.prices.cost(calls=4, tokens=5e5, traffic=2e9, seconds=1_800) == 2 + 1 + 6 + 3
    assert load_track("mini").prices is None


@pytest.mark.parametrize("line", ["per_call = -1", "per_word = 1", "currency = 3"])
def test_prices_that_mean_nothing_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mini.toml"
    name = line.split(" = ", maxsplit=1)[0]
    path.write_text(MINI + "\n".join(each for each in PRICES.splitlines() if not each.startswith(name)) + f"\n{line}\n")
    with pytest.raises(TrackError, match=r"mini\.toml"):
        load_track(str(path))


def test_a_track_file_with_the_first_name_of_the_own_wording_is_the_same_track(tmp_path: Path) -> None:
    """It loads, it reads the same words, and runs on it are ranked with those on the renamed one."""
    path = tmp_path / "mini.toml"
    path.write_text(MINI.replace('profile = "harness-2026"', 'profile = "house"'), encoding="utf-8")
    old, new = load_track(str(path)), load_track("mini")
    assert old.profile != new.profile
    assert old.fingerprint == new.fingerprint
    assert load_task("sst2").task(old.profile, "masked") == load_task("sst2").task(new.profile, "masked")


def test_tracks_with_published_results_keep_their_fingerprints() -> None:
    """A change here parts all results measured so far from those to come."""
    assert load_track("mini").fingerprint == "8088f363d2dc772a"
    assert load_track("kit").fingerprint == "b8849aca530e113a"


def test_a_track_without_numerics_has_the_default_ones(tmp_path: Path) -> None:
    """What is not in the table keeps its default."""
    assert load_track("mini").numerics == Numerics(
        tf32=False, attention="sdpa", deterministic=False, threads=None, chunk_tokens=4096
    )
    path = tmp_path / "mini.toml"
    path.write_text(MINI + "\n[numerics]\nchunk_tokens = 65536\ndeterministic = true\n")
    assert load_track(str(path)).numerics == Numerics(deterministic=True, chunk_tokens=65536)
