"""First program of a worker process: it restricts the process, tests the restrictions, and then becomes the worker.

It is run by its path with ``python -I -S``, so that only the standard library is imported before the restrictions are
in force. A thread that numpy or torch had started before would not be restricted. The program receives its policy over
the socket as JSON and answers with a report of what it found (`_policy` and `_exchange` in `harness.sandbox.launch`).
The order matters: uid (which clears the death signal), death signal, limits, Landlock, seccomp.

Landlock is called directly: three system calls and two structures (linux/landlock.h). The Python libraries for it run
``ldconfig`` to find the C library. That program does not exist in a namespace, and it takes longer than all of this.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

LENGTH = struct.Struct("<I")

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446  # on every architecture
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 8, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3, _CAP_DAC_READ_SEARCH = 0x20080522, 2
_INSTRUCTION_BYTES = 8
_SCHEDULER_S_CLOCK = 2
"""CPUCLOCK_SCHED: the CPU time of a process by the scheduler's clock (linux/posix-timers.h)."""

_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_NEWEST_ABI = 6
"""Later versions add logging, and rules for operations that seccomp refuses anyway."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Confine this process, report the result, and run the worker."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    policy = _receive(sock)
    try:
        report = confine(policy)
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        _send(sock, {"error": f"{problem.strerror or problem}{where}"})
        raise SystemExit(f"isolation could not be set up: {problem}") from None
    _send(sock, report)
    _make_importable(policy)
    packages = policy["packages"]
    del policy, report  # a submission can read this frame
    from harness.sandbox import worker  # noqa: PLC0415 - imports numpy

    worker.main(sock, packages)


def confine(policy: dict[str, Any]) -> dict[str, Any]:
    """Give up permanently everything that `policy` does not grant.

    Returns the uid of this process, and the result of each canary.

    Raises:
        OSError: a restriction could not be set.
    """
    if policy["uid"] is not None:
        _become(policy["uid"], policy["keep_reading"])
    if sys.platform == "linux":
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl(PR_SET_PDEATHSIG)")
    if policy["parent"] not in {None, os.getppid()}:
        raise SystemExit("the referee is gone")
    for name, value in policy["limits"].items():
        _limit(name, value)
    if not policy["seccomp"]:
        return {"uid": os.getuid(), "canaries": {}}
    tasks = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone
    if tasks != 1:
        raise OSError(errno.EBUSY, f"{tasks} threads, and walls are put up around one")
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    instructions = Path(policy["seccomp"]).read_bytes()
    if policy["landlock_abi"]:
        _landlock(policy)
    _seccomp(instructions)
    return {"uid": os.getuid(), "canaries": canaries(policy)}


def canaries(policy: dict[str, Any]) -> dict[str, str]:
    """Try actions that must fail. The result is the error's name, or ``escaped`` if the action succeeded.

    Each layer has a canary that only this layer stops: a system call, a file that is visible in the namespaces, and the
    names of the namespaces.
    """
    other = os.getppid() or 1  # in a process namespace, the parent may be outside
    found = {
        "read": _refusal(lambda: os.open(policy["secret"], os.O_RDONLY | os.O_CLOEXEC)),
        "network": _refusal(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()),
        "fork": _refusal(_fork),
        "signal": _refusal(lambda: os.kill(os.getppid(), 0)),
        "clock": _refusal(lambda: time.clock_gettime(~other << 3 | _SCHEDULER_S_CLOCK)),
        "session": _refusal(lambda: os.getsid(other)),
        "group": _refusal(lambda: os.getpgid(other)),
        "affinity": _refusal(lambda: os.sched_getaffinity(other)),
    }
    if policy["landlock_abi"]:
        for name, place in (("packets", "/proc/self/net/snmp"), ("sockets", f"/proc/self/task/{os.getpid()}/net/unix")):
            found[name] = _refusal(lambda place=place: os.open(place, os.O_RDONLY | os.O_CLOEXEC))  # type: ignore[misc]
        found["landlock"] = _refusal(lambda: os.open("/proc/version", os.O_RDONLY | os.O_CLOEXEC))
    for name, referees in policy["namespaces"].items():
        found[f"namespace {name}"] = "own" if os.readlink(f"/proc/self/ns/{name}") != referees else "escaped"  # noqa: PTH115
    for place in policy["places"]:
        found[f"write {place}"] = _refusal(lambda place=place: _write(Path(place)))  # type: ignore[misc]
    return found


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as problem:
        return errno.errorcode.get(problem.errno or 0, "refused")
    return "escaped"


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _write(place: Path) -> None:
    path = place / f"harness-canary-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    path.unlink()


def landlock_abi() -> int:
    """Version of Landlock's interface in this kernel, or minus the error number if the kernel has none."""
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return version if version >= 0 else -ctypes.get_errno()


