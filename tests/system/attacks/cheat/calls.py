"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
NUMBERS = {
    "keyctl": 219 if ARM else 250,
    "bpf": 280 if ARM else 321,
    "perf_event_open": 241 if ARM else 298,
    "userfaultfd": 282 if ARM else 323,
    "io_uring_setup": 425,
    "pidfd_getfd": 438,
    "clone3": 435,
    "clone": 220 if ARM else 56,
    "kcmp": 272 if ARM else 312,
    "process_madvise": 440,
    "process_mrelease": 448,
    "personality": 92 if ARM else 135,
    "fsopen": 430,
    "open_tree": 428,
}


def call(name: str, *arguments: Any) -> int:
    """A function of the C library; OSError where it returns -1."""
    return _checked(getattr(libc, name)(*arguments))


def system_call(name: str, *arguments: Any) -> int:
    """A system call by its number; OSError where it returns -1."""
    return number(NUMBERS[name], *arguments)


def number(which: int, *arguments: Any) -> int:
    """A system call of any number; all arguments are passed as machine words."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(libc.syscall(ctypes.c_long(which), *words))


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
