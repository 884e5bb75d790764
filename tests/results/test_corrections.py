"""Wrong labels are corrected by one more fact: scores change with it, and nothing that was stored does."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import key
from test_rulings import cell

from harness.errors import DataError, InputError
from harness.leaderboard.rank import rank
from harness.leaderboard.uploads import uploads
from harness.results.audit import audit
from harness.results.corrections import LONGEST_REASON, Correction, decided
from harness.results.merge import merge
from harness.results.migrate import migrate, needed
from harness.results.records import CellRecord, KeptAnswer
from harness.results.rescoring import apply, changes
from harness.results.store import Store
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SST2 = load_task("sst2")
TEST = load_test(SST2, Source("embedded"))


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    made = Store(place)
    yield made
    made.close()


def write(folder: Path, labels: list[int] | np.ndarray, texts: tuple[tuple[str, ...], ...] = TEST.texts) -> Path:
    """A directory with a test set of SST-2, laid out as for `--test-data`."""
    path = folder / "sst2" / "mini" / "test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"texts": text, "label": SST2.classes[label]} for text, label in zip(texts, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def flipped(*rows: int) -> np.ndarray:
    labels = TEST.labels.copy()
    labels[list(rows)] = 1 - labels[list(rows)]
    return labels


def correct(store: Store, folder: Path, *rows: int, reason: str = "they were wrong") -> list[Correction]:
    return apply(store, changes(store, [SST2], write(folder, flipped(*rows))), reason)


def average(store: Store, labels: str = "corrected") -> float:
    store.labels = labels
    return rank(store, "tiny", "f").entries[0].average


def test_scores_follow_the_correction_and_the_old_ones_can_be_asked_for(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"), right=150)  # the first 150 predictions are right
    assert average(store) == 0.75
    correct(store, tmp_path, 0, 1, 2, 199)
    assert average(store) == (147 + 1) / 200
    assert average(store, "original") == 0.75
    assert not changes(store, [SST2], tmp_path)  # they are in force


def test_an_id_names_the_labels_as_they_were_at_that_time(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"), right=150)
    (first,) = correct(store, tmp_path, 0)
    (second,) = correct(store, tmp_path, 0, 1)
    assert [average(store, which) for which in (first.id[:8], second.id, "original")] == [0.745, 0.74, 0.75]
    with pytest.raises(InputError, match=f"there are: {first.id[:12]}, {second.id[:12]}"):
        average(store, "0123")


def test_a_correction_can_be_taken_back_by_another(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"), right=150)
    correct(store, tmp_path, 0, 1, 2)
    correct(store, tmp_path, reason="they were right")
    assert average(store) == 0.75
    assert "which hold again: no label of 200 corrected" in store.labels_shown("tiny")[0]


def test_the_leaderboard_says_which_labels_it_shows(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"))
    assert store.labels_shown("tiny") == []
    (made,) = correct(store, tmp_path, 0, 5, reason="two  were\nwrong")
    (line,) = store.labels_shown("tiny")
    assert f"({made.id[:12]}: two were wrong); the labels of the runs: --labels original" in line
    assert "scored with sst2: 2 labels of 200 corrected" in line
    store.labels = "original"
    (line,) = store.labels_shown("tiny")
    assert "the labels on which the runs were scored; they were corrected since: 2 labels of 200" in line
    assert store.labels_shown("another track") == []


def test_a_run_to_come_on_the_old_labels_is_corrected_as_well(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"))
    correct(store, tmp_path, 0, 1)
    cell(store, key("b"))
    ranking = rank(store, "tiny", "f")
    assert [entry.average for entry in ranking.entries] == [0.74, 0.74]


def test_uploads_are_scored_with_the_corrected_labels(store: Store, tmp_path: Path) -> None:
    run = store.open_run(key("up", access="predictions"), {})
    record = CellRecord(access="predictions", metric="accuracy", words=SST2.classes)
    kept = [KeptAnswer(1.0, 0, b"", TEST.labels)]
    store.begin(run, "sst2", 1).finish("ok", record, examples_sha256(TEST), TEST.labels, kept)
    correct(store, tmp_path, *range(20))
    assert [each.average for each in uploads(store, "tiny", "f", [])] == [0.9]


def test_other_texts_are_refused_and_nothing_is_stored(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"))
    for texts, labels in (
        (TEST.texts[:-1], flipped(0)[:-1]),
        ((("another",), *TEST.texts[1:]), flipped(0)),
        (TEST.texts[::-1], flipped(0)[::-1]),
    ):
        with pytest.raises(DataError, match="no run was scored on these texts in this order"):
            changes(store, [SST2], write(tmp_path, labels, texts))
    with pytest.raises(DataError, match="has no test set of sst2"):
        changes(store, [SST2], tmp_path / "sst2")
    assert store.labels_shown("tiny") == []


def test_a_reason_is_needed(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"))
    for reason in ("", " \n", "x" * (LONGEST_REASON + 1)):
        with pytest.raises(InputError, match="--reason has"):
            correct(store, tmp_path, 0, reason=reason)
    with store.snapshot() as connection:
        assert decided(connection) == []


@given(st.lists(st.sets(st.integers(0, 199)), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_labels_score_as_if_the_run_had_been_scored_on_them(tmp_path: Path, rounds: list[set[int]]) -> None:
    store = Store("sqlite://")
    cell(store, key("a"), right=150)
    for rows in rounds:
        correct(store, tmp_path, *rows)
    predicted = np.where(np.arange(200) < 150, TEST.labels, 1 - TEST.labels)
    assert average(store) == pytest.approx(np.mean(predicted == flipped(*rounds[-1])))
    assert average(store, "original") == 0.75
    assert audit(store).findings == ()
    store.close()


def test_merging_brings_corrections_over_once(store: Store, tmp_path: Path) -> None:
    cell(store, key("a"))
    correct(store, tmp_path, 0, 1)
    target = Store(str(tmp_path / "target.db"))
    assert (merge(store, target).corrections, merge(store, target).corrections) == (1, 0)
    assert average(target) == average(store) == 0.74
    assert audit(target).findings == ()
    target.close()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        return int(raw.execute("SELECT version FROM schema").fetchone()[0])


def of_version_3(path: Path) -> Path:
    """Make of a database what version 3 wrote."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DROP TABLE observations")
        raw.execute("DROP TABLE corrections")
        raw.execute("UPDATE schema SET version = 3")
    return path


