"""A frozen reference or power is written from measured runs, beside those of other tracks, and is read back."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness import cli
from harness.errors import InputError
from harness.leaderboard import anytime
from harness.leaderboard.anytime import REFERENCES, load_reference
from harness.leaderboard.freeze import freeze, frozen, frozen_power
from harness.leaderboard.rank import rank
from harness.leaderboard.tells import tells
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.leaderboard.rank import Ranking

TRACK = load_track("mini")
FACTS = CellRecord(rows_spent=32, train_rows=32, calls_total=10, rows_total=320, sandbox="A", metric="accuracy")
DAY = dt.date(2026, 11, 30)


def add(store: Store, name: str, right: float, cells: Any = TRACK.planned) -> None:
    run = store.open_run(key(name, track="mini", track_fingerprint=TRACK.fingerprint), {"packages": {}})
    labels = np.array([0, 1] * 20)
    for task, split in cells:
        said = np.where(np.arange(40) < right * 40, labels, 1 - labels)
        store.begin(run, task, split).finish("ok", FACTS, "t", labels, [KeptAnswer(1.0, 32, b"a", said)])


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store("sqlite://")
    add(made, "manual", 0.5)
    add(made, "good", 0.8)
    yield made
    made.close()


def ranked(store: Store) -> Ranking:
    return rank(store, "mini", TRACK.fingerprint, TRACK.planned)


def test_what_is_frozen_is_what_was_measured(store: Store, tmp_path: Path) -> None:
    path, ranking = tmp_path / "references.toml", ranked(store)
    freeze("mini", frozen(ranking, "good", DAY), path)
    found = load_reference("mini", ranking.identity, path)
    assert found is not None
    assert found.manual == dict.fromkeys(TRACK.tasks, 0.5)
    assert found.reference == pytest.approx(dict.fromkeys(TRACK.tasks, 0.8))
    runs = {run.key.entry: run.id for run in store.runs()}
    assert found.origin == (
        f"manual: run {runs['manual']}; reference: submission good, run {runs['good']}; seed 0, 3 splits a task, "
        "30 November 2026"
    )
    power = tells(TRACK, None, path)
    assert power is not None
    assert power.entries == 2


def test_other_tracks_and_comments_stay_and_older_tables_of_the_track_go(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "references.toml"
    path.write_text(
        "# kept\n\n[kit]\norigin = 'x' # [mini] is no head here\n[mini]\norigin = 'old'\n[mini.manual]\nsst2 = 0.1\n"
        "[minimal]\na = 1\n[minimal.manual]\nb = 2\n",
        encoding="utf-8",
    )
    for _ in range(2):
        freeze("mini", frozen(ranked(store), "good", DAY), path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# kept\n\n[kit]\norigin = 'x' # [mini] is no head here\n[minimal]\na = 1\n")
    assert "old" not in text
    assert text.count("[mini]\n") == text.count("[mini.manual]") == text.count("[mini.power]") == 1


def test_the_file_that_ships_can_be_frozen_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "references.toml"
    path.write_text(REFERENCES.read_text(encoding="utf-8"), encoding="utf-8")
    freeze("mini", frozen(ranked(store), "good", DAY), path)
    assert load_reference("mini", ranked(store).identity, path)


def test_power_alone_is_that_of_a_whole_reference_and_makes_no_scale(store: Store, tmp_path: Path) -> None:
    """It replaces older tables, and a track with it has no areas and is no damaged file."""
    ranking = ranked(store)
    whole, alone = tmp_path / "whole.toml", tmp_path / "alone.toml"
    for path in (whole, alone):
        freeze("mini", frozen(ranking, "good", DAY), path)
    freeze("mini", frozen_power(ranking, DAY), alone)
    assert load_reference("mini", ranking.identity, alone) is None
    assert tells(TRACK, None, alone) == tells(TRACK, None, whole) is not None
    assert "[mini.manual]" not in alone.read_text(encoding="utf-8")
    freeze("mini", frozen(ranking, "good", DAY), alone)
    assert alone.read_text(encoding="utf-8") == whole.read_text(encoding="utf-8")


def test_power_of_one_entry_is_refused(tmp_path: Path) -> None:
    store = Store("sqlite://")
    add(store, "good", 0.8)
    with pytest.raises(InputError, match=r"two complete ones are needed, and the main division has 1; run another"):
        frozen_power(ranked(store), DAY)
    store.close()


def test_scores_without_their_counterpart_are_a_damaged_file(store: Store, tmp_path: Path) -> None:
    path, ranking = tmp_path / "references.toml", ranked(store)
    freeze("mini", frozen(ranking, "good", DAY), path)
    path.write_text(path.read_text(encoding="utf-8").partition("[mini.reference]")[0], encoding="utf-8")
    with pytest.raises(InputError, match=r"\[mini\] has no reference; mend it"):
        load_reference("mini", ranking.identity, path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "complete are: good, manual"),
        ("manual", "not above manual on dbpedia.*--freeze-power"),
        ("part", "complete run of"),
    ],
)
def test_what_makes_no_scale_is_refused(store: Store, name: str, said: str) -> None:
    add(store, "part", 0.9, TRACK.planned[:3])
    with pytest.raises(InputError, match=said):
        frozen(ranked(store), name, DAY)


def test_without_the_bare_template_the_error_says_what_to_run() -> None:
    store = Store("sqlite://")
    add(store, "good", 0.8)
    with pytest.raises(InputError, match="harness evaluate submissions/manual --track mini"):
        frozen(ranked(store), "good", DAY)
    store.close()


def test_a_file_that_is_no_toml_is_left_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "references.toml"
    path.write_text("half = ", encoding="utf-8")
    with pytest.raises(InputError, match="not a file of references"):
        freeze("mini", frozen(ranked(store), "good", DAY), path)
    assert path.read_text(encoding="utf-8") == "half = "


def command(*words: str) -> int:
    """The exit code of a command in this process."""
    sys.argv = ["harness", *words]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_freezes_and_does_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into the checkout's file; without a checkout it says why it cannot."""
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.chdir(tmp_path)
    results = Store("results.db")
    add(results, "manual", 0.5)
    add(results, "good", 0.8)
    results.close()
    (tmp_path / "checkout").mkdir()
    monkeypatch.setattr(anytime, "CHECKOUT", tmp_path / "checkout" / "references.toml")
    assert command("leaderboard", "--store", "results.db", "--freeze", "good") == 0
    assert "0 is manual, 1 is good" in capsys.readouterr().out
    assert "submission good" in (tmp_path / "checkout" / "references.toml").read_text(encoding="utf-8")
    assert not (tmp_path / "leaderboard").exists()
    assert command("leaderboard", "--store", "results.db", "--freeze-power") == 0
    assert "which leads can be told" in capsys.readouterr().out
    assert "submission good" not in (tmp_path / "checkout" / "references.toml").read_text(encoding="utf-8")
    assert command("leaderboard", "--store", "results.db", "--freeze", "good", "--freeze-power") == 2
    assert command("leaderboard", "--store", "results.db", "--freeze", "absent") == 2
    monkeypatch.setattr(anytime, "CHECKOUT", tmp_path / "gone" / "references.toml")
    assert command("leaderboard", "--store", "results.db", "--freeze", "good") == 2
    assert "of a checkout, and this is none" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    "words",
    [
        ("watch", "--web", "--once"),
        ("report", "--out", "x", "--fresh", "--cache", "y"),
        ("report", "--out", "x", "-t", "mini", "-t", "no"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly", reason="plotly is in the extra `report`")
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.chdir(tmp_path)
    Store("results.db").close()
    assert command(*words, "--store", "results.db") in {1, 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.db"]