def _landlock(policy: dict[str, Any]) -> None:
    """Deny the file system except `read`, `list` and `write`; deny TCP, and signals and sockets to other processes."""
    abi = min(policy["landlock_abi"], _NEWEST_ABI)
    # Rights in each interface version: 13 in the first, then also REFER, TRUNCATE and, from version 5, IOCTL_DEV.
    files = (1 << 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)) - 1  # noqa: PLR2004
    handled = struct.pack("=QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)  # noqa: PLR2004
    ruleset = _checked(
        _libc.syscall(_LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint32(0)),
        "landlock_create_ruleset",
    )
    for paths, rights in (
        (policy["read"], _READ_FILE | _READ_DIR),
        (policy["list"], _READ_DIR),
        (policy["write"], _READ_FILE | _WRITE_FILE | _TRUNCATE),
    ):
        for path in paths:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            rule = struct.pack("=Qi", rights & files & (~0 if directory else ~_READ_DIR), fd)
            _checked(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, ctypes.c_uint32(0)), f"landlock rule {path}")
            os.close(fd)
    _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")
    os.close(ruleset)


def _seccomp(instructions: bytes) -> None:
    """Load a system call filter, in the kernel's own format."""
    program = struct.pack("@HP", len(instructions) // _INSTRUCTION_BYTES, _address(instructions))
    _checked(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program), "prctl(PR_SET_SECCOMP)")


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _become(uid: int, keep_reading: bool) -> None:
    """Change from root to another user permanently. At most the capability to read all files is kept."""
    if keep_reading:
        _checked(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(PR_SET_KEEPCAPS)")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kept = 1 << _CAP_DAC_READ_SEARCH if keep_reading else 0
    header, sets = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    _checked(_libc.capset(header, sets), "capset")


def _limit(name: str, value: int) -> None:
    """Set a limit that cannot be raised again. A limit that this system does not know is skipped."""
    kind = getattr(resource, f"RLIMIT_{name}", None)
    if kind is None:
        return
    hard = resource.getrlimit(kind)[1]
    capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (capped, capped))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


class _Visible(PathFinder):
    """Hides modules that exist but cannot be read. Their import raises ModuleNotFoundError, as packages expect."""

    missing: frozenset[str] = frozenset()

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `PathFinder`."""
        if path is None and fullname in cls.missing:
            return None
        return super().find_spec(fullname, path, target)


def _make_importable(policy: dict[str, Any]) -> None:
    """Make the packages that a submission may import, and `harness` itself, importable."""
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)] + policy["search"]
    _Visible.missing = frozenset(policy["missing"])
    sys.meta_path[sys.meta_path.index(PathFinder)] = _Visible
    folder = Path(policy["harness"])
    spec = importlib.util.spec_from_file_location(
        "harness", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None  # noqa: S101 - every file that ends in .py has a spec
    assert spec.loader is not None  # noqa: S101
    sys.modules["harness"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _receive(sock: socket.socket) -> dict[str, Any]:
    size = LENGTH.unpack(_exactly(sock, LENGTH.size))[0]
    return dict(json.loads(_exactly(sock, size)))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise SystemExit("no policy came over the socket; this program is started by `harness evaluate`")
        data += chunk
    return data


def _send(sock: socket.socket, report: dict[str, Any]) -> None:
    body = json.dumps(report).encode()
    sock.sendall(LENGTH.pack(len(body)) + body)


if __name__ == "__main__":
    main()
