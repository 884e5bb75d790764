"""What a worker sees of a submission: the hashed bytes in a folder of their own, and nothing that is not hashed."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from harness.errors import SubmissionError
from harness.sandbox import snapshot as module
from harness.sandbox.allowlist import PACKAGE
from harness.sandbox.launch import NOBODY
from harness.sandbox.snapshot import as_given, snapshot
from harness.sandbox.submission import Submission, find


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for copies that every user may enter."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def mine(tmp_path: Path) -> Submission:
    place = tmp_path / "mine"
    unseen = ("helper/__pycache__/x.pyc", "README.md", ".DS_Store")
    for name in ("submission.py", "helper/__init__.py", "a/b/t.bin", *unseen):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    (place / "empty" / "message").mkdir(parents=True)
    (place / "a" / "b" / "t.bin").chmod(0o700)
    return find(place)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_holds_what_was_hashed_and_nothing_else(mine: Submission) -> None:
    with snapshot(mine) as folder:
        assert folder.name == "mine"
        assert files(folder) == {name: name.encode() for name in ("submission.py", "helper/__init__.py", "a/b/t.bin")}
        assert not (folder / "empty").exists()
        assert find(folder).sha256 == mine.sha256
    assert not folder.parent.exists()


def test_times_and_modes_say_nothing_and_nothing_is_writable(mine: Submission) -> None:
    with snapshot(mine) as folder:
        for path in (folder.parent, folder, *folder.rglob("*")):
            facts = path.stat()
            assert facts.st_mtime == 1_656_374_400
            assert stat.S_IMODE(facts.st_mode) == (0o550 if path.is_dir() else 0o440)
            assert facts.st_uid == os.geteuid()


def test_an_edit_after_the_folder_was_found_changes_nothing(mine: Submission) -> None:
    (mine.path / "submission.py").write_bytes(b"other")
    (mine.path / "a" / "b" / "t.bin").unlink()
    with snapshot(mine) as folder:
        assert files(folder)["submission.py"] == b"submission.py"
        assert (folder / "a" / "b" / "t.bin").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose workers are another user")
@pytest.mark.parametrize(("user", "reads"), [(NOBODY, True), (NOBODY - 1, False)])
def test_root_s_workers_can_read_it_and_no_other_user(mine: Submission, user: int, reads: bool) -> None:
    with snapshot(mine) as folder:
        done = subprocess.run(
            ["/bin/cat", folder / "a" / "b" / "t.bin"],
            user=user, group=user, extra_groups=[], capture_output=True, check=False,
        )  # fmt: skip
    assert (done.stdout == b"a/b/t.bin") == reads


def test_what_a_killed_referee_left_is_removed_and_what_is_in_use_is_not(
    mine: Submission, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = temporary / "harness-snapshot-dead" / "mine"
    abandoned.mkdir(parents=True)
    abandoned.chmod(0o500)
    with snapshot(mine) as first, snapshot(mine) as second:
        assert abandoned.exists()  # it may have been made just now
        now = time.time()
        monkeypatch.setattr(module.time, "time", lambda: now + 3600)
        with snapshot(mine) as third:
            assert not abandoned.parent.exists()
            assert first.exists()
            assert second.exists()
            assert third.exists()
    assert list(temporary.iterdir()) == []


def test_a_folder_that_holds_the_harness_is_refused(mine: Submission) -> None:
    import dataclasses

    with (
        pytest.raises(SubmissionError, match="a folder that holds nothing else"),
        snapshot(dataclasses.replace(mine, path=PACKAGE.parent)),
    ):
        pass


def test_what_a_worker_says_names_the_author_s_own_folder(mine: Submission) -> None:
    with snapshot(mine) as folder:
        said = as_given(f'File "{folder}/submission.py", line 3', folder, mine)
    assert said == f'File "{mine.path}/submission.py", line 3'
