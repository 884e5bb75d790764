"""Changing what a submission must not change: labels, database, packages, its own folder, other processes."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from pathlib import Path
from typing import Any

from calls import call


def append_to_the_labels(at: Any) -> str:
    """Add a line."""
    with open(at.labels, "a", encoding="utf-8") as file:
        file.write("x")
    return "written"


def truncate_the_labels(at: Any) -> str:
    """Cut the file by its path, without opening it."""
    os.truncate(at.labels, 1)
    return "truncated"


def delete_the_labels(at: Any) -> str:
    """Remove the file."""
    os.unlink(at.labels)
    return "deleted"


def rename_the_labels(at: Any) -> str:
    """Move the file away."""
    os.rename(at.labels, at.labels + ".moved")
    return "renamed"


def change_the_labels_mode(at: Any) -> str:
    """Make the file unreadable for the referee."""
    os.chmod(at.labels, 0o600)
    return "mode changed"


def change_the_labels_time(at: Any) -> str:
    """Set the file's time."""
    os.utime(at.labels, (1, 1))
    return "time changed"


def mark_the_labels(at: Any) -> str:
    """Leave an extended attribute on the file."""
    os.setxattr(at.labels, "user.cheat", b"1")
    return "attribute set"


def append_to_the_database(at: Any) -> str:
    """Damage the results."""
    with open(at.store, "ab") as file:
        file.write(b"x")
    return "written"


def write_into_own_folder(at: Any) -> str:
    """The next worker of this submission would read it: memory between cells."""
    with open(Path(__file__).parent / "submission.py", "a", encoding="utf-8") as file:
        file.write("# was here\n")
    return "written"


def make_a_file_in_own_folder(at: Any) -> str:
    """Memory between cells."""
    (Path(__file__).parent / "notes.txt").write_text("split 1: 0 1 1 0", encoding="utf-8")
    return "written"


def write_into_site_packages(at: Any) -> str:
    """A ``.pth`` file runs in every Python that starts, the referee's too."""
    Path(at.site, f"{at.token}.pth").write_text("import this", encoding="utf-8")
    return "written"


def write_into_the_harness(at: Any) -> str:
    """A module of the package runs in the referee."""
    Path(at.package, f"{at.token}.py").write_text("", encoding="utf-8")
    return "written"


def write_into_another_submission(at: Any) -> str:
    """Spoil a competitor."""
    with open(Path(at.other, "submission.py"), "a", encoding="utf-8") as file:
        file.write("raise SystemExit\n")
    return "written"


def write_anywhere(at: Any) -> list[str]:
    """Every place where programs write."""
    places = (
        at.scratch,
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/run",
        "/",
        os.getcwd(),
        os.environ.get("HOME", "/"),
        "/proc/self",
    )
    found = []
    for place in dict.fromkeys(places):
        try:
            (Path(place) / at.token).write_text(at.token, encoding="utf-8")
        except OSError:
            continue
        found.append(place)
    return found


def make_a_directory_anywhere(at: Any) -> list[str]:
    """A directory's name is a message, too."""
    found = []
    for place in (at.scratch, "/tmp", "/dev/shm"):
        try:
            (Path(place) / f"{at.token}.d").mkdir()
        except OSError:
            continue
        found.append(place)
    return found


def make_a_socket_or_a_pipe(at: Any) -> str:
    """Special files are files."""
    os.mkfifo(Path(at.scratch) / f"{at.token}.pipe")
    return "made"


def remove_the_data(at: Any) -> str:
    """Delete the whole directory."""
    shutil.rmtree(at.data)
    return "gone"


def limit_another_process(at: Any) -> str:
    """With no open files left, the referee is dead."""
    resource.prlimit(at.decoy, resource.RLIMIT_NOFILE, (4, 4))
    return "limited"


def slow_another_process_down(at: Any) -> str:
    """Lower its priority."""
    os.setpriority(os.PRIO_PROCESS, at.decoy, 19)
    return "reniced"


def move_another_process(at: Any) -> str:
    """Crowd it onto one processor."""
    os.sched_setaffinity(at.decoy, {max(os.sched_getaffinity(at.decoy))})
    return "moved"


def reschedule_another_process(at: Any) -> str:
    """Put it behind all others."""
    os.sched_setscheduler(at.decoy, os.SCHED_IDLE, os.sched_param(0))
    return "rescheduled"


def make_another_process_the_first_to_die(at: Any) -> str:
    """When memory runs out, the kernel looks at this number."""
    Path(f"/proc/{at.decoy}/oom_score_adj").write_text("1000", encoding="ascii")
    return "marked"


def write_another_process_memory(at: Any) -> str:
    """Change a running process's memory."""
    start = int(_stack(at.decoy).split("-")[0], 16)
    here, there = ctypes.create_string_buffer(1), _Vector(start, 1)
    own = _Vector(ctypes.addressof(here), 1)
    call("process_vm_writev", at.decoy, ctypes.byref(own), 1, ctypes.byref(there), 1, 0)
    return "written"


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _stack(pid: int) -> str:
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.endswith("[stack]"))
