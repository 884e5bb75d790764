"""Every option that replaces a track's choice is handled in identity, ranking, plans, paths and replay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.cli.options import OPTIONS, REPLAYED
from harness.errors import InputError
from harness.evaluation.overrides import Overrides, decisions
from harness.evaluation.plan import basis_of
from harness.evaluation.preparation import replaced
from harness.leaderboard.rank import rank
from harness.results.records import CellRecord, Run, RunKey, StoredCell
from harness.tracks.examples import Source, splits_of
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from harness.results.rulings import Ruling
    from harness.tracks.track import Track

GIVEN: dict[str, Any] = {
    "model": "some/dir/roberta",
    "calls": 40,
    "data": Path("some/kit"),
    "test_data": Path("some/private"),
    "backend": "onnxruntime",
    "shots": 64,
    "seed": 3,
    "repeat": 2,
    "device": "cuda",
    "endpoint": "http://127.0.0.1:8080",
    "served_model": "some-model",
    "concurrency": 16,
    "p0": Path("some/p0.safetensors"),
    "white_box": True,
    "sandbox": "B",
    "tasks": ("sst2",),
    "splits": (2,),
    "present_splits": True,
    "staged": Path("some/staged"),
}
"""A value of each field that is not its default. A new field needs one, and a `Decision`."""
NAMES = tuple(each.name for each in dataclasses.fields(Overrides))
IN_THE_KEY = {"seed": 3, "repeat": 2, "device": "NVIDIA H200", "external": "mnli p0 0123", "access": "white-box"}
"""What a run's identity holds where an override is told apart by a field of its own."""


@pytest.fixture(scope="module")
def mini() -> Track:
    return load_track("mini")


def given(name: str) -> Overrides:
    return Overrides(**{name: GIVEN[name]})


