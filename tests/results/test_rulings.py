"""What an organiser decides is one more fact: it is sealed, audited, merged, and nothing is deleted for it."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import key

from harness.errors import InputError, StoreError, SubmissionError
from harness.leaderboard.rank import rank
from harness.leaderboard.table import document, records
from harness.leaderboard.terminal import withdrawn_lines
from harness.leaderboard.uploads import uploads
from harness.results.audit import audit
from harness.results.merge import merge
from harness.results.records import CellRecord, KeptAnswer
from harness.results.rulings import LONGEST_REASON, add, in_force, tries
from harness.results.store import Store
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.results.records import RunKey
    from harness.results.rulings import Kind

TEST = load_test(load_task("sst2"), Source("embedded"))


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    made = Store(place)
    yield made
    made.close()


def cell(store: Store, identity: RunKey, right: int = 150) -> str:
    """A run with one finished cell."""
    run = store.open_run(identity, {"packages": {}})
    predicted = np.where(np.arange(len(TEST)) < right, TEST.labels, 1 - TEST.labels)
    record = CellRecord(train_rows=8, sandbox="A")
    kept = [KeptAnswer(1.0, 0, b"answer", predicted)]
    store.begin(run, "sst2", 1).finish("ok", record, examples_sha256(TEST), TEST.labels, kept)
    return run


def rule(store: Store, kind: Kind, entry: str, number: int | None = None, reason: str = "because") -> None:
    with store.changes() as connection:
        add(connection, kind, "tiny", entry, reason, number)


def names(store: Store) -> list[str]:
    return [entry.name for entry in rank(store, "tiny", "f").entries]


def test_a_run_without_a_team_has_the_id_it_always_had() -> None:
    assert key("a").id == key("a", team="").id == "d5339a6dcc81acaf"
    assert key("a", team="alice").id != key("a", team="bob").id != key("a").id


def test_two_teams_with_one_name_are_two_entries(store: Store) -> None:
    for team, right in (("alice", 150), ("bob", 140), ("", 130)):
        cell(store, key("mysolver", team=team), right)
    ranking = rank(store, "tiny", "f")
    assert [entry.name for entry in ranking.entries] == ["alice/mysolver", "bob/mysolver", "mysolver"]
    assert ranking.replaced == ()


def test_what_was_replaced_by_other_content_is_said(store: Store) -> None:
    cell(store, key("mysolver", submission_sha256="1" * 64))
    cell(store, key("mysolver", submission_sha256="1" * 64, environment_sha256="newer"))
    cell(store, key("mysolver", submission_sha256="2" * 64))
    cell(store, key("other"))
    ranking = rank(store, "tiny", "f")
    (replaced,) = ranking.replaced
    assert (replaced.name, replaced.sha256, replaced.older) == ("mysolver", "2" * 64, ("1" * 64,))
    assert document(ranking)["replaced"] == [dataclasses.asdict(replaced)]


def test_every_run_under_a_name_is_a_try(store: Store) -> None:
    cell(store, key("mysolver"))
    cell(store, key("mysolver", repeat=1))  # averaged, not chosen from
    cell(store, key("mysolver", submission_sha256="other"))
    cell(store, key("mysolver[sigma=2]", options=(("sigma", "2"),)))
    cell(store, key("mysolver", modified=("calls",), calls=5))
    store.begin(store.open_run(key("mysolver", seed=3), {}), "sst2", 1)  # interrupted
    cell(store, key("mysolver", team="alice"))
    cell(store, key("mysolver", track="another"))
    found = {record["submission"]: record["runs"] for record in records(rank(store, "tiny", "f"))}
    assert found == {"mysolver": 5, "mysolver[sigma=2]": 5, "alice/mysolver": 1}
    assert tries(run.key for run in store.runs())["another", "", "mysolver"] == 1


def test_a_withdrawn_entry_has_no_part_in_the_ranking_and_is_told_with_the_reason(store: Store) -> None:
    for entry, right in (("good", 140), ("cheat", 200), ("cheat[x=1]", 199)):
        cell(store, key(entry), right)
    rule(store, "withdraw", "cheat", reason="knows  the\ntest set")
    ranking = rank(store, "tiny", "f")
    assert [(entry.name, entry.rank) for entry in ranking.entries] == [("good", 1)]
    assert [(each.name, each.reason) for each in ranking.withdrawn] == [
        ("cheat", "knows the test set"), ("cheat[x=1]", "knows the test set"),
    ]  # fmt: skip
    (line, _) = withdrawn_lines(ranking)
    assert line.plain.startswith("cheat withdrawn on 20")
    assert [str(span.style) for span in line.spans] == ["strike"]
    assert [each["name"] for each in document(ranking)["withdrawn"]] == ["cheat", "cheat[x=1]"]
    rule(store, "restore", "cheat[x=1]")
    assert names(store) == ["cheat[x=1]", "good"]
    rule(store, "restore", "cheat")
    assert names(store) == ["cheat", "cheat[x=1]", "good"]


def test_where_all_are_withdrawn_nobody_is_listed(store: Store) -> None:
    cell(store, key("cheat"))
    rule(store, "withdraw", "cheat")
    ranking = rank(store, "tiny", "f")
    assert (ranking.entries, [each.name for each in ranking.withdrawn]) == ((), ["cheat"])


def test_a_stranger_s_withdrawal_does_not_touch_another_team(store: Store) -> None:
    for team in ("alice", "bob"):
        cell(store, key("mysolver", team=team))
    rule(store, "withdraw", "alice/mysolver")
    rule(store, "withdraw", "mysolver")
    assert names(store) == ["bob/mysolver"]


def test_withdrawn_predictions_are_not_listed(store: Store) -> None:
    for name in ("one", "two"):
        cell(store, key(name, access="predictions"))
    rule(store, "withdraw", "one")
    assert [each.name for each in uploads(store, "tiny", "f", [])] == ["two"]


def test_a_cap_refuses_new_runs_and_lets_those_that_were_begun_be_finished(store: Store) -> None:
    first = cell(store, key("mysolver"))
    rule(store, "cap", "", 2)
    store.open_run(key("mysolver", submission_sha256="2"), {})
    with pytest.raises(SubmissionError, match=r"mysolver\[x=1\] has 2 runs on track tiny, and at most 2 are allowed"):
        store.open_run(key("mysolver[x=1]"), {})
    assert store.open_run(key("mysolver"), {}) == first
    store.open_run(key("mysolver", repeat=1), {})  # no new try
    store.open_run(key("mysolver", team="alice"), {})
    store.open_run(key("mysolver", track="another"), {})
    store.open_run(key("mysolver", seed=4), {}, ruled=False)
    rule(store, "cap", "alice/mysolver", 1)
    with pytest.raises(SubmissionError, match="alice/mysolver has 1 run on"):
        store.open_run(key("mysolver", team="alice", seed=1), {})
    rule(store, "uncap", "")
    store.open_run(key("mysolver[x=1]"), {})
    store.open_run(key("mysolver", team="alice", seed=1), {})  # the newest ruling that fits holds


@pytest.mark.parametrize(("kind", "end"), [("freeze", "thaw"), ("withdraw", "restore")])
def test_no_run_of_what_is_frozen_or_withdrawn_is_begun(store: Store, kind: Kind, end: Kind) -> None:
    begun = store.open_run(key("mysolver"), {})
    rule(store, kind, "mysolver", reason="the deadline has passed")
    with pytest.raises(
        SubmissionError, match=f"the deadline has passed.*harness {kind} mysolver --track tiny.toml --undo"
    ):
        store.open_run(key("mysolver", seed=1), {})
    assert store.open_run(key("mysolver"), {}) == begun
    store.open_run(key("other"), {})
    rule(store, end, "mysolver")
    store.open_run(key("mysolver", seed=1), {})


@pytest.mark.parametrize(
    ("kind", "number", "reason", "fact"),
    [
        ("withdraw", None, "", "--reason has 0 characters"), ("withdraw", None, " \n", "--reason has 0"),
        ("withdraw", None, "x" * (LONGEST_REASON + 1), "1,001 characters; 1 to 1,000"),
        ("cap", None, "why", "a cap has a number"), ("cap", -1, "why", "a cap has a number"),
        ("freeze", 3, "why", "no other ruling has one"), ("delete", None, "why", "no other ruling has one"),
    ],
)  # fmt: skip
def test_a_ruling_that_says_nothing_is_refused(
    store: Store, kind: Kind, number: int | None, reason: str, fact: str
) -> None:
    with pytest.raises(InputError, match=fact):
        rule(store, kind, "mysolver", number, reason)
    assert store.rulings() == []


def test_rulings_come_over_once_and_their_order_is_that_of_their_times(tmp_path: Path, place: str) -> None:
    one, two = Store(str(tmp_path / "one.db")), Store(place)
    cell(one, key("cheat"))
    rule(one, "withdraw", "cheat", reason="first")
    assert merge(one, two).rulings == 1
    assert merge(one, two).rulings == 0
    rule(two, "restore", "cheat", reason="second")
    rule(one, "cap", "", 3, reason="third")
    assert merge(one, two).rulings == 1
    assert [each.reason for each in two.rulings()] == ["first", "second", "third"]
    assert names(two) == ["cheat"]
    assert audit(two).findings == ()
    one.close()
    two.close()


def test_a_changed_ruling_is_found_and_a_lost_one_changes_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store = Store(str(path))
    rule(store, "withdraw", "cheat")
    before = audit(store)
    assert (before.findings, before.rows["rulings"]) == ((), 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE rulings SET reason = 'nothing'")
    facts = [finding.fact for finding in audit(store).findings if finding.table == "rulings"]
    assert len(facts) == 2
    with pytest.raises(StoreError, match="audit has 2 findings, and nothing was merged"):
        merge(store, Store(str(tmp_path / "other.db")))
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DELETE FROM rulings")
    after = audit(store)
    assert after.findings == ()
    assert after.digest != before.digest
    store.close()


def test_of_several_rulings_the_newest_that_fits_holds(store: Store) -> None:
    for kind, entry, number in (("cap", "", 3), ("cap", "a/x", 5), ("cap", "", 4), ("freeze", "b", None)):
        rule(store, kind, entry, number)  # type: ignore[arg-type]
    found = store.rulings()
    cap = in_force(found, "cap", "tiny", "a/x[o=1]")
    assert cap is not None
    assert cap.number == 4
    assert in_force(found, "cap", "another", "a/x") is None
    assert in_force(found, "freeze", "tiny", "a/b") is None
    assert in_force(found, "freeze", "tiny", "b[o=1]") is not None
