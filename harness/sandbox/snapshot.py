"""Makes the private copy of a submission that a worker sees: only the hashed bytes, read-only.

So the code that runs is the code that was hashed. Compiled files, caches and other files in the author's folder are
not copied. An edit between two cells changes nothing. Times, modes and empty folders, which the digest does not cover,
carry no information.
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
"""A copy that is newer than this number of seconds may not be locked yet."""


@contextlib.contextmanager
def snapshot(submission: Submission) -> Iterator[Path]:
    """Write a submission's bytes into a new private folder, which is removed afterwards.

    Args:
        submission: as `harness.sandbox.submission.find` read it. Its folder is not read again.

    Yields:
        The folder of the copy, with the submission's name. Only the referee's user can read it, and the user of root's
        workers.

    Raises:
        SubmissionError: the folder holds files that a submission must not see.
        OSError: the copy cannot be written.
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
    """Text from a worker, with the author's folder in place of the copy's folder.

    Args:
        text: a traceback, or the worker's output.
        folder: the folder that `snapshot` yielded.
        submission: the submission that was copied.

    Returns:
        The text. Its paths to lines of code are those of the author's files.
    """
    return text.replace(str(folder), str(submission.path))


def _freeze(path: Path) -> None:
    """Make the copy read-only. Root's workers run as another user, who reads it by the group and owns nothing."""
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
    """Remove the copies of referees that were killed. These copies are no longer locked."""
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
