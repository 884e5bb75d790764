"""What an answer forgets is one more fact: appended, sealed, merged, and about the answer that it names."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from made_up import key
from test_rulings import cell

from harness.errors import StoreError
from harness.results.audit import audit
from harness.results.digests import row_seal
from harness.results.forgetting import Forgotten, means
from harness.results.merge import merge
from harness.results.observations import decided, forgotten, insert, same_forgotten
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEFORE, AFTER = {"qqp": 0.6, "snli": 0.5}, {"qqp": 0.5, "snli": 0.55}


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    made = Store(place)
    yield made
    made.close()


def answered(store: Store, label: str = "a") -> Forgotten:
    """A run with one cell, and a fact about its answer."""
    import hashlib

    cell(store, key(label))
    (run,) = [run for run in store.runs() if run.key.label == label]
    (done,) = store.cells(run.id)
    blob = store.answer(run.id, done.task, done.split)
    assert blob is not None
    name = hashlib.sha256(blob).hexdigest()
    sizes = (200, 150, "other tasks", 0, "int8", 1.5)
    return Forgotten(run.id, done.task, done.split, name, 1, BEFORE, AFTER, 5.0, 5.25, *sizes)


def keep(store: Store, *facts: Forgotten) -> None:
    with store.changes() as connection:
        for fact in facts:
            insert(connection, fact)


def test_a_fact_is_read_as_it_was_written_and_the_newest_is_shown(store: Store) -> None:
    fact = answered(store)
    assert forgotten(store) == {}
    later = replace(fact, masked_after=6.0, made=2.5)
    keep(store, later, fact)
    with store.snapshot() as connection:
        assert decided(connection) == [fact, later]
    assert forgotten(store) == {fact.run: [later]}
    assert (fact.lost, fact.masked) == (pytest.approx(-0.025), 0.25)
    assert means([fact, later]) == (pytest.approx(-0.025), 0.625)
    assert fact.same(later)
    assert not fact.same(replace(fact, seed=1))
    assert audit(store).findings == ()
    assert audit(store).rows["observations"] == 2


def test_either_of_two_measurements_is_known_again(store: Store) -> None:
    fact = answered(store)
    other = replace(fact, source="f" * 64, made=3.0)
    keep(store, fact, other)
    assert same_forgotten(store, fact) == fact
    assert same_forgotten(store, other) == other
    assert same_forgotten(store, replace(fact, seed=9)) is None


def test_a_fact_about_another_answer_is_passed_over(store: Store) -> None:
    fact = answered(store)
    keep(store, replace(fact, answer="0" * 64))
    assert forgotten(store) == {}


def test_facts_come_over_once(tmp_path: Path, place: str) -> None:
    one, two = Store(str(tmp_path / "one.db")), Store(place)
    fact = answered(one)
    keep(one, fact)
    assert merge(one, two).observations == 1
    assert merge(one, two).observations == 0
    assert forgotten(two) == {fact.run: [fact]}
    assert audit(two).findings == ()
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"after": {"qqp": 0.5}}, "its tasks are"),
        ({"before": BEFORE | {"sst2": 0.5}, "after": AFTER | {"sst2": 0.5}}, "its tasks are"),
        ({"before": {}, "after": {}}, "its tasks are"),
        ({"after": AFTER | {"qqp": 1.5}}, "a score is not from 0 to 1"),
        ({"masked_after": -1.0}, "a masked loss is not finite"),
    ],
)
def test_facts_that_cannot_be_are_found(tmp_path: Path, change: dict[str, object], says: str) -> None:
    store = Store(str(tmp_path / "one.db"))
    fact = answered(store)
    keep(store, replace(fact, **change))
    assert [found.table for found in audit(store).findings] == ["observations"]
    assert says in audit(store).findings[0].fact
    store.close()


def test_a_changed_fact_is_found_even_with_a_new_seal(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    store = Store(str(path))
    keep(store, answered(store))
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.row_factory = sqlite3.Row
        raw.execute("UPDATE observations SET facts = replace(facts, '5.25', '5.0')")
        row = dict(raw.execute("SELECT * FROM observations").fetchone())
        raw.execute("UPDATE observations SET seal = ?", (row_seal("observations", row),))
    store = Store(str(path))
    assert [found.fact for found in audit(store).findings] == ["its id is not the digest of what it says"]
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE observations SET facts = 'nothing'")
    with pytest.raises(StoreError, match="an observation cannot be read"):
        forgotten(store)
    assert any("cannot be read" in found.fact for found in audit(store).findings)
    store.close()


def test_a_database_of_version_4_stays_one_until_its_first_fact(tmp_path: Path) -> None:
    path = tmp_path / "fourth.db"
    store = Store(str(path))
    fact = answered(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DROP TABLE observations")
        raw.execute("UPDATE schema SET version = 4")
    store.close()
    store = Store(str(path))
    assert audit(store).findings == ()
    assert forgotten(store) == {}
    keep(store, fact)
    assert forgotten(store) == {fact.run: [fact]}
    assert audit(store).findings == ()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT version FROM schema").fetchone() == (5,)
    store.close()
