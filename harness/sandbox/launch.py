"""Starts a worker with nothing but its socket, collects what it prints, and ends it for sure.

The seam for stronger isolation: `start` is the one place where a worker process comes to be.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIER = "process"
"""Isolation of this version: a separate process with limits, no file-system or network sandbox."""
_LOOK_S = 0.5


@dataclass(frozen=True)
class Exit:
    """How a worker ended."""

    code: int
    """Exit code; minus the signal where one ended it."""
    output: str
    """The last bytes of what it printed."""
    peak_mb: float
    """Largest resident memory seen, looked at twice a second and at the end."""


class Worker:
    """A running worker process and our end of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, keep: int) -> None:
        """Own the process; `keep` bytes of its output are kept."""
        self._process, self.sock, self._keep = process, sock, keep
        self._tail, self._peak_mb, self._gone = b"", 0.0, False
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        self._exit: Exit | None = None

    def end(self, grace_s: float) -> Exit:
        """Hang up, give it `grace_s` to leave, then kill its whole process group; safe to call twice."""
        if self._exit is not None:
            return self._exit
        self._look()
        self.sock.close()
        self._await(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._gone = True
        self._reader.join(1.0)
        self._exit = Exit(code, self._tail.decode("utf-8", "replace"), self._peak_mb)
        return self._exit

    def _await(self, grace_s: float) -> None:
        """Wait for its end without reaping it: until then its number, and its group's, belong to nobody else."""
        until = time.monotonic() + grace_s
        while os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return
            time.sleep(0.005)

    def _drain(self) -> None:
        """Take what it prints, so that it never waits for us; the tail is kept."""
        stream: Any = self._process.stdout
        with stream, contextlib.suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([stream], [], [], _LOOK_S)
                self._look()
                if not ready and self._gone:  # something that outlives the worker holds its output open
                    return
                if not ready:
                    continue
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    return
                self._tail = (self._tail + chunk)[-self._keep :]

    def _look(self) -> None:
        """Note its largest resident memory so far; a process that has ended has none to tell."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    self._peak_mb = max(self._peak_mb, int(line.split()[1]) / 1024)


def start(keep_output: int) -> Worker:
    """Start a worker that waits for its job on one inherited socket."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as failed, theirs:
        failed.enter_context(ours)
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "harness.sandbox.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
        failed.pop_all()
    return Worker(process, ours, keep_output)


def _environment() -> dict[str, str]:
    """Nothing of the referee's environment but the thread count.

    NumPy's linear algebra gets one thread: the last digits of an eigendecomposition change with the number of
    threads, and on small matrices two threads are slower than one.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    scrubbed = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    return scrubbed | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
