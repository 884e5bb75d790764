"""A results database where nothing can be written: it is ranked, audited and merged from, and never changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import key

from harness.errors import StoreError
from harness.leaderboard.rank import rank
from harness.results.audit import audit
from harness.results.merge import merge
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task

TEST = load_test(load_task("sst2"), Source("embedded"))


def fill(path: Path) -> None:
    store = Store(str(path))
    attempt = store.begin(store.open_run(key("mine"), {"packages": {}}), "sst2", 1)
    kept = [KeptAnswer(1.0, 0, b"answer", np.array(TEST.labels))]
    attempt.finish("ok", CellRecord(rows_total=8, sandbox="made up"), examples_sha256(TEST), TEST.labels, kept)
    store.close()


def use(path: Path, other: Path) -> None:
    """Rank, audit and merge; then try to write."""
    store = Store(str(path), create=False)
    assert [entry.name for entry in rank(store, "tiny", "f", [("sst2", 1)]).entries] == ["mine"]
    assert audit(store).findings == ()
    target = Store(str(other))
    assert merge(store, target).cells == 1
    assert audit(target).digest == audit(store).digest
    with pytest.raises(StoreError, match="readonly database"):
        store.open_run(key("other"), {})
    store.close()
    target.close()
    with pytest.raises(StoreError, match=r"readonly|unable to open"):
        Store(str(path))  # to be written


def test_a_database_on_a_read_only_file_system_is_read(tmp_path: Path) -> None:
    place = tmp_path / "dvd, 100% full?"
    place.mkdir()
    fill(place / "results.db")
    if os.geteuid() != 0:
        place.chmod(0o555)
        (place / "results.db").chmod(0o444)
        use(place / "results.db", tmp_path / "other.db")
        place.chmod(0o755)
        return
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, for a mount that nobody else sees")
    mounts = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" "$3" "$1" "$4"'
    done = subprocess.run(
        [shutil.which("unshare") or "", "-m", "--propagation", "private", "sh", "-c", mounts, "sh",
         place, sys.executable, __file__, tmp_path / "other.db"],
        capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.iterdir()] == ["results.db"]


if __name__ == "__main__":
    use(Path(sys.argv[1]) / "results.db", Path(sys.argv[2]))
