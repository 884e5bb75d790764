"""Databases of version 1 are brought up to date by one command, whole or not at all, and nothing of them is lost."""

# ruff: noqa: S608 - names of tables are ours
from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from made_up import key
from test_audit import FIRST_TABLES, fill, look

from harness.errors import StoreError
from harness.results.digests import LATE
from harness.results.migrate import migrate, needed
from harness.results.records import CellRecord
from harness.results.rulings import add
from harness.results.store import Store


def age(path: Path) -> None:
    """Make of a database what version 1 wrote: the same tables without seals."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for table in ("runs", "attempts", "outcomes", "test_sets", "incumbents"):
            raw.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        raw.execute("DROP TABLE observations")
        raw.execute("DROP TABLE corrections")
        raw.execute("DROP TABLE rulings")
        raw.execute("UPDATE schema SET version = 1")


def without_rulings(path: Path) -> None:
    """Make of a database what version 2 wrote."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DROP TABLE observations")
        raw.execute("DROP TABLE corrections")
        raw.execute("DROP TABLE rulings")
        raw.execute("UPDATE schema SET version = 2")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "results.db"
    fill(path)
    age(path)
    return path


def columns(path: Path, *names: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything but seals."""
    with closing(sqlite3.connect(path)) as raw:
        found = {}
        for table in FIRST_TABLES:
            there = [row[1] for row in raw.execute(f"PRAGMA table_info({table})") if row[1] != "seal"]
            found[table] = sorted(raw.execute(f"SELECT {', '.join(there)} FROM {table}"), key=repr)
    return found


def test_a_store_of_version_1_is_refused_with_the_command_that_helps(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(StoreError, match=f"schema version 1, this program reads 5.*harness migrate --store {old}"):
        Store(str(old))
    assert old.read_bytes() == before


def test_every_fact_is_taken_over_and_the_older_file_stays(old: Path) -> None:
    before = columns(old)
    kept = migrate(old)
    assert columns(old) == columns(kept) == before
    found = look(old)
    assert found.findings == ()
    assert found.late == 4
    with closing(sqlite3.connect(old)) as raw:
        assert all(seal.startswith(LATE) for (seal,) in raw.execute("SELECT seal FROM outcomes"))


def test_a_migrated_store_takes_new_cells_whose_seals_are_not_late(old: Path) -> None:
    migrate(old)
    store = Store(str(old))
    run = store.runs()[0].id
    assert store.open_run(key("entry0"), {}) == run
    attempt = store.begin(run, "sst2", 9)
    attempt.finish("crashed", CellRecord(), store_test(old), store.cells(run)[0].labels, [])
    store.close()
    found = look(old)
    assert (found.findings, found.late, found.rows["outcomes"]) == ((), 4, 5)


def store_test(path: Path) -> str:
    with closing(sqlite3.connect(path)) as raw:
        (name,) = raw.execute("SELECT test FROM test_sets").fetchone()
    return str(name)


def test_a_changed_byte_is_found_after_migration(old: Path) -> None:
    migrate(old)
    with closing(sqlite3.connect(old, isolation_level=None)) as raw:
        raw.execute("UPDATE outcomes SET finished = finished + 1 WHERE attempt = 2")
    (finding,) = look(old).findings
    assert finding.table == "outcomes"


def test_damage_from_before_migration_is_found_after_it(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as raw:
        raw.execute("UPDATE queries SET tokens = 1 WHERE attempt = 2 AND number = 1")
    migrate(old)
    assert {finding.table for finding in look(old).findings} == {"queries", "outcomes"}


def test_what_is_not_of_version_1_is_refused_and_stays(tmp_path: Path) -> None:
    present, text, foreign = tmp_path / "now.db", tmp_path / "notes.txt", tmp_path / "other.db"
    fill(present)
    text.write_text("no database at all " * 50)
    with closing(sqlite3.connect(foreign)) as raw:
        raw.execute("CREATE TABLE songs (title text)")
    for path in (present, text, foreign):
        before = path.read_bytes()
        with pytest.raises(StoreError):
            migrate(path)
        assert path.read_bytes() == before
    with pytest.raises(StoreError, match="no such SQLite file"):
        migrate(tmp_path / "none.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "now.db", "other.db"]


def test_a_store_of_a_newer_version_is_refused_and_stays(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as raw:
        raw.execute("UPDATE schema SET version = 6")
    before = old.read_bytes()
    for ask in (needed, migrate):
        with pytest.raises(StoreError, match=r"version 6, written by a newer harness; this one migrates 1 to 5\. Keep"):
            ask(old)
    assert old.read_bytes() == before


def test_a_store_of_the_present_version_needs_no_migration(old: Path) -> None:
    assert needed(old)
    migrate(old)
    assert not needed(old)
    with pytest.raises(StoreError, match="of version 5 already; nothing to do"):
        migrate(old)


def test_a_store_in_use_is_not_migrated(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("BEGIN")
        raw.execute("SELECT * FROM runs").fetchone()
        with pytest.raises(StoreError, match="in use"):
            migrate(old)
    migrate(old)
    assert look(old).findings == ()


def test_an_older_file_that_is_kept_already_is_never_replaced(old: Path) -> None:
    kept = old.with_name("results.db.v1")
    kept.write_bytes(b"precious")
    with pytest.raises(StoreError, match="move it away"):
        migrate(old)
    assert kept.read_bytes() == b"precious"


def test_a_migration_killed_anywhere_leaves_an_old_store_or_a_new_one(tmp_path: Path) -> None:
    pristine = tmp_path / "pristine.db"
    fill(pristine, runs=10, splits=4, queries=100)
    age(pristine)
    with closing(sqlite3.connect(pristine)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
    before, seen = columns(pristine), set()
    program = (
        "import sys; from pathlib import Path; from harness.results.migrate import migrate; "
        "print(1, flush=True); migrate(Path(sys.argv[1]))"
    )
    for number in range(5):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        path = Path(shutil.copy(pristine, folder / "results.db"))
        with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.06 * number)
            os.kill(process.pid, signal.SIGKILL)
        try:
            Store(str(path)).close()
            seen.add("new")
        except StoreError:
            seen.add("old")
            kept = migrate(path)
            assert columns(kept) == before
        assert columns(path) == before
        assert look(path).findings == ()
    assert "old" in seen


def test_the_real_facts_are_the_same_before_and_after(old: Path) -> None:
    before = columns(old)
    kept = migrate(old)
    assert columns(kept) == before
    assert columns(old) == before


# ── version 2, which had no rulings ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def second(tmp_path: Path) -> Path:
    path = tmp_path / "results.db"
    fill(path)
    without_rulings(path)
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        return int(raw.execute("SELECT version FROM schema").fetchone()[0])


def test_a_store_of_version_2_is_read_and_written_as_it_is(second: Path) -> None:
    digest = look(second).digest
    assert look(second).findings == ()
    store = Store(str(second))
    assert store.rulings() == []
    store.open_run(key("entry9"), {})
    store.close()
    assert version(second) == 2
    assert look(second).digest != digest


def test_the_first_ruling_makes_a_store_of_version_2_one_of_the_present_version(second: Path) -> None:
    before = columns(second)
    store = Store(str(second))
    with store.changes() as connection:
        add(connection, "withdraw", "tiny", "entry0", "why")
    assert [each.reason for each in store.rulings()] == ["why"]
    store.close()
    assert version(second) == 5
    assert columns(second) == before
    assert look(second).findings == ()


def test_a_store_of_version_2_is_migrated_with_its_seals(second: Path) -> None:
    before, digest = columns(second), look(second).digest
    assert needed(second)
    kept = migrate(second)
    assert kept.name == "results.db.v2"
    assert (version(kept), version(second)) == (2, 5)
    assert columns(kept) == columns(second) == before
    found = look(second)
    assert (found.findings, found.late) == ((), 0)
    assert look(kept).digest == digest
    assert not needed(second)


@pytest.mark.parametrize("statement", ["DROP TABLE rulings", "UPDATE schema SET version = 2"])
def test_a_version_and_tables_that_do_not_go_together_are_found(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "results.db"
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(statement)
    assert {finding.table for finding in look(path).findings} & {"rulings", "schema"}
