"""A compressed database is read like any other one, and never written; a damaged one is told."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_audit import fill
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import InputError, StoreError
from harness.evaluation.predict import stored_answer
from harness.results.audit import audit
from harness.results.digests import left_out
from harness.results.packed import pack
from harness.results.store import Store
from tools import publish

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = sorted((ROOT / "leaderboard").glob("*.db.xz"))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    made = tmp_path / "results.db"
    fill(made)
    return made


def digest(path: Path) -> str:
    store = Store(str(path), create=False)
    try:
        found = audit(store)
    finally:
        store.close()
    assert found.findings == ()
    return found.digest


def test_a_compressed_copy_holds_the_same_facts(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.db.xz"
    pack(database, out)
    assert digest(out) == digest(database)
    assert out.stat().st_size < database.stat().st_size
    assert not list(tmp_path.glob("*.part"))
    found = CliRunner().invoke(app, ["audit", "--store", str(out)])
    assert found.exit_code == 0, found.output
    assert digest(out)[:40] in found.output


def test_answers_can_be_left_out_and_the_audit_says_so(database: Path, tmp_path: Path) -> None:
    """Seals, digest and predictions are the same; an answer that was changed is found all the same."""
    out = tmp_path / "copy.db.xz"
    pack(database, out, answers=False)
    assert digest(out) == digest(database)
    whole, thin = Store(str(database), create=False), Store(str(out), create=False)
    for run in whole.runs():
        for cell, published in zip(whole.cells(run.id), thin.cells(run.id), strict=True):
            assert {mark: list(said) for mark, said in cell.predictions.items()} == {
                mark: list(said) for mark, said in published.predictions.items()
            }
            for mark in cell.predictions:
                assert whole.answer(run.id, cell.task, cell.split, mark)
                assert thin.answer(run.id, cell.task, cell.split, mark) is None
            place = run.key.label, run.key.track, cell.task, cell.split
            if 1.0 in cell.predictions:
                with pytest.raises(InputError, match="without its bytes, as in a published database"):
                    stored_answer(thin, *place, other_model="model" in run.key.modified)
    whole.close()
    thin.close()
    told = CliRunner().invoke(app, ["audit", "--store", str(out)]).output
    assert "published without their bytes" in told
    assert "published without" not in CliRunner().invoke(app, ["audit", "--store", str(database)]).output


def test_an_answer_that_was_empty_from_the_start_was_not_left_out() -> None:
    """A white-box reference answers with no bytes; `harness predict` says so instead of "not at hand"."""
    of = {blob: hashlib.sha256(blob).hexdigest() for blob in (b"", b"answer")}
    assert not left_out(b"", of[b""])
    assert not left_out(b"answer", of[b"answer"])
    assert left_out(b"", of[b"answer"])


def test_nothing_is_written_to_a_compressed_database(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.db.xz"
    pack(database, out)
    before = out.read_bytes()
    with pytest.raises(StoreError, match="xz --decompress --keep"):
        Store(str(out))
    assert out.read_bytes() == before


def test_a_cut_or_foreign_file_is_an_error(database: Path, tmp_path: Path) -> None:
    out, cut, other = tmp_path / "copy.db.xz", tmp_path / "cut.db.xz", tmp_path / "other.db.xz"
    pack(database, out)
    cut.write_bytes(out.read_bytes()[:-100])
    other.write_bytes(b"no archive at all")
    for path in (cut, other):
        with pytest.raises(StoreError, match="not a complete xz file"):
            Store(str(path), create=False)
    with pytest.raises(StoreError, match="no such"):
        Store(str(tmp_path / "missing.db.xz"), create=False)


def test_a_changed_database_is_not_published(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the published file stays as it was."""
    out = tmp_path / "measured.db.xz"
    assert publish.main(["--store", str(database), "--out", str(out)]) == 0
    before = out.read_bytes()
    bad = shutil.copy(database, tmp_path / "bad.db")
    with closing(sqlite3.connect(bad, isolation_level=None)) as raw:
        raw.execute("UPDATE queries SET tokens = tokens + 1")
    with pytest.raises(SystemExit):
        publish.main(["--store", str(bad), "--out", str(out)])
    assert "findings" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*.xz")) == [out.name]


def test_a_copy_that_cannot_be_written_is_told_and_leaves_nothing(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not there is made; a full disk or ^C leaves no half of a file."""
    out = tmp_path / "new" / "folder" / "measured.db.xz"
    assert publish.main(["--store", str(database), "--out", str(out)]) == 0
    before = out.read_bytes()
    for problem in (OSError("no space left"), KeyboardInterrupt()):

        def full(*_: object, problem: BaseException = problem) -> None:
            raise problem

        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            publish.main(["--store", str(database), "--out", str(out)])
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        assert out.read_bytes() == before
    assert "cannot be written: no space left" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        publish.main(["--store", str(database), "--out", str(tmp_path / "file" / "x.db.xz")])
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_what_is_published_can_be_audited(path: Path) -> None:
    assert path.stat().st_size <= publish.LARGEST_MB << 20
    assert len(digest(path)) == 64
