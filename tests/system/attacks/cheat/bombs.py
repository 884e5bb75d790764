"""More than a submission's share: processes, threads, memory, disk, files. All are bounded and harm nobody."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from calls import call

_MIB = 1 << 20
_CHILDREN, _THREADS = 100, 400
_LARGEST = 64 * _MIB


def fork(at: Any) -> int:
    """One child is one too many."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def fork_many(at: Any) -> str:
    """A hundred at once; the bomb of the textbook has no bound."""
    children = []
    try:
        for _ in range(_CHILDREN):
            child = os.fork()
            if child == 0:
                signal.alarm(5)
                signal.pause()
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"{len(children)} children"


def start_a_program(at: Any) -> int:
    """``posix_spawn``."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    return 1 + os.waitpid(child, 0)[1]


def run_a_shell(at: Any) -> bytes:
    """As a library would, to ask for something."""
    return subprocess.run(["/bin/sh", "-c", "echo here"], capture_output=True, timeout=5, check=False).stdout


def become_a_program(at: Any) -> None:
    """Replace the worker by another program that keeps its socket; it prints the token if it runs."""
    os.execv("/bin/echo", ["echo", f"ran {at.token}"])


def run_a_program_from_memory(at: Any) -> None:
    """A program that is no file; it prints the token if it runs."""
    memory = os.memfd_create("program")
    os.write(memory, Path("/bin/echo").read_bytes())
    os.execve(memory, ["echo", f"ran {at.token}"], {})


def start_many_threads(at: Any) -> str:
    """Threads are tasks like processes, and cost the same."""
    threading.stack_size(64 << 10)
    stop, threads = threading.Event(), []
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=stop.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        return ""
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return f"{len(threads)} threads"


def take_memory(at: Any) -> str:
    """More than the limit, for oneself; never touched."""
    taken = mmap.mmap(-1, at.memory, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return f"{len(taken):,} bytes"


def take_shared_memory(at: Any) -> str:
    """Shared memory is counted elsewhere."""
    taken = mmap.mmap(-1, at.memory, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    return f"{len(taken):,} bytes"


def take_memory_as_a_file(at: Any) -> str:
    """A file in memory counts for no process."""
    memory = os.memfd_create("bomb")
    block = bytes(_MIB)
    for _ in range(_LARGEST // _MIB):
        os.write(memory, block)
    return f"{os.fstat(memory).st_size:,} bytes"


def take_a_sparse_file_in_memory(at: Any) -> str:
    """Its size first, its pages later."""
    memory = os.memfd_create("bomb")
    os.ftruncate(memory, _LARGEST)
    with mmap.mmap(memory, _LARGEST) as mapped:
        mapped[:_MIB] = bytes(_MIB)
    return f"{_LARGEST:,} bytes"


def take_a_shared_segment(at: Any) -> str:
    """System V memory outlives its maker."""
    segment = call("shmget", 0, ctypes.c_size_t(_LARGEST), 0o1600)
    call("shmctl", segment, 0, None)
    return f"{_LARGEST:,} bytes"


def fill_the_disk(at: Any) -> str:
    """64 MiB wherever there is a place."""
    for place in (at.scratch, "/tmp", "/dev/shm", "/var/tmp", "/run"):
        path = Path(place) / f"{at.token}.full"
        try:
            with open(path, "wb") as file:
                file.writelines(bytes(_MIB) for _ in range(_LARGEST // _MIB))
        except OSError:
            continue
        path.unlink()
        return f"{_LARGEST:,} bytes in {place}"
    return ""


def make_many_files(at: Any) -> str:
    """Names run out before bytes do."""
    for place in (at.scratch, "/tmp", "/dev/shm"):
        made = []
        try:
            for n in range(500):
                made.append(Path(place) / f"{at.token}.{n}")
                made[-1].touch()
        except OSError:
            continue
        finally:
            for path in made:
                path.unlink(missing_ok=True)
        return f"500 files in {place}"
    return ""


def open_many_files(at: Any) -> str:
    """More open files than the track allows."""
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(at.open_files + 1)]
    return f"{len(held)} files"


def raise_own_limits(at: Any) -> str:
    """What was taken away is taken back."""
    import resource

    for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            resource.setrlimit(kind, (soft, hard + 1))
            return f"limit {kind} raised"
    return "there is none" if sys.platform == "linux" else ""
