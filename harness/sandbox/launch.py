"""Starts a worker that inherits only its socket, collects its output, and makes sure that it ends.

`start` is the only place that starts a worker process, in any tier (`harness.tracks.tiers`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import SandboxError
from harness.sandbox import bubblewrap, traces
from harness.sandbox.allowlist import DEVICES, PACKAGE, View, open_to_all, secret, view
from harness.sandbox.confine import LENGTH, landlock_abi
from harness.tracks.tiers import TIERS, Tier

if TYPE_CHECKING:
    from harness.tracks.limits import Limits

NOBODY = 65534
"""Uid and gid of a worker that root starts."""
_STACK_S = 2.0
"""Seconds in which it has to."""
_SPARE_TASKS = 64
_LOOK_S = 0.5
_REPORT_S = 60.0
_LONGEST_REPORT = 1 << 16
_PR_SET_DUMPABLE = 4
_UID_AND_THREADS = re.compile(rb"^Uid:\t(\d+).*^Threads:\t(\d+)", re.MULTILINE | re.DOTALL)
_OWN_FACTS = ("auxv", "cmdline", "comm", "limits", "maps", "smaps_rollup", "stat", "statm", "status")
"""Files of ``/proc/self`` that a worker may read. Others show more than the worker itself. For example, ``net`` shows
the machine's connections and packets, with which an outside process could send a message."""
_OWN_LISTS = ("fd", "task")
"""Directories of ``/proc/self`` whose names can be listed."""
_OWN_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts")


@dataclass(frozen=True)
class Isolation:
    """The isolation of a worker, as its canaries found it before the submission's code was loaded."""

    tier: Tier
    landlock_abi: int = 0
    """Version of Landlock's interface that was used; 0 means none."""
    uid: int = -1
    """Uid of the worker, as the worker sees it."""
    canaries: dict[str, str] = field(default_factory=dict)
    """What was tried, and the resulting error; ``escaped`` if there was no error."""


@dataclass(frozen=True)
class Exit:
    """How a worker ended."""

    code: int
    """Exit code, or minus the signal that ended it."""
    output: str
    """The last bytes of its output."""
    peak_mb: float
    """Largest resident memory, measured twice a second and at the end."""
    stack: str = ""
    """The Python stacks of its threads, if they were asked for when it was ended."""


