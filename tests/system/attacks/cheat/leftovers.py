"""Being there when the next worker comes: daemons, files, shared memory, queues."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

from calls import call


def leave_a_daemon(at: Any) -> str:
    """A grandchild in a session of its own; it ends by itself after half a minute."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(30)
        os._exit(0)
    os.waitpid(child, 0)
    return "daemon"


def leave_a_child(at: Any) -> str:
    """A child that holds the output and the socket open; it ends by itself after half a minute."""
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    return "child"


def leave_a_session(at: Any) -> str:
    """Get out of the process group that is killed; a worker leads one, and cannot."""
    os.setpgid(0, os.getppid())
    return "left the group"


def leave_a_shared_segment(at: Any) -> str:
    """System V memory is there until somebody removes it."""
    return f"segment {call('shmget', at.key, ctypes.c_size_t(4096), 0o1666)}"


def leave_a_semaphore(at: Any) -> str:
    """System V semaphores hold numbers."""
    return f"semaphore {call('semget', at.key, 1, 0o1666)}"


def leave_a_queue(at: Any) -> str:
    """System V queues hold messages."""
    return f"queue {call('msgget', at.key, 0o1666)}"


def leave_a_posix_queue(at: Any) -> str:
    """POSIX queues do, too."""
    return f"queue {call('mq_open', f'/{at.token}'.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)}"


def leave_shared_memory(at: Any) -> str:
    """A file in ``/dev/shm``."""
    Path("/dev/shm", at.token).write_text("split 1: 0 1 1 0", encoding="utf-8")
    return "left"


def leave_a_temporary_file(at: Any) -> str:
    """Files as memory between cells."""
    for place in ("/tmp", "/var/tmp", at.scratch):
        try:
            Path(place, at.token).write_text("split 1: 0 1 1 0", encoding="utf-8")
        except OSError:
            continue
        return place
    return ""


def leave_a_key(at: Any) -> str:
    """The kernel keeps keys for users, not for processes."""
    from calls import NUMBERS, number

    add_key = 217 if NUMBERS["keyctl"] == 219 else 248
    return f"key {number(add_key, b'user', at.token.encode(), b'split 1', 7, -4)}"


def leave_a_message_in_a_lock(at: Any) -> str:
    """Whether a file is locked is a bit that others can read."""
    import fcntl

    descriptor = os.open(at.labels, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return "locked"
