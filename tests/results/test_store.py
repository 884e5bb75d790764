"""The results database keeps facts once written, and every error says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import key

from harness.errors import StoreError
from harness.results.digests import chained
from harness.results.records import CellRecord, KeptAnswer, LedgerRow, Run, RunKey
from harness.results.store import Attempt, Store

HERE = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
LABELS = np.array([0, 1, 1, 0])
ROW = LedgerRow(rows=8, tokens=100, bytes_up=10, bytes_down=20, seconds=0.125, level=1, sha256="ab")


def finish(attempt: Attempt, status: str = "ok", test: str = "t", blob: bytes = b"answer") -> bool:
    kept = [KeptAnswer(0.5, 8, blob, LABELS), KeptAnswer(1.0, 16, blob, LABELS[::-1])]
    return attempt.finish(status, CellRecord(rows_spent=8), test, LABELS, kept)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "results.db"


@pytest.fixture
def store(place: str) -> Any:
    made = Store(place)
    yield made
    made.close()


@pytest.fixture
def in_file(path: Path) -> Any:
    made = Store(str(path))
    yield made
    made.close()


def ask(place: str, query: str) -> list[Any]:
    """Read what another process would see."""
    other = Store(place)
    with other.snapshot() as connection:
        rows = connection.exec_driver_sql(query).all()
    other.close()
    return [tuple(row) for row in rows]


def change(place: str, statement: str) -> None:
    other = Store(place)
    with other.changes() as connection:
        connection.exec_driver_sql(statement)
    other.close()


def test_what_is_written_is_read_back(store: Store) -> None:
    run = store.open_run(key(), {"packages": {}})
    attempt = store.begin(run, "sst2", 1)
    attempt.record(ROW)
    assert finish(attempt)
    (cell,) = store.cells(run)
    assert (cell.task, cell.split, cell.status, cell.attempt) == ("sst2", 1, "ok", attempt.number)
    assert cell.record == CellRecord(rows_spent=8)
    assert cell.labels.tolist() == LABELS.tolist()
    assert {mark: p.tolist() for mark, p in cell.predictions.items()} == {0.5: [0, 1, 1, 0], 1.0: [0, 1, 1, 0]}
    assert store.answer(run, "sst2", 1) == b"answer"
    assert store.answer(run, "sst2", 2) is None
    assert store.finished(run) == {("sst2", 1)}
    assert [found.id for found in store.runs()] == [run]


def test_facts_survive_closing(place: str) -> None:
    first = Store(place)
    run = first.open_run(key(), {})
    finish(first.begin(run, "sst2", 1))
    first.close()
    second = Store(place)
    assert second.finished(run) == {("sst2", 1)}
    second.close()


def test_the_same_run_is_opened_once_and_any_difference_is_another(store: Store) -> None:
    assert store.open_run(key(), {}) == store.open_run(key(), {})
    changes: list[dict[str, Any]] = [
        {"seed": 1}, {"entry": "b"}, {"options": (("a", "1"),)}, {"submission_sha256": "x"}, {"modified": ("calls",)},
        {"data_sha256": "x"}, {"model_sha256": "x"}, {"rules": 2}, {"device": "cuda"}, {"environment_sha256": "x"},
    ]  # fmt: skip
    runs = {store.open_run(key(**change), {}) for change in changes}
    assert len(runs) == len(changes)
    assert len(store.runs()) == len(changes) + 1


def test_a_cell_has_one_outcome_and_the_first_one_stays(store: Store) -> None:
    run = store.open_run(key(), {})
    one, two = store.begin(run, "sst2", 1), store.begin(run, "sst2", 1)
    assert finish(two, "ok")
    assert not finish(one, "crashed", test="other", blob=b"other")
    (cell,) = store.cells(run)
    assert (cell.status, cell.attempt) == ("ok", two.number)
    assert store.answer(run, "sst2", 1) == b"answer"


def test_cells_finished_at_once_with_one_test_set_are_all_kept(place: str) -> None:
    count = 8
    stores = [Store(place) for _ in range(count)]
    run = stores[0].open_run(key(), {})
    attempts = [store.begin(run, "sst2", n) for n, store in enumerate(stores)]
    gate = threading.Barrier(count)
    results: list[bool] = []

    def end(attempt: Attempt) -> None:
        gate.wait()
        results.append(finish(attempt))

    threads = [threading.Thread(target=end, args=(attempt,)) for attempt in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * count
    assert len(stores[0].finished(run)) == count
    for store in stores:
        store.close()


def test_each_ledger_row_is_committed_by_itself_and_chained(store: Store, place: str) -> None:
    run = store.open_run(key(), {})
    attempt = store.begin(run, "sst2", 1)
    link = hashlib.sha256(f"{run}/sst2/1/{attempt.number}".encode()).hexdigest()
    for n in range(5):
        attempt.record(LedgerRow(n, n, n, n, 0.1 * n, 0, f"{n}"))
        assert ask(place, "select count(*) from queries") == [(n + 1,)]
    links = ask(place, "select chain from queries order by number")
    for row, (stored,) in zip(store.ledger(attempt.number), links, strict=True):
        link = chained(link, vars(row))
        assert stored == link


def test_a_changed_ledger_row_breaks_the_chain(store: Store, place: str) -> None:
    run = store.open_run(key(), {})
    attempt = store.begin(run, "sst2", 1)
    for _ in range(3):
        attempt.record(ROW)
    change(place, "update queries set rows = 1 where number = 1")
    (first,), (second,), _ = ask(place, "select chain from queries order by number")
    assert chained(first, vars(store.ledger(attempt.number)[1])) != second


def test_an_outcome_is_written_whole_or_not_at_all(store: Store) -> None:
    run = store.open_run(key(), {})
    attempt = store.begin(run, "sst2", 1)
    broken = [KeptAnswer(0.5, 8, b"x", LABELS), KeptAnswer(0.5, 8, b"y", LABELS)]  # the same mark twice
    with pytest.raises(StoreError):
        attempt.finish("ok", CellRecord(), "t", LABELS, broken)
    assert store.finished(run) == set()
    assert store.answer(run, "sst2", 1, 0.5) is None
    assert finish(attempt)


def test_the_database_is_durable_and_keeps_its_references(in_file: Store) -> None:
    with in_file._reading() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 120000}


def test_a_reader_does_not_wait_for_a_writer(store: Store, place: str) -> None:
    run = store.open_run(key(), {})
    with store._writing():
        other = Store(place)
        assert other.runs()[0].id == run
        other.close()


def test_opening_at_once_makes_one_whole_database(place: str) -> None:
    program = f"from harness.results.store import Store; Store({place!r}).close()"
    racers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [racer.wait(60) for racer in racers] == [0] * 4
    assert ask(place, "select version from schema") == [(5,)]


def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, long enough to be a header of one hundred bytes " * 5)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        Store(str(path))
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("create table songs (title text)")
    other.close()
    with pytest.raises(StoreError, match="not a results database"):
        Store(str(path))
    with sqlite3.connect(path) as other:
        assert other.execute("select name from sqlite_master").fetchall() == [("songs",)]
    other.close()


def test_a_database_of_another_version_is_an_error_with_both_numbers(store: Store, place: str) -> None:
    change(place, "update schema set version = 7")
    with pytest.raises(StoreError, match="version 7, this program reads 5"):
        Store(place)


@pytest.mark.parametrize(
    "url", ["nosuch://host/db", "sqlite+nosuch:///x", "://", "/dev/null/results.db", ".", "mysql://host/db"]
)
def test_a_database_that_cannot_be_opened_is_an_error(url: str) -> None:
    with pytest.raises(StoreError, match="--store"):
        Store(url)


def test_a_name_with_odd_characters_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=ro#%41.db"
    Store(str(path)).close()
    assert path.is_file()


def test_a_damaged_database_is_an_error_not_a_crash(in_file: Store, path: Path) -> None:
    run = in_file.open_run(key(), {})
    finish(in_file.begin(run, "sst2", 1))
    in_file.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError):
        Store(str(path)).cells(run)


def limited(path: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Fill a store in a process whose files may not grow beyond `size` bytes."""
    program = f"""
import signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.path[:0] = {HERE!r}
from test_store import *
store = Store({str(path)!r})
attempt = store.begin(store.open_run(key(), {{}}), "sst2", 1)
written = 0
try:
    while True:
        attempt.record(ROW)
        written += 1
except StoreError as problem:
    print(written)
    print(problem)
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def check_full(path: Path, output: str) -> None:
    written, message = output.split("\n", 1)
    assert "nothing half-written" in message
    again = Store(str(path))
    (run,) = [found.id for found in again.runs()]
    ((attempt, _, _),) = again.attempts(run)
    assert len(again.ledger(attempt)) == int(written) > 0
    link = hashlib.sha256(f"{run}/sst2/1/{attempt}".encode()).hexdigest()
    rows = again.ledger(attempt)
    again.close()
    with sqlite3.connect(path) as other:
        for row, (stored,) in zip(rows, other.execute("SELECT chain FROM queries ORDER BY number"), strict=True):
            link = chained(link, vars(row))
            assert stored == link
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()


def test_a_file_that_cannot_grow_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    check_full(path, limited(path, 160_000).stdout)


def test_a_full_disk_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "disk", tmp_path / "copy"
    inside.mkdir()
    outside.mkdir()
    program = f"""
