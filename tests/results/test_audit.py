"""The audit: what was written passes, and whatever is changed afterwards is found and named."""

# ruff: noqa: S311, S608, T201 - chance picks moments and bytes, names of tables are ours, the slow tests tell their counts
from __future__ import annotations

import dataclasses
import random
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.errors import InputError, StoreError
from harness.leaderboard.published import differences
from harness.leaderboard.rank import rank
from harness.leaderboard.table import document, write_records
from harness.results.at_hand import DataHere, data_here, labels_at_hand
from harness.results.audit import Audit, audit, summary
from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.rulings import add
from harness.results.store import Store
from harness.solving.metrics import score
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

SST2 = load_task("sst2")
TEST = load_test(SST2, Source("embedded"))
AT_HAND = labels_at_hand([SST2], Source("embedded"))
FIRST_TABLES = ("runs", "attempts", "queries", "outcomes", "test_sets", "answers", "incumbents")
TABLES = (*FIRST_TABLES, "rulings")


def fill(path: Path, runs: int = 2, splits: int = 2, queries: int = 4) -> None:
    """Runs as an evaluation leaves them, with an interrupted attempt each; journal folded in, one file."""
    store = Store(str(path))
    rng = np.random.default_rng(0)
    for number in range(runs):
        run = store.open_run(key(f"entry{number}", seed=number), {"packages": {"torch": "2"}, "threads": 1})
        for split in range(1, splits + 1):
            store.begin(run, "sst2", split).record(LedgerRow(8, 90, 10, 20, 0.1, 0, "interrupted"))
            attempt = store.begin(run, "sst2", split)
            rows = [LedgerRow(8, 100 + n, 10, 20, 0.1 * n, 1, f"{number}{split}{n}") for n in range(queries)]
            for row in rows:
                attempt.record(row)
            facts = {
                "rows_spent": 8 * queries, "rows_total": 16 * queries, "train_rows": 8,
                "calls_total": 2 * queries, "queries": queries,
                "tokens": sum(row.tokens for row in rows), "bytes_up": 10 * queries, "bytes_down": 20 * queries,
                "lm_s": sum((row.seconds for row in rows), start=0.0), "level": 1, "access": "black-box",
                "sandbox": "made up", "tuning_s": 1.0, "detail": "",
            }  # fmt: skip
            kept = []
            for mark in (0.5, 1.0):
                predicted = rng.integers(2, size=len(TEST))
                kept.append(KeptAnswer(mark, int(8 * queries * mark), f"{number}{split}{mark}".encode(), predicted))
            assert attempt.finish("ok", CellRecord(**facts), examples_sha256(TEST), TEST.labels, kept)
    with store.changes() as connection:
        add(connection, "cap", "tiny", "entry0", "two tries each", 2)
    store.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "results.db"
    fill(path)
    return path


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    return shutil.copy(filled, tmp_path / "results.db")


def look(path: Path) -> Audit:
    store = Store(str(path))
    try:
        return audit(store, AT_HAND)
    finally:
        store.close()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)


def test_what_was_written_passes_and_every_score_is_computed_anew(path: Path) -> None:
    found = look(path)
    assert found.findings == ()
    assert found.rows == {
        "left out": 0,
        "answers": 8, "attempts": 8, "incumbents": 8, "outcomes": 4, "queries": 20, "rulings": 1, "runs": 2,
        "schema": 1, "test_sets": 1, "corrections": 0, "observations": 0,
    }  # fmt: skip
    assert (found.late, found.unfinished, found.test_sets_at_hand) == (0, 4, 1)
    store = Store(str(path))
    cells = [cell for run in store.runs() for cell in store.cells(run.id)]
    store.close()
    expected = {
        (cell.run, cell.split): {
            mark: float(score("accuracy", p, TEST.labels, 2)) for mark, p in cell.predictions.items()
        }
        for cell in cells
    }
    assert {(cell.run, cell.split): cell.scores for cell in found.cells} == expected


def other(value: Any, chance: random.Random) -> Any:
    """A value of the same type that differs a little, as a flipped bit makes it."""
    if isinstance(value, bytes | str):
        data = bytearray(value if isinstance(value, bytes) else value.encode())
        data[chance.randrange(len(data))] ^= 1  # stays ASCII, stays UTF-8
        return bytes(data) if isinstance(value, bytes) else data.decode()
    return value + 1


