"""One submission never ends the evaluation of the others, whatever it does."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from evaluating import SEARCH, Watcher, events
from outer_models import write_submission
from typer.testing import CliRunner

from harness.blackbox import memory
from harness.cli import app as cli
from harness.evaluation import referee
from harness.evaluation.engines import local
from harness.evaluation.engines.job import Job
from harness.evaluation.overrides import Overrides
from harness.leaderboard.rank import rank
from harness.leaderboard.watch import look
from harness.results.audit import audit
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TUNE = "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)\n    "
ONLY = ("--task", "qqp")
RUN: dict[str, tuple[str, str, str]] = {
    "import-error": ("import a_module_that_is_not_there", "crashed", "No module named 'a_module_that_is_not_there'"),
    "syntax-error": ("def tune(:", "crashed", "SyntaxError"),
    "null-bytes": ("tune = search\0", "crashed", "null bytes"),
    "exit-at-import": ("os._exit(7)", "crashed", "exit code 7"),
    "leave-at-import": ("sys.exit(0)", "crashed", "SystemExit"),
    "kill-at-import": ("os.kill(os.getpid(), 9)", "killed", ""),
    "abort-at-import": ("os.abort()", "crashed", "exit code -"),
    "raise-at-import": ("raise BaseException('no')", "crashed", "BaseException: no"),
    "nested": ("x = " + "(" * 100_000, "crashed", "Error"),
    "no-tune": ("nothing = 1", "crashed", "no function tune"),
    "no-config": ("tune = search\nConfig = 3", "crashed", "no dataclass Config"),
    "raises": (TUNE + "1 / 0", "crashed", "ZeroDivisionError"),
    "recursion": (TUNE + "f = lambda: f()\n    f()", "crashed", "RecursionError"),
    "exit": (TUNE + "os._exit(3)", "crashed", "exit code 3"),
    "kill": (TUNE + "os.kill(os.getpid(), 9)", "killed", ""),
    "hoard": (TUNE + "bytearray(1 << 40)", "out_of_memory", "MemoryError"),
    "no-answer": ("def tune(lm, task, shots, rng, config):\n    return\n    yield", "no_answer", ""),
    "no-generator": ("def tune(lm, task, shots, rng, config):\n    return 3", "crashed", "`yield answer`"),
    "other-answer": ("def tune(lm, task, shots, rng, config):\n    yield 3", "invalid_answer", "tune yielded int"),
    "noise": (TUNE + "os.write(1, bytes(range(256)) * 99)\n    raise ValueError('\\x1b[2J')", "crashed", "ValueError"),
    "junk": (TUNE + "lm._sock.sendall(b'junk' * 99)\n    time.sleep(9)", "protocol_error", "frame"),
    "dear": (TUNE + "yield Answer((Member('a ' * 2000 + task.template, task.words),) * 64)", "invalid_answer", ""),
    "space": (TUNE + "s = Subspace(10_000_000, (1.0,), 2, seed=1)\n    lm.logits(s.at(np.zeros(10_000_000)), "
              "shots.train.texts)", "out_of_memory", "MiB are free"),
}  # fmt: skip
"""Submissions that a worker meets: name, source, status of its cells, and what is told."""


def unread(folder: Path) -> dict[str, str]:
    """Submissions that cannot even be read, with what is told of each."""
    place = {name: write_submission(folder, SEARCH, name) for name in ("loop", "outside", "unnamed file", "accessible")}
    (place["loop"] / "data").symlink_to(place["loop"] / "data")
    (place["outside"] / "data").symlink_to("/etc/hostname")
    (place["accessible"] / "submission.py").write_text("access = 5\n", encoding="utf-8")
    with contextlib.suppress(OSError):  # some file systems refuse such names
        (place["loop"] / os.fsdecode(b"\xff")).write_bytes(b"")
    (folder / "empty").mkdir()
    white = write_submission(folder, 'access = "white-box"\ntune = search', "white")
    itself = folder / "itself"
    itself.symlink_to(itself)
    told = {
        str(place["loop"]): "in a circle", str(place["outside"]): "leads out of the folder",
        str(place["unnamed file"]): "cannot be a submission's name", str(place["accessible"]): "access must be",
        str(folder / "empty"): "no submission.py there", str(white): "white-box reference", str(itself): "",
    }  # fmt: skip
    return told | {str(folder / "nowhere"): "no submission.py there"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def evaluate(tiny_track: Path, tmp_path: Path, *arguments: object) -> Any:
    """Run the command in this process, into the store."""
    where = ("--track", str(tiny_track), "--store", str(tmp_path / "results.db"))
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments), *where])


def test_good_ones_are_ranked_whatever_the_bad_ones_between_them_do(
    tiny_track: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 256 << 20)
    good = [write_submission(tmp_path, SEARCH, name) for name in ("good-1", "good-2")]
    bad = [write_submission(tmp_path, source, f"bad-{name}") for name, (source, _, _) in RUN.items()]
    refused = unread(tmp_path)
    assert len(bad) + len(refused) > 20
    done = evaluate(tiny_track, tmp_path, good[0], *bad, *refused, good[1], good[0], *ONLY, "--json")
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr
    told = events(done.stdout)
    failed = {each["entry"]: each for each in told if each["event"] == "failed"}
    assert set(failed) == {f"bad-{name}" for name in RUN} | set(refused)
    for name, (_, status, _) in RUN.items():
        each = failed[f"bad-{name}"]
        assert each["cells"] == ["qqp/1"]
        assert each["status"] in ({"crashed", "out_of_memory"} if status == "killed" else {status}), each
    for path, why in refused.items():
        assert (failed[path]["status"], failed[path]["cells"]) == ("not run", [])
        assert why in failed[path]["why"]
    details = {run.key.entry: cell.record.detail for run in store.runs() for cell in store.cells(run.id)}
    for name, (_, _, why) in RUN.items():
        assert why in details[f"bad-{name}"], name
    ranking = rank(store, "tiny", load_track(str(tiny_track)).fingerprint, [("qqp", 1)])
    entries = {entry.name: entry for entry in (*ranking.entries, *ranking.elsewhere)}
    assert {"good-1", "good-2"} <= set(entries)
    assert len(entries) == len(RUN) + 2
    assert audit(store).findings == ()
    assert [cell for run in store.runs() for cell in store.open_cells(run.id)] == []


def test_an_option_that_one_of_several_refuses_is_a_status_of_its_cells(
    tiny_track: Path, tmp_path: Path, store: Store
) -> None:
    good, bad = write_submission(tmp_path, SEARCH, "good"), write_submission(tmp_path, SEARCH, "bad")
    source = (bad / "submission.py").read_text(encoding="utf-8")
    (bad / "submission.py").write_text(source.replace("step: float", "pace: float"), encoding="utf-8")
    done = evaluate(tiny_track, tmp_path, bad, good, *ONLY, "--config", "step=2")
    assert done.exit_code == 1
    assert "no option 'step'; Config has pace" in " ".join(done.stderr.split())
    ends = {run.key.entry: [cell.status for cell in store.cells(run.id)] for run in store.runs()}
    assert ends == {"bad[step=2]": ["crashed"], "good[step=2]": ["budget_exhausted"]}
    track = load_track(str(tiny_track))
    assert all(not each.open for each in look(store, track).runs), "nothing is shown as running"
    alone = evaluate(tiny_track, tmp_path, bad, *ONLY, "--config", "pace=fast")
    assert alone.exit_code == 1
    assert len(store.runs()) == 2, "one that is refused alone leaves nothing behind"


def test_what_failed_is_told_in_a_table_and_by_the_exit_code_also_when_it_failed_before(
    tiny_track: Path, tmp_path: Path
) -> None:
    bad = write_submission(tmp_path, TUNE + "raise ValueError('bad luck')", "bad")
    for _ in range(2):
        done = evaluate(tiny_track, tmp_path, bad)
        table = " ".join(done.stderr.partition("submission  status")[2].split())
        assert done.exit_code == 1
        assert "bad crashed qqp/1, sst2/1, sst2/2 ValueError: bad luck" in table
        assert "--again" in table


FLAKY = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    lm.logits(None, shots.train.texts)
    s = Subspace(1_000_000, (1.0,), 2, seed=1)
    lm.logits(s.at(np.zeros(1_000_000)), shots.train.texts)
"""


