"""A node loses its network and goes on computing. Its cells are run elsewhere, and no cell counts twice.

Needs root and network namespaces; skips with a message without them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evaluating import SLOW, check
from test_ray import contents, finish, start, two_submissions

from harness.errors import StoreError
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
IP = "/usr/sbin/ip"
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
TOGETHER = """
import sys, time
import ray

ray.init(address=sys.argv[1], log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
"""
SLOWER = SLOW.replace("0.05", "1.0")
"""A cell takes long enough to be caught in the middle."""


class Island:
    """A cluster of this machine and of a node in a network namespace, at the end of a cable."""

    def __init__(self) -> None:
        self.name = f"h{os.getpid() % 100_000}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = "10.213.77.1:6397"
        self._ip("netns", "add", self.name)
        self._ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        self._ip("addr", "add", "10.213.77.1/24", "dev", self.name)
        self._ip("link", "set", self.name, "up")
        self._ip("-n", self.name, "addr", "add", "10.213.77.2/24", "dev", "eth0")
        self._ip("-n", self.name, "link", "set", "eth0", "up")
        self._ip("-n", self.name, "link", "set", "lo", "up")

    def _ip(self, *words: str) -> None:
        subprocess.run([IP, *words], check=True, capture_output=True)

    def settle(self) -> None:
        """Start the head, and the node on the island, and wait until they know of each other."""
        head = ["--head", "--port", "6397", "--include-dashboard", "false", "--system-config", json.dumps(QUICK)]
        self._ray("10.213.77.1", *head)
        time.sleep(8)
        self._ray("10.213.77.2", "--address", self.address, prefix=(IP, "netns", "exec", self.name))
        subprocess.run([sys.executable, "-c", TOGETHER, self.address], check=True, capture_output=True, timeout=120)

    def _ray(self, address: str, *words: str, prefix: tuple[str, ...] = ()) -> None:
        command = [
            *prefix,
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--node-ip-address",
            address,
        ]
        more = ["--num-cpus", "1", "--object-store-memory", str(80 << 20)]
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(subprocess.Popen([*command, *more, *words], start_new_session=True, **nowhere))  # type: ignore[call-overload]

    def cut(self) -> None:
        """Pull the cable."""
        self._ip("link", "set", self.name, "down")

    def end(self) -> None:
        """End all of it."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for words in (("link", "del", self.name), ("netns", "del", self.name)):
            subprocess.run([IP, *words], check=False, capture_output=True)


@pytest.fixture
def island(monkeypatch: pytest.MonkeyPatch) -> Iterator[Island]:
    """See `Island`."""
    for variable, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN", secrets.token_hex(32)),
        ("OMP_NUM_THREADS", "1"),
    ):
        monkeypatch.setenv(variable, value)
    if not Path(IP).exists() or os.geteuid():
        pytest.skip("root and the command ip are needed to make a network namespace")
    try:
        made = Island()
    except subprocess.CalledProcessError as problem:
        pytest.skip(f"no network namespace can be made here: {problem.stderr.decode()}")
    try:
        made.settle()
        yield made
    finally:
        made.end()


def test_a_node_cut_off_in_the_middle_loses_and_doubles_nothing(
    tiny_track: Path, tmp_path: Path, island: Island
) -> None:
    """The cell continues there and reaches the same database. It is also scheduled again on the remaining node."""
    two_submissions(tmp_path, SLOWER)
    path = tmp_path / "results.db"
    process = start(tmp_path, "results.db", tiny_track, "--engine", "ray", "--address", island.address)
    both_compute(path, process)
    island.cut()
    told = finish(process)
    assert len(told) in {4, 5, 6}  # of what ends on the island nobody can be told
    store = Store(str(path))
    runs = [found.id for found in store.runs()]
    attempts = sum(len(store.attempts(run)) for run in runs)
    store.close()
    assert attempts in {6, 7}
    for run in runs:
        check(path, run, cells=3)
    plain = tmp_path / "plain"
    two_submissions(plain, SLOWER)
    finish(start(plain, "results.db", tiny_track))
    assert contents(path) == contents(plain / "results.db")


def both_compute(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until two cells are open at once."""
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        if path.exists():
            with contextlib.suppress(StoreError), contextlib.closing(Store(str(path))) as store:
                if sum(len(store.open_cells(run.id)) for run in store.runs()) == 2:
                    return
        time.sleep(0.1)
    output = process.communicate()[0] if process.poll() is not None else "nothing yet"
    raise AssertionError(f"no two cells at once: {output}")