import sys
sys.path[:0] = {HERE!r}
from test_store import *
limit = resource.RLIM_INFINITY
print(limited(Path({str(inside)!r}) / "results.db", limit).stdout, end="")
for file in Path({str(inside)!r}).iterdir():
    shutil.copy(file, {str(outside)!r})
"""
    mount = f"mount -t tmpfs -o size=280k tmpfs {inside} && exec {sys.executable} - "
    try:
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", mount],  # noqa: S607
            input=program, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no `unshare` here")
    if "permission" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip("mounting a small disk is not permitted here")
    assert done.returncode == 0, done.stderr
    check_full(outside / "results.db", done.stdout)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        command = (
            f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && "
            f"exec {sys.executable} -c \"from harness.results.store import Store; Store('{tmp_path}/results.db')\""
        )
        if shutil.which("unshare") is None:
            pytest.skip("no `unshare` here")
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", command],  # noqa: S607
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if "mount:" in done.stderr or "unshare:" in done.stderr:
            pytest.skip("mounting is not permitted here")
        assert "harness.errors.StoreError" in done.stderr
        return
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="--store"):
        Store(str(tmp_path / "results.db"))
    tmp_path.chmod(0o700)


def test_identity_is_stored_as_json(store: Store, place: str) -> None:
    store.open_run(key(options=(("a", "1"),)), {"threads": 2})
    (run,) = store.runs()
    assert run.key.options == (("a", "1"),)
    assert run == Run(run.key.id, key(options=(("a", "1"),)), {"threads": 2}, run.started)
    stored = json.loads(ask(place, "select identity from runs")[0][0])
    assert list(stored) == list(RunKey.__dataclass_fields__)


def test_other_processes_reach_it_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("results.db")
    store.open_run(key(), {})
    assert store.url == "results.db"
    monkeypatch.chdir("/")
    again = Store(store.address)
    assert [found.id for found in again.runs()] == [key().id]
    again.close()
    store.close()


def test_a_failed_outcome_is_replaced_once_and_only_by_the_attempt_that_named_it(place: str) -> None:
    store = Store(place)
    run = store.open_run(key(), {})

    def end(attempt: Attempt, status: str) -> bool:
        return attempt.finish(status, CellRecord(rows_total=8, train_rows=8), "t", np.zeros(3, dtype=np.int64), [])

    assert end(store.begin(run, "sst2", 1), "out_of_memory")
    failed = store.failed(run)["sst2", 1]
    both = [store.begin(run, "sst2", 1, failed) for _ in range(2)]
    assert not end(store.begin(run, "sst2", 1), "timeout"), "who names none replaces none"
    assert end(both[0], "crashed")
    assert not end(both[1], "timeout"), "another process has replaced it"
    (cell,) = store.cells(run)
    assert (cell.status, cell.attempt, cell.record.replaced) == ("crashed", both[0].number, ("out_of_memory",))
    assert len(store.attempts(run)) == 4
    store.close()


def test_an_outcome_that_is_none_of_a_failure_is_never_replaced(place: str) -> None:
    store = Store(place)
    run = store.open_run(key(), {})
    first = store.begin(run, "sst2", 1)
    kept = [KeptAnswer(1.0, 0, b"", np.zeros(3, dtype=np.int64))]
    assert first.finish("ok", CellRecord(rows_total=8, train_rows=8), "t", np.zeros(3, dtype=np.int64), kept)
    assert store.failed(run) == {}
    second = store.begin(run, "sst2", 1, first.number)
    assert not second.finish("crashed", CellRecord(), "t", np.zeros(3, dtype=np.int64), [])
    assert [cell.status for cell in store.cells(run)] == ["ok"]
    store.close()
