"""PostgreSQL as the results database: many writers, a server that dies, and a password that nobody gets to see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from made_up import key
from outer_models import write_submission

from harness.errors import StoreError
from harness.results import database
from harness.results.at_hand import labels_at_hand
from harness.results.audit import audit
from harness.results.records import LedgerRow
from harness.results.store import Store
from harness.tracks.examples import Source
from harness.tracks.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import Server

HERE = Path(__file__).resolve().parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "OMP_NUM_THREADS": "1"}
AT_HAND = labels_at_hand([load_task("sst2"), load_task("qqp")], Source("embedded"))
ROW = LedgerRow(8, 100, 10, 20, 0.1, 1, "ab")


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


def writer(url: str, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "writer.py"), url, what]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_processes_that_finish_the_same_cells_at_once_leave_one_outcome_each(url: str) -> None:
    writers = [writer(url, "cells") for _ in range(4)]
    told = [process.communicate(timeout=300) for process in writers]
    assert [process.returncode for process in writers] == [0] * 4, told
    assert sum(int(out) for out, _ in told) == 12
    store = Store(url)
    found = audit(store, AT_HAND)
    store.close()
    assert found.findings == ()
    assert (found.rows["runs"], found.rows["outcomes"], found.rows["attempts"]) == (1, 12, 48)
    assert (found.rows["test_sets"], found.rows["answers"], found.unfinished) == (1, 24, 36)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT])
def test_a_server_that_dies_loses_no_row_that_it_acknowledged(postgres: Server, url: str, how: signal.Signals) -> None:
    process = writer(url, "rows")
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(50)]
    postgres.stop(how)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        postgres.start()
    assert process.returncode == 1
    assert "StoreError: results database postgresql+psycopg://harness@/" in err
    assert "It contains nothing half-written; remove the cause and run the same command again" in err
    attempt, last = map(int, (told + out.splitlines())[-1].split())
    store = Store(url)
    assert len(store.ledger(attempt)) in {last + 1, last + 2}  # the one on its way may have come to stay
    found = audit(store, AT_HAND)
    store.close()
    assert (found.findings, found.unfinished) == ((), 1)


def test_a_store_that_is_open_finds_a_server_again_that_was_started_again(postgres: Server, store: Store) -> None:
    run = store.open_run(key(), {})
    attempt = store.begin(run, "sst2", 1)
    attempt.record(ROW)
    postgres.stop()
    with pytest.raises(StoreError, match="remove the cause"):
        store.runs()
    postgres.start()
    attempt.record(ROW)
    assert len(store.ledger(attempt.number)) == 2


@pytest.mark.slow
def test_an_evaluation_whose_server_is_killed_is_taken_up_by_the_same_command(
    postgres: Server, url: str, tiny_track: Path, tmp_path: Path
) -> None:
    slowly = """
    def tune(lm, task, shots, rng, config):
        for answer in search(lm, task, shots, rng, config):
            yield answer
            time.sleep(0.5)
    """
    entry = write_submission(tmp_path, slowly)
    command = [
        sys.executable, "-m", "harness.cli", "evaluate", str(entry), "--track", str(tiny_track), "--store", url,
    ]  # fmt: skip
    begun = subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    store = Store(url)
    until = time.monotonic() + 200
    while not any(store.finished(run.id) for run in store.runs()) or not store.open_cells(store.runs()[0].id):
        assert time.monotonic() < until, begun.poll()
        time.sleep(0.1)
    postgres.stop(signal.SIGKILL)
    _, err = begun.communicate(timeout=120)
    postgres.start()
    assert begun.returncode == 1
    assert "remove the cause and run the same command again" in " ".join(err.split())
    assert "Traceback" not in err
    (run,) = [found.id for found in store.runs()]
    before = store.finished(run)
    assert 0 < len(before) < 3
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert store.finished(run) == {("sst2", 1), ("sst2", 2), ("qqp", 1)}
    found = audit(store, AT_HAND)
    store.close()
    assert found.findings == ()
    assert len(found.cells) == 3
    assert found.unfinished >= 1
    assert found.test_sets_at_hand == 2


def test_a_reader_sees_one_moment_whoever_writes(store: Store, url: str) -> None:
    run = store.open_run(key(), {})
    other = Store(url)
    with store.snapshot() as connection:
        assert connection.exec_driver_sql("select count(*) from attempts").scalar() == 0
        other.begin(run, "sst2", 1)
        assert connection.exec_driver_sql("select count(*) from attempts").scalar() == 0
    other.close()
    assert len(store.attempts(run)) == 1


def test_a_ledger_grows_while_another_writes_and_writers_wait_for_each_other(store: Store, url: str) -> None:
    run = store.open_run(key(), {})
    other, opened = Store(url), threading.Event()

    def open_another() -> None:
        other.open_run(key("another"), {})
        opened.set()

    waiting = threading.Thread(target=open_another)
    with store.changes():
        store.begin(run, "sst2", 1).record(ROW)
        waiting.start()
        assert not opened.wait(0.5)
    assert opened.wait(60)
    waiting.join()
    other.close()


def test_a_commit_is_on_disk_even_where_the_server_would_not_wait_for_it(url: str) -> None:
    store = Store(f"{url}&options=-csynchronous_commit%3Doff")
    with store.snapshot() as connection:
        assert connection.exec_driver_sql("show synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql("show transaction_isolation").scalar() == "repeatable read"
    store.close()


def test_rows_come_in_the_order_of_their_bytes_whatever_the_locale(store: Store) -> None:
    run = store.open_run(key(), {})
    names = ["b", "B", "a_b", "ab", "é", "z"]
    for name in names:
        store.begin(run, name, 1)
    assert [cell.task for cell in store.open_cells(run)] == sorted(names)


def test_a_database_without_tables_is_none_to_read_from(url: str) -> None:
    with pytest.raises(StoreError, match="not a results database"):
        Store(url, create=False)
    Store(url).close()
    Store(url, create=False).close()


def test_a_password_with_odd_characters_opens_it_and_is_never_shown(postgres: Server, url: str) -> None:
    name = url.split("/")[3].partition("?")[0]
    store = Store(postgres.url_with_password(name, quote(postgres.password)))
    assert store.url == f"postgresql+psycopg://harness:***@127.0.0.1:{postgres.port}/{name}"
    postgres.stop()
    with pytest.raises(StoreError) as gone:
        store.runs()
    postgres.start()
    store.close()
    wrong = "geheim%40word"
    with pytest.raises(StoreError, match="password authentication failed") as refused:
        Store(postgres.url_with_password(name, wrong))
    with pytest.raises(StoreError) as nobody:
        Store(f"postgresql+psycopg://harness:{wrong}@127.0.0.1:1/{name}")
    for problem in (gone, refused, nobody):
        for secret in ("s3cret", "geheim"):
            assert secret not in str(problem.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:geheim@host:port/db",
        "postgresql+psycopg://me:geh@geheim@host/db",
        "postgresql+psycopg://me:geheim@@/db",
        "postgresql+psycopg://me:geheim@/db?password=geheim&host=/nowhere",
        "postgresql+psycopg://me:geheim@[::1/db",
        "postgresql+psycopg2://me:geheim@host/db",
        "nosuch://me:geheim@host/db",
        "postgresql+psycopg://me@/db?host=/nowhere&sslpassword=geheim",
        "postgresql+psycopg://me:gehe\nim:geheim@/db?host=/nowhere",
    ],
)
def test_a_url_that_does_not_work_is_an_error_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="--store") as problem:
        Store(url)
    assert "geheim" not in str(problem.value)
    assert "geheim" not in database.shown(url)


def test_the_command_line_says_where_facts_are_without_the_password(postgres: Server, url: str, tmp_path: Path) -> None:
    name = url.split("/")[3].partition("?")[0]
    there = postgres.url_with_password(name, quote(postgres.password))
    Store(there).close()
    command = [sys.executable, "-m", "harness.cli", "leaderboard", "--store", there]
    told = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, text=True, capture_output=True, timeout=120, check=False
    )
    assert told.returncode == 1
    assert f"harness:***@127.0.0.1:{postgres.port}" in told.stderr
    assert "s3cret" not in told.stdout + told.stderr
