"""Starts a worker with nothing but its socket, collects what it prints, and ends it for sure.

The seam for stronger isolation: `start` is the one place where a worker process comes to be.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

TIER = "process"
"""Isolation of this version: a separate process with limits, no file-system or network sandbox."""


@dataclass(frozen=True)
class Exit:
    """How a worker ended."""

    code: int
    """Exit code; minus the signal where one ended it."""
    output: str
    """The last bytes of what it printed."""
    peak_mb: float
    """Largest resident memory seen."""


class Worker:
    """A running worker process and our end of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, keep: int) -> None:
        """Own the process; `keep` bytes of its output are kept."""
        self._process, self.sock, self._keep = process, sock, keep
        self._tail = b""
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        self._exit: Exit | None = None

    def end(self, grace_s: float) -> Exit:
        """Wait `grace_s` for it to leave, then kill its whole process group; safe to call twice."""
        if self._exit is not None:
            return self._exit
        peak = self._peak_mb()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self.sock.close()
        self._reader.join(1.0)
        self._exit = Exit(code, self._tail.decode("utf-8", "replace"), peak)
        return self._exit

    def _drain(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream, contextlib.suppress(OSError, ValueError):
            while chunk := os.read(stream.fileno(), 65536):
                self._tail = (self._tail + chunk)[-self._keep :]

    def _peak_mb(self) -> float:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{self._process.pid}/status") as file:  # noqa: PTH123
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")), 0.0)
        return 0.0


def start(keep_output: int) -> Worker:
    """Start a worker that waits for its job on one inherited socket."""
    ours, theirs = socket.socketpair()
    with theirs:
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
    return Worker(process, ours, keep_output)


def _environment() -> dict[str, str]:
    """Nothing of the referee's environment but the thread count."""
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "OMP_NUM_THREADS": threads}