FIELDS = [
    (table, column)
    for table, columns in {
        "runs": ("run", "identity", "environment", "started", "seal"),
        "attempts": ("attempt", "run", "task", "split", "started", "seal"),
        "queries": (
            "attempt", "number", "rows", "tokens", "bytes_up", "bytes_down", "seconds", "level", "sha256", "chain",
        ),
        "outcomes": ("run", "task", "split", "attempt", "status", "facts", "test", "finished", "seal"),
        "test_sets": ("test", "labels", "seal"),
        "answers": ("sha256", "blob"),
        "incumbents": ("attempt", "mark", "rows", "answer", "predictions", "seal"),
        "rulings": ("ruling", "kind", "track", "entry", "number", "reason", "made", "seal"),
    }.items()
    for column in columns
]  # fmt: skip


def test_every_column_there_is_gets_changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        there = {(table, row[1]) for table in TABLES for row in raw.execute(f"PRAGMA table_info({table})")}
    assert there == set(FIELDS)


@pytest.mark.parametrize(("table", "column"), FIELDS)
def test_one_changed_value_is_found_and_its_table_and_row_are_named(path: Path, table: str, column: str) -> None:
    """In rows of interrupted attempts and of finished ones, the first and the last."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        rows = [row for (row,) in raw.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    for seed, row in enumerate(sorted({rows[0], rows[1 % len(rows)], rows[-1]})):
        work = path.with_name(f"{seed}.db")
        shutil.copy(path, work)
        with closing(sqlite3.connect(work, isolation_level=None)) as raw:
            (value,) = raw.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()
            changed = other(value, random.Random(seed))
            if (table, column) == ("attempts", "attempt"):
                changed = value + 1000
            try:
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
            except sqlite3.IntegrityError:  # the database itself refuses what breaks a key; a number further off then
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value + 1000, row))
        found = look(work)
        assert table in {finding.table for finding in found.findings}, found.findings
        named = " ".join(f"{finding.row} {finding.fact}" for finding in found.findings)
        assert any(
            part in named for part in ("(entry", "no such run", "SQLite row", "run ", "test set ", "answer ", "ruling ")
        )


def test_a_changed_query_is_named_by_run_cell_attempt_and_number(path: Path) -> None:
    change(path, "UPDATE queries SET rows = rows - 1 WHERE attempt = 2 AND number = 3")
    (query, *rest) = look(path).findings
    assert query.table == "queries"
    assert query.row.endswith("(entry0), sst2/1, attempt 2, query 3")
    assert [f"{f.table}: {f.fact}" for f in rest] == ["outcomes: rows_spent is 32, but its queries add up to 31"]


@pytest.mark.parametrize(
    ("statement", "table", "fact"),
    [
        ("DELETE FROM queries WHERE attempt = 2 AND number = 3", "outcomes", "does not match the cell"),
        ("DELETE FROM queries WHERE attempt = 2 AND number = 1", "queries", "one is missing"),
        ("DELETE FROM incumbents WHERE attempt = 2 AND mark = 1", "outcomes", "without a final answer"),
        ("DELETE FROM incumbents WHERE attempt = 2 AND mark = 0.5", "outcomes", "does not match the cell"),
        ("DELETE FROM answers WHERE sha256 = (SELECT answer FROM incumbents)", "incumbents", "is missing"),
        ("DELETE FROM runs WHERE rowid = 1", "attempts", "no such run"),
        ("DELETE FROM attempts WHERE attempt = 2", "outcomes", "belong to no attempt"),
        ("DELETE FROM test_sets", "outcomes", "is missing"),
        ("DROP INDEX ix_attempts_run", "attempts", "expected"),
        ("ALTER TABLE outcomes ADD COLUMN score FLOAT", "outcomes", "expected"),
        ("UPDATE queries SET rows = x'00' WHERE attempt = 2 AND number = 0", "queries", "breaks the chain"),
        ("UPDATE outcomes SET facts = '[]' WHERE attempt = 2", "outcomes", "cannot be read"),
        ("UPDATE outcomes SET facts = x'ff' WHERE attempt = 2", "outcomes", "cannot be read"),
        ("UPDATE outcomes SET seal = 1 WHERE attempt = 2", "outcomes", "does not match the cell"),
        ("UPDATE outcomes SET seal = x'6c6174653a' WHERE attempt = 2", "outcomes", "cannot be read"),
        ("UPDATE outcomes SET seal = 'late:' || seal WHERE attempt = 2", "outcomes", "does not match the cell"),
        ("UPDATE incumbents SET predictions = x'0100' WHERE rowid = 1", "incumbents", "1 predictions for 200 texts"),
        ("UPDATE incumbents SET predictions = 7 WHERE rowid = 1", "outcomes", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_taken_away_or_of_another_type_is_found(path: Path, statement: str, table: str, fact: str) -> None:
    change(path, "PRAGMA foreign_keys=OFF", statement)
    found = [finding.fact for finding in look(path).findings if finding.table == table]
    assert any(fact in line for line in found), look(path).findings


def test_labels_that_are_not_those_of_the_texts_are_found_even_if_sealed_anew(path: Path) -> None:
    work = path.with_name("forged.db")
    store = Store(str(work))
    attempt = store.begin(store.open_run(key(), {}), "sst2", 1)
    forged = 1 - TEST.labels
    attempt.finish("ok", CellRecord(), examples_sha256(TEST), forged, [KeptAnswer(1.0, 0, b"", forged)])
    store.close()
    (finding,) = look(work).findings
    assert (finding.table, finding.fact) == (
        "test_sets",
        "its labels are not those of the test set with this digest",
    )


def test_predictions_swapped_between_two_cells_with_their_seals_are_found(path: Path) -> None:
    swap = "SELECT predictions, seal FROM incumbents WHERE attempt = {} AND mark = 1.0"
    change(
        path,
        f"CREATE TEMP TABLE a AS {swap.format(2)}",
        f"CREATE TEMP TABLE b AS {swap.format(4)}",
        "UPDATE incumbents SET (predictions, seal) = (SELECT * FROM b) WHERE attempt = 2 AND mark = 1.0",
        "UPDATE incumbents SET (predictions, seal) = (SELECT * FROM a) WHERE attempt = 4 AND mark = 1.0",
    )
    assert {finding.table for finding in look(path).findings} == {"incumbents", "outcomes"}


def test_the_digest_is_that_of_the_facts(path: Path, tmp_path: Path) -> None:
    before = look(path).digest
    change(path, "VACUUM")
    assert look(path).digest == before
    store = Store(str(path))
    store.open_run(key("another"), {})
    store.close()
    assert look(path).digest != before


def test_a_whole_cell_that_vanished_is_seen_by_the_published_digest_alone(path: Path) -> None:
    before = look(path).digest
    change(
        path,
        *(f"DELETE FROM {table} WHERE attempt = 8" for table in ("queries", "incumbents", "outcomes", "attempts")),
    )
    after = look(path)
    assert after.findings == ()
    assert after.digest != before


def dump(path: Path) -> dict[str, list[Any]]:
    """All facts, read as they lie."""
    with closing(sqlite3.connect(path)) as raw:
        raw.text_factory = bytes
        return {table: sorted(map(repr, raw.execute(f"SELECT * FROM {table}"))) for table in (*TABLES, "schema")}


def flip_bytes(filled: Path, folder: Path, flips: int, seed: int) -> tuple[int, int, int]:
    """Change one byte of the file, `flips` times; return how many were refused, found, and of no matter."""
    chance, work = random.Random(seed), folder / "flipped.db"
    whole, facts = filled.read_bytes(), dump(filled)
    refused = found = nothing = 0
    for _ in range(flips):
        for suffix in ("", "-wal", "-shm", "-journal"):
            work.with_name(f"{work.name}{suffix}").unlink(missing_ok=True)
        place, data = chance.randrange(len(whole)), bytearray(whole)
        data[place] ^= 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(1, 256)
        work.write_bytes(data)
        try:
            findings = look(work).findings
        except StoreError:
            refused += 1
            continue
        if findings:
            found += 1
            continue
        assert dump(work) == facts, f"byte {place}: {whole[place]} became {data[place]}, and nothing was said"
        nothing += 1
    return refused, found, nothing


def test_a_changed_byte_of_the_file_is_found_or_changes_no_fact(filled: Path, tmp_path: Path) -> None:
    refused, found, nothing = flip_bytes(filled, tmp_path, flips=200, seed=1)
    assert refused + found + nothing == 200
    assert found > 15  # most of so small a file is empty


@pytest.mark.slow
def test_many_changed_bytes_are_found_or_change_no_fact(filled: Path, tmp_path: Path) -> None:
    print(flip_bytes(filled, tmp_path, flips=4000, seed=2))


def test_a_published_leaderboard_is_compared_record_by_record(path: Path, tmp_path: Path) -> None:
    store = Store(str(path))
    track = load_track("mini")
    ranking = rank(store, "tiny", "f", track.planned, track.ranks)
    published = tmp_path / "published.csv"
    write_records(document(ranking)["entries"], published)
    assert differences(published, ranking) == []
    text = published.read_text(encoding="utf-8")
    entry = ranking.entries[0]
    published.write_text(text.replace(f"{entry.task('sst2')[0]:.4f}", "0.9999"), encoding="utf-8")
    (line, *_) = differences(published, ranking)
    assert line.startswith(f"{entry.name} (run {entry.run}), sst2: '0.9999' in the file, ")
    published.write_text("\n".join(text.splitlines()[:-1]) + "\n", encoding="utf-8")
    assert any("not in the file" in line for line in differences(published, ranking))
    published.write_text(text.replace(entry.run, "elsewhere"), encoding="utf-8")
    assert any("only in the file" in line for line in differences(published, ranking))
    with pytest.raises(InputError, match="cannot be read"):
        differences(tmp_path / "none.csv", ranking)
    store.close()


def test_the_audit_reads_one_moment_while_others_write(path: Path) -> None:
    store, writer = Store(str(path)), Store(str(path))
    with store.snapshot() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM runs").scalar()
        writer.open_run(key("meanwhile"), {})
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == before
    assert audit(store).rows["runs"] == before + 1
    store.close()
    writer.close()


def test_findings_are_plain_data(path: Path) -> None:
    change(path, "UPDATE runs SET started = 0")
    assert all(isinstance(value, str) for f in look(path).findings for value in dataclasses.asdict(f).values())


# ── what is no row ───────────────────────────────────────────────────────────────────────────────────────────────────

PLANTED = {
    "trigger": ("outcomes", "CREATE TRIGGER later AFTER INSERT ON outcomes BEGIN DELETE FROM queries; END"),
    "view": ("best", "CREATE VIEW best AS SELECT * FROM outcomes"),
    "index": ("runs", "CREATE INDEX seen ON runs (started)"),
    "table": ("notes", "CREATE TABLE notes (note TEXT)"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_whatever_else_is_in_the_database_is_named_and_in_the_digest(kind: str, tmp_path: Path) -> None:
    """A trigger lets an honest program write something else; rows and seals do not show it."""
    path = tmp_path / "results.db"
    fill(path)
    before = look(path)
    table, statement = PLANTED[kind]
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(statement)
        raw.commit()
    after = look(path)
    assert before.findings == ()
    (planted,) = [found for found in after.findings if found.row.startswith(kind)]
    assert (planted.table, "belongs to no results database" in planted.fact) == (table, True)
    assert after.digest != before.digest
    with closing(sqlite3.connect(path)) as raw:
        name = statement.split()[2]
        raw.execute(f"DROP {kind} {name}")
        raw.commit()
    assert look(path) == before


def test_a_table_that_was_made_with_a_rule_of_its_own_is_named(tmp_path: Path) -> None:
    """Its columns are as they must be."""
    path = tmp_path / "results.db"
    fill(path)
    before = look(path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, 'status TEXT', 'status TEXT DEFAULT ''ok''') "
                    "WHERE name = 'outcomes'")  # fmt: skip
        raw.commit()
    after = look(path)
    assert [found.row for found in after.findings] == ["table outcomes"]
    assert after.digest != before.digest


def test_the_planner_s_statistics_are_nobody_s_fault(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    fill(path)
    before = look(path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("ANALYZE")
        raw.commit()
    assert (look(path).findings, look(path).digest) == ((), before.digest)


def test_cells_that_were_scored_on_other_data_of_the_same_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    fill(path)
    store = Store(str(path))
    name, digest = store.runs()[0].key.data, examples_sha256(TEST)
    same, other = DataHere(name, {"sst2": digest}, {}), DataHere(name, {"sst2": "another"}, {})
    assert audit(store, AT_HAND, same).other_data == ()
    assert audit(store, AT_HAND, dataclasses.replace(other, name="kit:elsewhere")).other_data == ()
    found = audit(store, AT_HAND, other)
    line = f"sst2 was scored on another test set than {name} has now, 4 cells"
    assert found.other_data == (line,)
    assert found.findings == ()
    assert line in summary(found)
    store.close()


def test_splits_are_compared_as_well() -> None:
    here = data_here(load_track("mini"), Source("embedded"))
    assert here.name == "embedded"
    assert len(here.shots) == 15
    assert here.differs("sst2", 1, here.tests["sst2"], here.shots["sst2", 1]) == []
    (line,) = here.differs("sst2", 1, here.tests["sst2"], here.shots["sst2", 2])
    assert line == "sst2/1 was tuned on other examples than embedded has now"
    assert here.differs("no task", 1, "t", ()) == []


def test_a_view_and_a_trigger_are_seen_in_both_kinds_of_database(place: str) -> None:
    store = Store(place)
    before = audit(store)
    statements = ["CREATE VIEW best AS SELECT * FROM outcomes"]
    if place.startswith("postgresql"):
        statements += [
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER later BEFORE INSERT ON queries FOR EACH ROW EXECUTE FUNCTION nothing()",
        ]
    else:
        statements.append("CREATE TRIGGER later AFTER INSERT ON queries BEGIN DELETE FROM outcomes; END")
    with store.changes() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    after = audit(store)
    assert before.findings == ()
    assert {(found.table, found.row) for found in after.findings} >= {
        ("best", "view best"),
        ("queries", "trigger later"),
    }
    assert after.digest != before.digest
    store.close()