@pytest.fixture
def third(tmp_path: Path) -> Path:
    store = Store(str(tmp_path / "third.db"))
    cell(store, key("a"))
    store.close()
    return of_version_3(tmp_path / "third.db")


def test_a_database_of_version_3_stays_one_until_its_first_correction(third: Path, tmp_path: Path) -> None:
    store = Store(str(third))
    assert (audit(store).findings, average(store), store.labels_shown("tiny")) == ((), 0.75, [])
    cell(store, key("b"))
    assert version(third) == 3
    correct(store, tmp_path, 0)
    assert version(third) == 5
    assert audit(store).findings == ()
    store.close()


def test_a_database_of_version_3_is_migrated_with_its_seals(third: Path) -> None:
    before = Store(str(third))
    digest = audit(before).digest
    before.close()
    assert needed(third)
    kept = migrate(third)
    assert (version(kept), version(third), kept.name) == (3, 5, "third.db.v3")
    store, old = Store(str(third)), Store(str(kept))
    assert (audit(store).findings, audit(old).digest) == ((), digest)
    store.close()
    old.close()


@pytest.mark.parametrize(
    ("statement", "fact"),
    [
        ("UPDATE corrections SET reason = 'another'", "a column was changed"),
        ("UPDATE corrections SET reason = 'another'", "not the digest of what it says"),
        ("UPDATE corrections SET corrected = 'nothing'", "a test set that it names is missing"),
        ("UPDATE corrections SET made = 'today'", "not the digest of what it says"),
    ],
)
def test_what_was_changed_in_a_correction_is_found(tmp_path: Path, statement: str, fact: str) -> None:
    store = Store(str(tmp_path / "results.db"))
    cell(store, key("a"))
    correct(store, tmp_path, 0)
    store.close()
    with closing(sqlite3.connect(tmp_path / "results.db", isolation_level=None)) as raw:
        raw.execute(statement)
    store = Store(str(tmp_path / "results.db"))
    found = audit(store)
    assert any(each.table == "corrections" and fact in each.fact for each in found.findings)
    store.close()