def test_every_field_has_a_decision_an_option_and_a_value_in_this_test() -> None:
    assert all("decision" in each.metadata for each in dataclasses.fields(Overrides))
    assert set(NAMES) == set(OPTIONS) == set(GIVEN) == set(decisions())
    assert all(getattr(given(name), name) != getattr(Overrides(), name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_run_says_of_an_override_is_what_was_decided(name: str, mini: Track) -> None:
    decision = decisions()[name]
    assert given(name).modified(mini) == ((name,) if decision.identity == "modified" else ())
    if decision.identity in IN_THE_KEY:
        assert decision.identity in {each.name for each in dataclasses.fields(RunKey)}
    if decision.identity == "cell":
        assert name in {each.name for each in dataclasses.fields(CellRecord)}


@pytest.mark.parametrize("name", [name for name in NAMES if decisions()[name].identity not in {"cell", "part"}])
def test_a_run_with_an_override_is_never_ranked_with_the_track(name: str) -> None:
    identity = decisions()[name].identity
    usual = key("usual")
    changes: dict[str, Any] = {"modified": (name,)} if identity == "modified" else {identity: IN_THE_KEY[identity]}
    other = dataclasses.replace(key("other"), **changes)
    ranking = rank(Results([usual, key("second"), other]), usual.track)
    assert {entry.name for entry in ranking.entries if not entry.white_box} == {"usual", "second"}
    assert all(entry.rank is None for entry in (*ranking.entries, *ranking.elsewhere) if entry.name == "other")


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_told_apart_as_decided(name: str, mini: Track) -> None:
    planned = decisions()[name].planned
    assert (basis_of(mini, given(name)) != basis_of(mini, Overrides())) == (planned != "no")
    if planned == "name":
        moved = Overrides(**{name: type(GIVEN[name])(f"elsewhere/{Path(GIVEN[name]).name}")})
        assert basis_of(mini, moved) == basis_of(mini, given(name))
    if decisions()[name].identity in {"modified", "seed", "repeat", "device", "external"}:
        assert planned != "no", "a line of a plan would run something else than was planned"


@pytest.mark.parametrize("name", NAMES)
def test_a_path_means_the_same_in_another_directory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(str(GIVEN["model"])).mkdir(parents=True)
    before, after = getattr(given(name), name), getattr(given(name).absolute(), name)
    is_path = isinstance(before, Path) or name == "model"
    assert Path(str(after)).is_absolute() == is_path
    assert type(after) is type(before)
    assert after == before or is_path


def test_a_model_of_the_hub_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Overrides(model="org/name").absolute().model == "org/name"


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_takes_each_from_where_it_was_decided(name: str, mini: Track) -> None:
    """From the stored run, from the command line again, or from neither."""
    stored = dataclasses.replace(key(), seed=3, repeat=2, modified=("calls", "backend", "shots"), calls=40)
    cells = [cell("sst2", 2, CellRecord(calls_total=40, train_rows=128, words=("bad", "good")))]
    repeated = getattr(given(name).repeating(stored, cells, mini), name)
    untouched = getattr(Overrides().repeating(stored, cells, mini), name)
    from_where = {"stored": GIVEN[name], "given": GIVEN[name], "no": getattr(Overrides(), name)}
    assert repeated == from_where[decisions()[name].replayed]
    assert (untouched == repeated) == (decisions()[name].replayed != "given")
    assert (name in REPLAYED) == (decisions()[name].replayed == "given")
    if decisions()[name].identity == "modified":
        assert decisions()[name].replayed != "no", "a run with it could not be repeated"


def test_data_of_a_kit_track_replace_nothing() -> None:
    assert Overrides(data=Path("kit")).modified(load_track("kit")) == ()
    assert Overrides(data=Path("kit")).modified(load_track("mini")) == ("data",)


def test_a_kit_is_the_competitions_own_data(tmp_path: Path) -> None:
    """Its splits are run under their own numbers; any other directory replaces the track's data."""
    official, file = load_track("official"), load_task("sst2")
    assert Overrides(data=tmp_path).modified(official) == ("data",)
    for split in (8, 13):
        (tmp_path / "SST-2" / str(split)).mkdir(parents=True)
        (tmp_path / "SST-2" / str(split) / "train.tsv").write_text("good\tpositive\n", encoding="utf-8")
    assert Overrides(data=tmp_path).modified(official) == ()
    assert Overrides(data=tmp_path).modified(load_track("paper")) == ("data",)
    kit = Source("kit", tmp_path, all_splits=True)
    assert splits_of(file, kit, official.tasks["sst2"]) == [8, 13]
    assert splits_of(file, Source("hub"), official.tasks["sst2"]) == [1, 2, 3, 4, 5]


def test_other_shots_need_splits_that_are_drawn(mini: Track) -> None:
    changed = replaced(mini, Overrides(shots=64))
    assert all((spec.shots, spec.dev) == (64, 64) for spec in changed.tasks.values())
    for track, shots, says in ((mini, 0, "a positive number"), (load_track("kit"), 64, "have the examples")):
        with pytest.raises(InputError, match=says):
            replaced(track, Overrides(shots=shots))


def test_the_tracks_own_backend_replaces_nothing(mini: Track) -> None:
    assert Overrides(backend="torch").modified(mini) == ()


FIRST = "0123456789abcdef"
"""A fingerprint that no track has."""


@pytest.mark.parametrize(
    ("overrides", "digest"),
    [
        ({}, "07929fa3"),
        ({"model": "some/dir/roberta"}, "8a5da03f"),
        ({"data": Path("a/kit")}, "fa94d778"),
        ({"calls": 40}, "31aecf98"),
        ({"seed": 3}, "3b32fe09"),
        ({"device": "cpu"}, "87f22163"),
        ({"backend": "onnxruntime"}, "768d5bdb"),
        ({"p0": Path("x/p0.safetensors")}, "8dcc242e"),
        ({"test_data": Path("t/private")}, "b3da1e3f"),
        ({"tasks": ("sst2",), "splits": (1,), "present_splits": True, "white_box": True, "sandbox": "B"}, "07929fa3"),
        (
            {
                "model": "m", "data": Path("d"), "calls": 5, "seed": 1, "device": "cuda", "backend": "torch",
                "p0": Path("p"), "test_data": Path("t"),
            },
            "9ba2e731",
        ),
    ],
)  # fmt: skip
def test_plans_have_the_digests_they_always_had(
    overrides: dict[str, Any], digest: str, mini: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(mini), "fingerprint", FIRST)
    assert basis_of(mini, Overrides(**overrides)) == digest


class Results:
    """Runs with a cell each, as `rank` reads them."""

    def __init__(self, keys: list[RunKey]) -> None:
        self._runs = [Run(f"{n}", each, {"packages": {}}, float(n)) for n, each in enumerate(keys)]

    def runs(self) -> list[Run]:
        """See `harness.leaderboard.rank.Results`."""
        return self._runs

    def rulings(self) -> list[Ruling]:
        """See `harness.leaderboard.rank.Results`."""
        return []

    def cells(self, run: str) -> list[StoredCell]:
        """See `harness.leaderboard.rank.Results`."""
        return [dataclasses.replace(cell("sst2", 1, CellRecord(train_rows=32, sandbox="A")), run=run)]


def cell(task: str, split: int, record: CellRecord) -> StoredCell:
    labels = np.arange(8) % 2
    return StoredCell("", task, split, 1, "ok", record, labels, {1.0: labels}, 0.0, {1.0: 0})
