"""Whole evaluations on Ray give the numbers of one machine. Nothing is lost or doubled, whatever is killed."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from evaluating import SEARCH, SLOW, check, events, kill_group
from outer_models import write_submission

from harness.results.audit import audit
from harness.results.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Nodes
    from postgres_server import Server

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def start(folder: Path, name: str, track: Path, *more: str) -> subprocess.Popen[str]:
    """`harness evaluate` of both submissions in `folder`, in a process group of its own."""
    command = [sys.executable, "-m", "harness.cli", "evaluate", str(folder / "one"), str(folder / "two")]
    return subprocess.Popen(
        [*command, "--track", str(track), "--store", name if "://" in name else str(folder / name), "--json", *more],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return [event for event in events(output) if event["event"] == "cell"]


def two_submissions(folder: Path, body: str) -> None:
    for name in ("one", "two"):
        write_submission(folder, body, name=name)


def contents(path: Path | str) -> dict[str, Any]:
    """Everything in a store that is not time, by run and cell."""
    store = Store(str(path))
    found: dict[str, Any] = {}
    for run in store.runs():
        found[run.id] = run.key, run.environment
        for cell in store.cells(run.id):
            queries = [row.sha256 for row in store.ledger(cell.attempt)]
            predictions = {mark: p.tolist() for mark, p in cell.predictions.items()}
            names = ("rows_spent", "tokens", "note", "history", "probe", "seed")
            same = [getattr(cell.record, name) for name in names]
            found[f"{run.id}/{cell.task}/{cell.split}"] = cell.status, queries, predictions, same
    store.close()
    return found


def grown(path: Path, process: subprocess.Popen[str], rows: int) -> None:
    """Wait until so many rows were added to the ledger, or the process ended."""

    def count() -> int:
        with contextlib.suppress(sqlite3.Error), sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
            return int(raw.execute("select count(*) from queries").fetchone()[0])
        return 0

    first, until = count(), time.monotonic() + 120
    while process.poll() is None and count() < first + rows and time.monotonic() < until:
        time.sleep(0.02)


def hosts() -> list[psutil.Process]:
    """Processes of Ray that hold a model."""
    return [process for process in psutil.process_iter(["name"]) if process.info["name"].startswith("ray::Host")]


def test_scores_are_those_of_the_local_engine_bit_for_bit(tiny_track: Path, tmp_path: Path) -> None:
    two_submissions(tmp_path, SEARCH)
    finish(start(tmp_path, "local.db", tiny_track))
    told = finish(start(tmp_path, "ray.db", tiny_track, "--engine", "ray", "--workers", "3"))
    assert contents(tmp_path / "local.db") == contents(tmp_path / "ray.db")
    assert len(told) == 6


def test_several_hosts_write_into_one_postgresql(
    tiny_track: Path, tmp_path: Path, nodes: Nodes, postgres: Server
) -> None:
    two_submissions(tmp_path, SEARCH)
    finish(start(tmp_path, "local.db", tiny_track))
    url = postgres.database()
    nodes.tell("add")
    nodes.tell("add")
    finish(start(tmp_path, url, tiny_track, "--engine", "ray", "--address", nodes.address, "--workers", "4"))
    assert contents(tmp_path / "local.db") == contents(url)
    store = Store(url)
    found = audit(store)
    store.close()
    assert found.findings == ()
    assert (found.rows["outcomes"], found.unfinished) == (6, 0)


def test_its_own_cluster_listens_on_loopback_alone_and_ends_with_it(tiny_track: Path, tmp_path: Path) -> None:
    two_submissions(tmp_path, SLOW)
    process = start(tmp_path, "results.db", tiny_track, "--engine", "ray")
    grown(tmp_path / "results.db", process, 1)
    family = psutil.Process(process.pid).children(recursive=True)
    try:
        sockets = [c for each in family for c in connections(each) if c.status == psutil.CONN_LISTEN]
        environments = [environment(each) for each in family]
    finally:
        kill_group(process.pid)
        process.communicate(timeout=30)
    listening = {ipaddress.ip_address(c.laddr.ip.removeprefix("::ffff:")) for c in sockets}
    assert len(sockets) > 3
    assert all(address.is_loopback for address in listening), listening
    told = [each.get("RAY_USAGE_STATS_ENABLED") for each in environments]
    assert told.count("0") > 3
    assert set(told) <= {"0", None}  # a submission's worker inherits nothing
    _, left = psutil.wait_procs(family, timeout=30)
    assert left == []


def environment(process: psutil.Process) -> dict[str, str]:
    """The environment of a process, or an empty one if the process has ended."""
    with contextlib.suppress(psutil.Error):
        return dict(process.environ())
    return {}


def connections(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.Error):
        return list(process.net_connections())
    return []


def test_hosts_nodes_and_drivers_killed_at_random_lose_and_double_nothing(
    tiny_track: Path, tmp_path: Path, nodes: Any
) -> None:
    """SIGKILL hits a host, then a node with all its processes, then the driver. The last driver runs the rest."""
    chance = random.Random(8)  # noqa: S311
    two_submissions(tmp_path, SLOW)
    path = tmp_path / "results.db"
    how = ("--engine", "ray", "--address", nodes.address, "--workers", "2")
    for _ in range(2):
        nodes.tell("add")
    first = start(tmp_path, "results.db", tiny_track, *how)
    grown(path, first, chance.randrange(1, 8))
    chance.choice(hosts()).kill()
    grown(path, first, chance.randrange(1, 8))
    nodes.tell("remove")
    grown(path, first, chance.randrange(4, 12))
    assert first.poll() is None, first.communicate()[0]
    kill_group(first.pid)
    first.communicate(timeout=30)
    nodes.tell("add")
    finish(start(tmp_path, "results.db", tiny_track, *how))
    store = Store(str(path))
    runs = [found.id for found in store.runs()]
    attempts = sum(len(store.attempts(run)) for run in runs)
    store.close()
    assert len(runs) == 2
    assert attempts > 6
    for run in runs:
        check(path, run, cells=3)
    plain = tmp_path / "plain"
    two_submissions(plain, SLOW)
    finish(start(plain, "results.db", tiny_track))
    assert contents(path) == contents(plain / "results.db")


def test_a_host_killed_in_the_middle_is_replaced_and_its_cell_runs_again(tiny_track: Path, tmp_path: Path) -> None:
    two_submissions(tmp_path, SLOW)
    process = start(tmp_path, "results.db", tiny_track, "--engine", "ray")
    grown(tmp_path / "results.db", process, 3)
    family = psutil.Process(process.pid).children(recursive=True)
    (host,) = [each for each in family if each.name().startswith("ray::Host")]
    workers = host.children(recursive=True)
    os.kill(host.pid, signal.SIGKILL)
    told = finish(process)
    assert len(told) == 6
    assert workers
    assert not [each for each in workers if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    store = Store(str(tmp_path / "results.db"))
    assert sum(len(store.attempts(run.id)) for run in store.runs()) == 7
    store.close()


def test_a_reference_and_a_submission_share_a_device(tiny_track: Path, tmp_path: Path) -> None:
    from evaluating import REFERENCE

    two_submissions(tmp_path, SEARCH)
    (tmp_path / "two" / "submission.py").write_text(REFERENCE, encoding="utf-8")
    told = finish(start(tmp_path, "r.db", tiny_track, "--engine", "ray", "--workers", "3", "--white-box"))
    ends = sorted((each["entry"], each["status"]) for each in told)
    assert ends == [("one", "budget_exhausted")] * 3 + [("two", "ok")] * 3


def test_a_broken_submission_is_reported_after_the_others_are_done(tiny_track: Path, tmp_path: Path) -> None:
    two_submissions(tmp_path, SEARCH)
    (tmp_path / "one" / "submission.py").write_text("import nothing_there\n", encoding="utf-8")
    process = start(tmp_path, "results.db", tiny_track, "--engine", "ray")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "nothing_there" in output
    ended = [(event["entry"], event["status"]) for event in events(output) if event["event"] == "cell"]
    assert sorted(ended) == [("one", "crashed")] * 3 + [("two", "budget_exhausted")] * 3