class Worker:
    """A running worker process and our end of its socket."""

    isolation: Isolation

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, keep: int, inside: int | None) -> None:
        """Own the process and keep the last `keep` bytes of its output. `inside` is its namespace's first process."""
        self._process, self.sock, self._keep = process, sock, keep
        self._tail, self._peak_mb, self._gone, self._read = b"", 0.0, False, 0
        self._stack = ""
        self._inside = None if inside is None else (inside, os.pidfd_open(inside))
        self._pid = process.pid if inside is None else None
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        self._exit: Exit | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, as the referee sees it; None if it is not known yet or the process has ended."""
        if self._pid is None and self._inside is not None:
            with contextlib.suppress(OSError, ValueError):
                first = self._inside[0]
                self._pid = int(Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()[0])
        return self._pid

    def end(self, grace_s: float, *, stack: bool = False) -> Exit:
        """Close the socket, wait `grace_s` for the worker's end, then kill it and its children. Safe to call twice.

        Without a grace it is killed at once.

        With `stack`, a worker that runs is first asked for the stacks of its threads, which its `faulthandler` writes.
        """
        if self._exit is not None:
            return self._exit
        self._look()
        if stack:
            self._ask_for_stack()
        if grace_s:
            self.sock.close()
            self._await(grace_s)
        if self._inside is not None:  # when a namespace's first process ends, the kernel ends all others
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inside[1], signal.SIGKILL)
            self._await(_LOOK_S)
            os.close(self._inside[1])
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.sock.close()  # without a grace only now: it would raise in the worker, which would print that
        code = self._process.wait()
        if self._inside is not None and code > 128:  # noqa: PLR2004 - bubblewrap's code for a signal
            code = 128 - code
        self._gone = True
        self._reader.join(1.0)
        output = self._tail.decode("utf-8", "replace")
        self._exit = Exit(code, traces.without_dumps(output) if stack else output, self._peak_mb, self._stack)
        return self._exit

    def _ask_for_stack(self) -> None:
        """Let the worker write its stacks into its output, and wait for them: a signal, which C code does not delay."""
        before, until, pid = self._read, time.monotonic() + _STACK_S, self.pid
        with contextlib.suppress(OSError):
            if pid is not None:
                os.kill(pid, signal.SIGUSR1)  # see `harness.sandbox.worker.STACK_SIGNAL`
        while time.monotonic() < until:
            seen = self._read
            time.sleep(0.05)
            if seen == self._read > before:  # it is written in many small pieces, and nothing came after the last
                self._stack = self._tail[before - seen :].decode("utf-8", "replace")
                return

    def _await(self, grace_s: float) -> None:
        """Wait for its end without reaping it. Until then no other process can get its id or its group's id."""
        until = time.monotonic() + grace_s
        while os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return
            time.sleep(0.005)

    def _drain(self) -> None:
        """Read its output, so that it never waits for us, and keep the end of it."""
        stream: Any = self._process.stdout
        with stream, contextlib.suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([stream], [], [], _LOOK_S)
                self._look()
                if not ready and self._gone:  # another process, which outlives the worker, holds its output open
                    return
                if not ready:
                    continue
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    return
                self._tail = (self._tail + chunk)[-self._keep :]
                self._read += len(chunk)

    def _look(self) -> None:
        """Record its largest resident memory so far. A process that has ended shows none."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    self._peak_mb = max(self._peak_mb, int(line.split()[1]) / 1024)


def start(
    limits: Limits,
    submission: Path | None,
    tier: Tier,
    packages: tuple[str, ...] = (),
    *,
    landlock: int | None = None,
) -> Worker:
    """Start a worker in a tier. It has tested its restrictions, and waits for its job on one inherited socket.

    `submission` is the folder that it may read, a snapshot. `packages` are distributions that the track allows beside
    those of every track. `landlock` limits it to an older version of Landlock.

    Raises:
        SandboxError: this machine cannot provide the tier: no worker started, or a canary escaped.
    """
    layers, seen = TIERS[tier], view(submission, packages)
    root = os.geteuid() == 0 and layers.seccomp
    above = () if seen.own is None else (seen.own.parent.parent,)  # the folder itself is for the worker's group
    keep_reading = root and not all(map(open_to_all, (*seen.trees, *seen.packages, *above)))
    abi = _abi(landlock) if layers.landlock else 0
    policy = _policy(limits, seen, tier, abi, NOBODY if root else None, keep_reading)
    policy["packages"] = packages
    _guard(hide=layers.seccomp)
    try:
        worker = _spawn(seen, tier, limits.output_kb << 10, keep_reading)
    except OSError as problem:
        raise SandboxError(f"tier {tier}: {problem.strerror}") from problem
    try:
        report = _exchange(worker.sock, policy)
        escaped = [name for name, fate in report["canaries"].items() if fate == "escaped"]
        if escaped:
            raise SandboxError(f"tier {tier}: a worker could still do what must fail: {', '.join(escaped)}")
        worker.isolation = Isolation(tier, abi, report["uid"], report["canaries"])
    except SandboxError as problem:
        left = worker.end(_LOOK_S)
        raise SandboxError(f"{problem}\n{left.output}".rstrip()) from None
    except BaseException:
        worker.end(0)
        raise
    return worker


def filter_file() -> Path | None:
    """The system call filter for this machine; None if there is none."""
    path = Path(__file__).with_name(f"seccomp-{platform.machine()}.bpf")
    return path if sys.platform == "linux" and path.is_file() else None


def _abi(landlock: int | None) -> int:
    found = landlock_abi() if sys.platform == "linux" else 0
    if found < 1:
        raise SandboxError(f"this kernel has no Landlock: {os.strerror(-found) if found else sys.platform}")
    return found if landlock is None else min(found, landlock)


def _policy(limits: Limits, seen: View, tier: Tier, abi: int, uid: int | None, keep_reading: bool) -> dict[str, Any]:
    """The policy that is sent to `harness.sandbox.confine`."""
    layers, cores = TIERS[tier], os.cpu_count() or 1
    taken = {
        "AS": int(limits.memory_gb * 2**30),
        "CPU": int(limits.wall_s * cores) + 60,
        "NOFILE": limits.open_files,
        "CORE": 0,
    }
    if layers.seccomp:
        who = os.getuid() if uid is None else uid
        taken |= {"NPROC": _tasks_of(who) + _SPARE_TASKS + 2 * cores, "FSIZE": 0, "MSGQUEUE": 0}
    found = filter_file()
    if layers.seccomp and found is None:
        raise SandboxError(f"tier {tier}: there is no system call filter for {sys.platform} on {platform.machine()}")
    more = [f"/proc/self/{name}" for name in _OWN_FACTS]
    more += ["/proc/cpuinfo", "/proc/meminfo", "/proc/stat"]
    more += [path for path, what in DEVICES.items() if what == "read"]
    return {
        "uid": uid,
        "keep_reading": keep_reading,
        "parent": None if layers.bubblewrap else os.getpid(),
        "limits": taken,
        "seccomp": str(found) if layers.seccomp else "",
        "landlock_abi": abi,
        "read": [*map(str, seen.read), *more] if abi else [],
        "list": [*map(str, seen.listed), *(f"/proc/self/{name}" for name in _OWN_LISTS)] if abi else [],
        "write": [path for path, what in DEVICES.items() if what == "write"],
        "missing": list(seen.missing),
        "search": [str(path) for path in seen.search],
        "harness": str(PACKAGE),
        "secret": str(secret()),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in _OWN_NAMESPACES if layers.bubblewrap},  # noqa: PTH115
        "places": ["/", "/tmp", "/dev/shm", str(PACKAGE)],  # noqa: S108 - where it must not write
    }


def _spawn(seen: View, tier: Tier, keep: int, keep_reading: bool) -> Worker:
    ours, theirs = socket.socketpair()
    told, tells = os.pipe()
    with contextlib.ExitStack() as failed, theirs, os.fdopen(told, "rb", buffering=0) as facts:
        failed.enter_context(ours)
        with os.fdopen(tells, "wb"):
            program = [str(Path(sys.executable).resolve()), "-I", "-S"]
            program += [str(Path(__file__).with_name("confine.py")), str(theirs.fileno())]
            fds = [theirs.fileno()]
            if TIERS[tier].bubblewrap:
                program = bubblewrap.command(seen, DEVICES, tells, keep_reading) + program
                fds.append(tells)
            process = subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
                env=_environment(isolated=TIERS[tier].seccomp),
                cwd="/",
                start_new_session=True,
            )
        inside = None
        if TIERS[tier].bubblewrap:
            said = b""
            while not said.rstrip().endswith(b"}") and (more := facts.read(4096)):
                said += more
            with contextlib.suppress(ValueError, KeyError):  # it has ended, and its output says why
                inside = int(json.loads(said)["child-pid"])
        failed.pop_all()
    return Worker(process, ours, keep, inside)


def _exchange(sock: socket.socket, policy: dict[str, Any]) -> dict[str, Any]:
    """Send the policy and receive the report. The submission is not loaded yet, so the report is from our own code."""
    body = json.dumps(policy).encode()
    sock.settimeout(_REPORT_S)
    try:
        sock.sendall(LENGTH.pack(len(body)) + body)
        head = sock.recv(LENGTH.size, socket.MSG_WAITALL)
        size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
        report = json.loads(sock.recv(min(size, _LONGEST_REPORT), socket.MSG_WAITALL) or b'{"error": "it ended"}')
    except OSError as problem:
        report = {"error": str(problem)}
    finally:
        sock.settimeout(None)
    if "error" in report:
        raise SandboxError(f"no worker came up: {report['error']}")
    return dict(report)


def _tasks_of(uid: int) -> int:
    """Number of threads of all processes of a user. The limit on processes counts threads."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            found = _UID_AND_THREADS.search(path.read_bytes())
            if found and int(found[1]) == uid:
                count += int(found[2])
    return count


def _guard(*, hide: bool) -> None:
    """Make this process's memory and environment unreadable for other processes of the same user, or readable again."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(not hide), 0, 0, 0)


def _environment(*, isolated: bool) -> dict[str, str]:
    """The worker's environment: of the referee's environment it has only the thread count.

    In isolation nothing can be written. Libraries that need a temporary directory at import (torch) get an existing
    one, in which nobody ever writes.

    NumPy's linear algebra gets one thread. The last digits of an eigendecomposition change with the number of threads,
    and on small matrices two threads are slower than one.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    scrubbed = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    if isolated:
        scrubbed |= dict.fromkeys(("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"), "/proc/self")
    return scrubbed | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
