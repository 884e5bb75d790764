"""Other processes: looking into them, and sending them signals. The decoy stands for a worker of the same user."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

from calls import NUMBERS, call, number, system_call

_SEIZE = 0x4206


def list_processes(at: Any) -> list[str]:
    """See who else is there."""
    own = {str(os.getpid()), "1"}  # 1 is the first of this namespace: in one's own, that is nobody else
    found = [name for name in os.listdir("/proc") if name.isdigit() and name not in own]
    return [name for name in found if name in {str(at.decoy), str(at.referee)}]


def read_a_command_line(at: Any) -> bytes:
    """Paths stand on command lines."""
    return _first(at, "cmdline")


def read_an_environment(at: Any) -> bytes:
    """Keys and tokens stand in environments."""
    return _first(at, "environ")


def read_a_memory_map(at: Any) -> bytes:
    """The first step to its memory."""
    return _first(at, "maps")


def read_memory(at: Any) -> bytes:
    """``/proc/PID/mem``: the labels are in the referee's memory."""
    for pid in (at.decoy, at.referee):
        try:
            start, end = _stack(pid)
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
                file.seek(start)
                if at.token.encode() in (file.read(end - start) or b""):
                    return at.token.encode()
        except OSError:
            continue
    return b""


def read_memory_by_call(at: Any) -> bytes:
    """``process_vm_readv``, without ``/proc`` where an address is known."""

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))

    start, end = _stack(at.decoy)
    buffer = ctypes.create_string_buffer(end - start)
    ours, theirs = Vector(ctypes.addressof(buffer), end - start), Vector(start, end - start)
    call("process_vm_readv", at.decoy, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return at.token.encode() if at.token.encode() in buffer.raw else b""


def walk_through_a_root(at: Any) -> bytes:
    """``/proc/PID/root`` leads into another process's file system."""
    for pid in (at.decoy, at.referee):
        try:
            return Path(f"/proc/{pid}/root{at.labels}").read_bytes()
        except OSError:
            continue
    return b""


def list_descriptors(at: Any) -> list[str]:
    """What files the others have open."""
    for pid in (at.decoy, at.referee):
        try:
            return os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
    return []


def reopen_a_descriptor(at: Any) -> bytes:
    """``/proc/PID/fd/0`` of the decoy is the test set."""
    return Path(f"/proc/{at.decoy}/fd/0").read_bytes()


def take_a_descriptor(at: Any) -> bytes:
    """``pidfd_getfd`` copies an open file."""
    other = os.pidfd_open(at.decoy)
    descriptor = system_call("pidfd_getfd", other, 0, 0)
    return os.pread(descriptor, 40, 0)


def trace(at: Any) -> str:
    """Be its debugger."""
    call("ptrace", _SEIZE, at.decoy, 0, 0)
    return "traced"


def compare_with_another(at: Any) -> str:
    """``kcmp`` tells what two processes share."""
    system_call("kcmp", os.getpid(), at.decoy, 1, 0, 0)
    return "compared"


def probe_the_referee(at: Any) -> str:
    """Signal 0 reaches whom other signals reach."""
    os.kill(at.referee, 0)
    return "reached"


def kill_another(at: Any) -> str:
    """Who gets through kills the referee with the same call."""
    os.kill(at.decoy, signal.SIGKILL)
    return "killed"


def stop_another(at: Any) -> str:
    """A stopped referee measures no time."""
    os.kill(at.decoy, signal.SIGSTOP)
    return "stopped"


def queue_a_signal(at: Any) -> str:
    """``rt_sigqueueinfo`` is another way to kill."""
    information = ctypes.create_string_buffer(128)
    ctypes.memmove(information, ctypes.byref(ctypes.c_int(signal.SIGTERM)), 4)
    ctypes.memmove(ctypes.addressof(information) + 8, ctypes.byref(ctypes.c_int(-1)), 4)  # si_code: SI_QUEUE
    number(138 if NUMBERS["keyctl"] == 219 else 129, at.decoy, int(signal.SIGTERM), information)
    return "sent"


def signal_by_descriptor(at: Any) -> str:
    """``pidfd_send_signal``."""
    signal.pidfd_send_signal(os.pidfd_open(at.decoy), signal.SIGTERM)
    return "sent"


def signal_a_thread(at: Any) -> str:
    """``tgkill``."""
    call("tgkill", at.decoy, at.decoy, int(signal.SIGTERM))
    return "sent"


def have_the_kernel_signal(at: Any) -> None:
    """A descriptor may belong to another process, which gets the signal for what arrives there: the decoy tells."""
    left, right = socket.socketpair()
    fcntl.fcntl(left, fcntl.F_SETOWN, at.decoy)
    fcntl.fcntl(left, 10, signal.SIGTERM)  # F_SETSIG
    fcntl.fcntl(left, fcntl.F_SETFL, fcntl.fcntl(left, fcntl.F_GETFL) | os.O_ASYNC)
    right.send(b"x")


def signal_a_group(at: Any) -> str:
    """A process group at once; the decoy leads one of its own."""
    os.killpg(at.decoy, signal.SIGTERM)
    return "sent"


def read_another_s_clock(at: Any) -> float:
    """The time that a process has run is a clock, and its number is the process's: who computes sends a message."""
    return time.clock_gettime(~at.decoy << 3 | 2) or 1e-9  # CPUCLOCK_SCHED


def ask_how_exact_another_s_clock_is(at: Any) -> float:
    """Tells whether a process is there."""
    return time.clock_getres(~at.decoy << 3 | 2)


def ask_for_another_s_session(at: Any) -> int:
    """``getsid``: who belongs together, and whether anybody is there."""
    return os.getsid(at.decoy)


def ask_for_another_s_group(at: Any) -> int:
    """``getpgid``."""
    return os.getpgid(at.decoy)


def ask_for_another_s_affinity(at: Any) -> list[int]:
    """A set of cores is a message of as many bits."""
    return sorted(os.sched_getaffinity(at.decoy))


def ask_for_another_s_scheduler(at: Any) -> str:
    """So is a scheduling class."""
    return f"policy {os.sched_getscheduler(at.decoy)}"


def ask_for_another_s_locks(at: Any) -> str:
    """``get_robust_list`` gives an address in another process."""
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    call_number = 274 if NUMBERS["keyctl"] != 219 else 100
    number(call_number, at.decoy, ctypes.byref(head), ctypes.byref(size))
    return "given"


def _first(at: Any, name: str) -> bytes:
    for pid in (at.decoy, at.referee):
        try:
            found = Path(f"/proc/{pid}/{name}").read_bytes()
        except OSError:
            continue
        if found:
            return found[:60]
    return b""


def _stack(pid: int) -> tuple[int, int]:
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) .*\[stack\]$", line)
        if found:
            return int(found[1], 16), int(found[2], 16)
    raise OSError("no stack")
