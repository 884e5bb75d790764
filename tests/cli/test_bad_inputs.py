"""What people give by mistake, told before anything is run: options, files with a mark, a full disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.entrants import parsed
from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import MOST_ROWS, Preparation, check_budget
from harness.leaderboard.anytime import load_reference
from harness.leaderboard.tells import tells
from harness.tracks.tomlfile import ENCODING
from harness.tracks.track import load_track, tracks_dir

FULL = Path("/dev/full")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--levels", "--usage"], "--levels, --usage: each is shown instead of the ranking; give one"),
        (["--cost", "--trials"], "--cost, --trials: each is shown"),
        (["--trials", "--out", "x.csv"], "--out x.csv: --trials writes no such file"),
        (["--freeze", "house", "--out", "x.csv"], "--out x.csv: --freeze writes no such file"),
        (["--levels", "--format", "csv"], "--format csv: --levels is shown as a table or with --json"),
    ],
)
def test_what_a_view_of_the_leaderboard_would_ignore_is_refused(words: list[str], said: str) -> None:
    """A file that was asked for was not written, silently."""
    done = CliRunner().invoke(app, ["leaderboard", *words])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


@pytest.mark.parametrize("words", [["evaluate", "x"], ["leaks"]])
def test_an_option_that_means_something_of_its_own_keeps_its_bounds(words: list[str]) -> None:
    """A seed below 0 was a traceback of numpy where the command had a help text of its own for it."""
    done = CliRunner().invoke(app, [*words, "--seed", "-1"])
    assert done.exit_code == 2
    assert "greater than or equal to 0" in " ".join(done.output.split())


def test_an_option_that_is_given_twice_is_refused() -> None:
    """The last one won, silently."""
    with pytest.raises(InputError, match="--config dim is given twice, as '10' and '20'"):
        parsed(["dim=10", "step=1", "dim=20"])
    assert parsed(["dim=10", "step=dim=20"]) == {"dim": "10", "step": "dim=20"}


def test_a_budget_that_cannot_be_counted_is_refused_before_anything_is_loaded() -> None:
    """It was a traceback of the wire format that blamed the submission."""
    with pytest.raises(InputError, match=r"99,999,999 calls of 32 rows are 3,199,999,968 rows.*--calls 67,108,864"):
        Preparation(load_track("mini"), Overrides(calls=99_999_999))
    check_budget(MOST_ROWS // 32, 32)


def test_a_toml_file_may_begin_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    text = (tracks_dir() / "mini.toml").read_text(encoding="utf-8")
    own = tmp_path / "mini.toml"
    own.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_track(str(own)) == load_track("mini")
    wrong = text.replace('name = "mini"', 'name = "other"')
    own.write_bytes(b"\xef\xbb\xbf" + wrong.encode())
    with pytest.raises(InputError, match=r"mini\.toml:1: name is 'other'"):
        load_track(str(own))
    references = tmp_path / "references.toml"
    references.write_text("[mini]\nfingerprint = 'x'\n", encoding=ENCODING)
    assert load_reference("other", {}, references) is None
    references.write_text("[mini]\nfingerprint = 'x'\n", encoding="utf-8-sig")
    assert tells(load_track("mini"), None, references) is None


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [("tracks",), ("tracks", "--json"), ("--version",)])
def test_output_that_has_no_room_is_an_error_of_one_line(command: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *command],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: what was to be written has no room: No space left on device.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["leaks"], ["ablate", "submissions/bbt", "--vary", "dim=1"]])
def test_a_file_in_the_way_of_a_folder_is_told_before_anything_runs(tmp_path: Path, words: list[str]) -> None:
    """It was told after minutes, when the table was to be written."""
    (tmp_path / "taken").touch()
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "taken")])
    assert isinstance(done.exception, InputError)
    assert "this is a file, and a folder is needed" in str(done.exception)
