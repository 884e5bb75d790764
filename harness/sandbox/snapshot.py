"""The private copy of a submission that a worker sees: made of the hashed bytes, read-only, with nothing else in it.

What runs is therefore what was hashed. Compiled files, caches and whatever else lies in the author's folder are not
there, an edit between two cells changes nothing, and times, modes and empty folders, which the digest does not cover,
say nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.sandbox.allowlist import check_alone
from harness.sandbox.launch import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.sandbox.submission import Submission

_PREFIX = "harness-snapshot-"
_WHEN = 1_656_374_400
"""The time of every file and folder, 28 June 2022."""
_YOUNG_S = 60.0
"""One that was made so recently may not be locked yet."""


@contextlib.contextmanager
def snapshot(submission: Submission) -> Iterator[Path]:
    """Write a submission's bytes into a new private folder, to be removed afterwards.

    Args:
        submission: as `harness.sandbox.submission.find` read it; its folder is not looked at again.

    Yields:
        The folder of the copy, with the submission's name. Whoever runs the referee can read it, and so can the user
        that root's workers run as; nobody else.

    Raises:
        SubmissionError: the folder holds what a submission must not see.
        OSError: it cannot be written.
    """
    check_alone(submission.path)
    _remove_abandoned()
    place = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = place / submission.name
        folder.mkdir(mode=0o700)
        for name, data in submission.files:
            path = folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
        for path in (*folder.rglob("*"), folder, place):
            _freeze(path)
        yield folder
    finally:
        _remove(place)
        os.close(lock)


def as_given(text: str, folder: Path, submission: Submission) -> str:
    """What a worker said, with the author's own folder in place of the copy's.

    Args:
        text: a traceback, or what it printed.
        folder: what `snapshot` gave.
        submission: whose copy it is.

    Returns:
        The text, in which lines of code are found where the author has them.
    """
    return text.replace(str(folder), str(submission.path))


def _freeze(path: Path) -> None:
    """Root's workers are another user: they read by their group, and own nothing."""
    if os.geteuid() == 0:
        os.chown(path, 0, NOBODY)
    path.chmod(0o550 if path.is_dir() else 0o440)
    os.utime(path, (_WHEN, _WHEN))


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):
        for path in (place, *place.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove copies of referees that were killed: theirs are not locked any more."""
    for place in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            facts = place.lstat()
            if facts.st_uid != os.geteuid() or time.time() - facts.st_ctime < _YOUNG_S:
                continue
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(place)
            finally:
                os.close(lock)
