"""Reading what a submission must not see: test labels, weights, other submissions, the results database."""

from __future__ import annotations

import ctypes
import mmap
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from calls import call


def read_the_labels(at: Any) -> str:
    """Open the test set by its path."""
    return Path(at.labels).read_text(encoding="utf-8")


def map_the_labels(at: Any) -> bytes:
    """Map the test set into memory."""
    with open(at.labels, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        return mapped[:40]


def read_from_a_thread(at: Any) -> str:
    """A thread may have been left outside the walls."""
    read: list[str] = []

    def work() -> None:
        try:
            read.append(Path(at.labels).read_text(encoding="utf-8"))
        except OSError:
            return

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return "".join(read)


def list_the_data(at: Any) -> list[str]:
    """List the data directory."""
    return os.listdir(at.data)


def list_the_folder_above(at: Any) -> list[str]:
    """Look around from the submission's own folder."""
    return [name for name in os.listdir(Path(__file__).resolve().parents[1]) if name != Path(__file__).parent.name]


def stat_the_labels(at: Any) -> int:
    """The size of a file says something of what is in it."""
    return os.stat(at.labels).st_size


def read_through_own_root(at: Any) -> str:
    """``/proc/self/root`` and ``/proc/self/cwd`` are other names of the same files."""
    for way in ("/proc/self/root", "/proc/thread-self/root", "/proc/self/cwd"):
        path = Path(way + at.labels)
        try:
            return path.read_text(encoding="utf-8")
        except OSError:
            continue
    return ""


def read_relative_to_a_directory(at: Any) -> str:
    """A descriptor of ``/`` that was opened without reading may lead further than a path."""
    top = os.open("/", os.O_PATH)
    with open(os.open(at.labels.lstrip("/"), os.O_RDONLY, dir_fd=top), encoding="utf-8") as file:
        return file.read()


def hard_link_the_labels(at: Any) -> str:
    """A second name in a place that may be read."""
    name = Path(at.scratch) / "linked"
    os.link(at.labels, name)
    return name.read_text(encoding="utf-8")


def symbolic_link_to_the_labels(at: Any) -> str:
    """A link from a place that may be read."""
    name = Path(at.scratch) / "symbolic"
    name.symlink_to(at.labels)
    return name.read_text(encoding="utf-8")


def open_the_labels_by_handle(at: Any) -> bytes:
    """A file handle needs no path; the way out of early containers."""

    class Handle(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128))

    handle, mount = Handle(size=128), ctypes.c_int()
    call("name_to_handle_at", -100, at.labels.encode(), ctypes.byref(handle), ctypes.byref(mount), 0)
    descriptor = call("open_by_handle_at", os.open(at.data, os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)
    return os.read(descriptor, 40)


def read_the_miniatures(at: Any) -> str:
    """The embedded tasks' test sets lie beside the package."""
    return Path(at.tasks, "sst2", "mini", "test.jsonl").read_text(encoding="utf-8")


def read_the_weights(at: Any) -> bytes:
    """With weights, gradients are to be had."""
    for path in at.weights:
        try:
            with open(path, "rb") as file:
                return file.read(16)
        except OSError:
            continue
    return b""


def read_another_submission(at: Any) -> str:
    """See how the others do it."""
    return Path(at.other, "submission.py").read_text(encoding="utf-8")


def read_the_results(at: Any) -> list[Any]:
    """The database has the labels of every test set."""
    with sqlite3.connect(f"file:{at.store}?mode=ro", uri=True) as database:
        return database.execute("select * from test_sets").fetchall()
