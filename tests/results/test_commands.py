"""`harness audit`, `harness migrate` and `harness replay` as they are typed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from evaluating import Watcher
from outer_models import write_submission
from test_audit import fill
from test_migrate import age
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import InputError, StoreError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "results.db"
    fill(made)
    return made


def test_an_audit_counts_what_it_saw_and_prints_the_digest(path: Path) -> None:
    done = run("audit", "--store", path)
    assert done.exit_code == 0
    assert "2 runs, 4 cells, 20 queries, 8 incumbents, 8 answers, 1 ruling; 8 scores recomputed" in done.stdout
    digest = done.stdout.rsplit(maxsplit=1)[-1]
    assert len(digest) == 64
    assert run("audit", "--store", path, "--expect", digest[:16]).exit_code == 0
    other = run("audit", "--store", path, "--expect", "0" * 64)
    assert other.exit_code == 1
    assert f"the digest of the database is {digest}" in other.stdout
    assert other.stdout.splitlines()[-1] == f"the database is as written; digest {digest}"
    assert "error: 1 difference from what was published" in other.stderr
    assert json.loads(run("audit", "--store", path, "--json").stdout)["digest"] == digest


def test_an_audit_names_what_was_changed_and_fails(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE queries SET tokens = 7 WHERE attempt = 2 AND number = 1")
    done = run("audit", "--store", path)
    assert done.exit_code == 1
    assert "sst2/1, attempt 2, query 1: breaks the chain" in done.stdout
    assert "not as written; digest " in done.stdout.splitlines()[-1]
    assert "published" not in done.stderr
    findings = done.stderr.removeprefix("error: ").strip()
    both = run("audit", "--store", path, "--expect", "0" * 64)
    assert f"error: {findings}, 1 difference from what was published" in both.stderr
    assert json.loads(run("audit", "--store", path, "--json").stdout)["wrong"]


def test_an_audit_tells_a_sound_database_from_a_leaderboard_that_is_not_its_own(path: Path, tmp_path: Path) -> None:
    published = tmp_path / "mini.csv"
    published.write_text("rank,submission,run\n1,bbt,f00d\n2,ajo,beef\n", encoding="utf-8")
    done = run("audit", "--store", path, "--csv", published)
    assert done.exit_code == 1
    assert "bbt (run f00d): only in the file" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("the database is as written; digest ")
    assert "error: 2 differences from what was published" in done.stderr
    assert "finding" not in done.stdout + done.stderr


def test_an_audit_counts_one_thing_in_the_singular(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    fill(path, runs=1, splits=1, queries=1)
    done = run("audit", "--store", path)
    assert "1 run, 1 cell, 2 queries, 2 incumbents, " in done.stdout
    assert "1 test set, " in done.stdout


def test_an_audit_of_no_database_makes_none(tmp_path: Path) -> None:
    assert isinstance(run("audit", "--store", tmp_path / "none.db").exception, InputError)
    assert not list(tmp_path.iterdir())


def test_a_database_of_version_1_is_migrated_by_the_command_its_refusal_names(path: Path) -> None:
    age(path)
    refused = run("audit", "--store", path).exception
    assert isinstance(refused, StoreError)
    command = str(refused).partition("harness migrate ")[2].split()
    done = run("migrate", *command)
    assert done.exit_code == 0
    assert f"the older file is {path}.v1" in done.stdout
    twice = run("migrate", *command)
    assert (twice.exit_code, twice.stdout) == (0, f"{path} is of version 5 already; nothing to do\n")
    again = run("audit", "--store", path)
    assert again.exit_code == 0
    assert "4 cells sealed when migrated" in again.stdout


def test_a_replay_compares_and_says_what_it_comes_to(tiny_track: Path, tmp_path: Path) -> None:
    folder, path = write_submission(tmp_path, "tune = search"), tmp_path / "results.db"
    store = Store(str(path))
    choices = Overrides(tasks=("sst2",), splits=(1,))
    Evaluation(load_track(str(tiny_track)), choices, store).run(find(folder), {}, Watcher())
    store.close()
    command = ("replay", "entry", "--track", tiny_track, "--store", path, "--submission", folder)
    done = run(*command, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"] == "reproduced"
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE queries SET sha256 = 'f00d' WHERE number = 2")
    done = run(*command)
    assert done.exit_code == 1
    assert "not reproduced" in done.stdout