def test_again_runs_what_failed_and_only_that(
    tiny_track: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is short of memory at first. The failure is replaced only when the next outcome is there."""
    flaky, good = write_submission(tmp_path, FLAKY, "flaky"), write_submission(tmp_path, SEARCH, "good")
    monkeypatch.setattr(memory, "available", lambda: 256 << 20)
    assert evaluate(tiny_track, tmp_path, flaky, good, *ONLY).exit_code == 1
    run = next(run.id for run in store.runs() if run.key.entry == "flaky")
    assert evaluate(tiny_track, tmp_path, flaky, good, *ONLY, "--again").exit_code == 1, "it fails again"
    (cell,) = store.cells(run)
    assert (cell.status, cell.record.replaced) == ("out_of_memory", ("out_of_memory",))
    monkeypatch.undo()
    monkeypatch.setattr(referee, "load_test", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert evaluate(tiny_track, tmp_path, flaky, good, *ONLY, "--again").exit_code == 130
    assert [cell.status for cell in store.cells(run)] == ["out_of_memory"], "nothing is lost by an interruption"
    monkeypatch.undo()
    assert evaluate(tiny_track, tmp_path, flaky, good, *ONLY, "--again").exit_code == 0
    (cell,) = store.cells(run)
    assert (cell.status, cell.record.replaced) == ("ok", ("out_of_memory", "out_of_memory"))
    assert len(store.attempts(run)) == 4, "every try is on record"
    assert all(store.ledger(attempt) for attempt, _, _ in store.attempts(run)), "with what it was answered"
    assert evaluate(tiny_track, tmp_path, flaky, good, *ONLY, "--again").exit_code == 0
    assert len(store.attempts(run)) == 4, "what has not failed is never run again"
    assert audit(store).findings == ()


def test_an_error_of_this_program_ends_the_submission_that_met_it_alone(
    tiny_track: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = (find(write_submission(tmp_path, SEARCH, name)) for name in ("bad", "good"))
    usual = referee.fingerprint

    def broken(lm: Any, task: Any) -> Any:
        if not [run for run in store.runs() if run.key.entry == "good"]:
            raise ZeroDivisionError
        return usual(lm, task)

    monkeypatch.setattr(referee, "fingerprint", broken)
    watcher = Watcher()
    local.run(Job(load_track(str(tiny_track)), Overrides(tasks=("qqp",)), store, (bad, good), {}), watcher)
    assert set(watcher.given_up) == {"bad"}
    assert "ZeroDivisionError" in watcher.given_up["bad"]
    assert [run.key.entry for run in store.runs() if store.cells(run.id)] == ["good"]
