"""A Ray cluster of several nodes on this machine, on loopback and with a token, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import sys
from ray.cluster_utils import Cluster

quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 2000}
how = {"include_dashboard": False, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args=how | {"num_cpus": 0, "_system_config": quick})
print(cluster.address, flush=True)
nodes = []
for line in sys.stdin:
    if line.startswith("add"):
        nodes.append(cluster.add_node(num_cpus=1, **how))
    else:
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A head that computes nothing, and nodes of one CPU that come and go."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM], start_new_session=True, **pipes)  # type: ignore[call-overload]
        self.address = self._answer()

    def _answer(self) -> str:
        for line in self._process.stdout:
            if line.strip() == "done" or line.startswith("127.0.0.1:"):
                return str(line.strip())
        raise RuntimeError("the cluster ended")

    def tell(self, what: str) -> None:
        """``add`` a node, or ``remove`` the oldest with all that runs on it, without warning."""
        print(what, file=self._process.stdin, flush=True)
        self._answer()

    def end(self) -> None:
        """End all of it."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """See `Nodes`; drivers started by the test inherit what they need to join."""
    pytest.importorskip("ray")
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"),
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN", secrets.token_hex(32)),
    ):
        monkeypatch.setenv(name, value)
    made = Nodes()
    try:
        yield made
    finally:
        made.end()
