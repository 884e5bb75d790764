"""A disk that is full or may not be written, and a network that is not there: `harness evaluate` as people run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from outer_models import write_submission
from test_kills import check, outcomes

if TYPE_CHECKING:
    from pathlib import Path

SEARCH = "tune = search"


def private(script: str, *arguments: str, flags: tuple[str, ...] = ("-m", "--propagation", "private")) -> Any:
    """Run a shell script in namespaces of its own; skip where that is not allowed."""
    if shutil.which("unshare") is None:
        pytest.skip("no `unshare` here")
    probe = subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False)  # noqa: S607
    if probe.returncode:
        pytest.skip("namespaces are not permitted here")
    return subprocess.run(
        ["unshare", *flags, "sh", "-c", script, "sh", *arguments],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def command(store: Path, track: Path, submission: Path) -> list[str]:
    return [
        sys.executable, "-m", "harness.cli", "evaluate", str(submission), "--track", str(track), "--store", str(store),
        "--json",
    ]  # fmt: skip


@pytest.fixture
def undisturbed(tmp_path: Path, tiny_track: Path) -> Any:
    """What an evaluation comes to when nothing happens, and the submission."""
    submission, path = write_submission(tmp_path, SEARCH), tmp_path / "undisturbed.db"
    subprocess.run(
        command(path, tiny_track, submission),
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return outcomes(path), submission


def test_an_evaluation_that_fills_the_disk_says_so_and_goes_on_when_there_is_room(
    undisturbed: Any, tmp_path: Path, tiny_track: Path
) -> None:
    expected, submission = undisturbed
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    script = """
mount -t tmpfs -o size=200k tmpfs "$1" || { echo mount: not permitted >&2; exit 77; }
disk="$1"; kept="$2"; shift 2
"$@" > "$kept/first.txt" 2>&1; echo $? >> "$kept/first.txt"
mkdir "$kept/full"; cp "$disk"/* "$kept/full/"
mount -o remount,size=20m "$disk"
"$@" > "$kept/second.txt" 2>&1; echo $? >> "$kept/second.txt"
cp "$disk"/* "$kept/"
"""
    done = private(script, str(disk), str(kept), *command(disk / "results.db", tiny_track, submission))
    if done.returncode == 77:
        pytest.skip("mounting a small disk is not permitted here")
    assert done.returncode == 0, done.stderr
    first, second = ((kept / name).read_text(encoding="utf-8") for name in ("first.txt", "second.txt"))
    assert first.endswith("1\n"), first
    assert "full" in first
    assert "Traceback" not in first
    assert second.endswith("0\n"), second
    check(kept / "full" / "results.db")
    check(kept / "results.db")
    assert outcomes(kept / "results.db") == expected


def test_a_results_directory_that_cannot_be_written_is_one_message(tmp_path: Path, tiny_track: Path) -> None:
    submission, place = write_submission(tmp_path, SEARCH), tmp_path / "results"
    place.mkdir()
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; shift; exec "$@"'
    done = private(script, str(place), *command(place / "results.db", tiny_track, submission))
    if done.returncode == 77:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 1
    assert "--store" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(place.iterdir()) == []


OFFLINE = """
import sys
def deny(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto"):
        raise PermissionError(f"{event} {arguments!r} during an evaluation")
sys.addaudithook(deny)
from harness.cli import main
sys.argv = ["harness", *sys.argv[1:]]
main()
"""


def test_an_evaluation_makes_no_connection_and_looks_up_no_name(
    undisturbed: Any, tmp_path: Path, tiny_track: Path
) -> None:
    """The referee's own sockets are denied; the worker's are the sandbox's business."""
    expected, submission = undisturbed
    path = tmp_path / "offline.db"
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *command(path, tiny_track, submission)[3:]],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert outcomes(path) == expected


def test_the_denial_of_sockets_works() -> None:
    """The test above relies on this: the same program fails when it connects."""
    program = OFFLINE.partition("from harness.cli")[0] + 'import socket\nsocket.create_connection(("127.0.0.1", 9), 1)'
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "during an evaluation" in done.stderr


def test_an_evaluation_needs_no_network_interface(undisturbed: Any, tmp_path: Path, tiny_track: Path) -> None:
    """In a network namespace without so much as a loopback address, referee and worker both."""
    expected, submission = undisturbed
    path = tmp_path / "nowhere.db"
    done = private('exec "$@"', *command(path, tiny_track, submission), flags=("-n",))
    assert done.returncode == 0, done.stderr
    assert outcomes(path) == expected
