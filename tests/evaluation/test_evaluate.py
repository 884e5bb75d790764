"""Plans, resumes, and survives being killed at any moment."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from evaluating import REFERENCE, SEARCH, SLOW, Watcher, check, events, kill_group
from made_up import key
from outer_models import ROWS, write_submission
from rich.console import Console

from harness.errors import DataError, InputError
from harness.evaluation.environment import environment_sha256
from harness.evaluation.overrides import Overrides
from harness.evaluation.progress import PlainProgress
from harness.evaluation.referee import Verdict
from harness.evaluation.run import Evaluation
from harness.lm import device
from harness.results.records import CellRecord
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.numerics import Numerics
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def evaluation(track: Path, store: Store, **choices: Any) -> Evaluation:
    return Evaluation(load_track(str(track)), Overrides(**choices), store)


def test_cells_are_all_tasks_in_their_first_split_then_in_their_second(tiny_track: Path, store: Store) -> None:
    made = evaluation(tiny_track, store)
    assert [(cell.task.name, cell.split) for cell in made.cells] == [("sst2", 1), ("qqp", 1), ("sst2", 2)]
    assert made.plan.base.modified == ()


def test_first_tokens_of_label_words_are_resolved_for_the_model_and_stored(
    tiny_track: Path, store: Store, tmp_path: Path
) -> None:
    """By the kit's wording: the model's own spelling of the first token is what a submission sees and asks for."""
    track = tmp_path / "tiny.toml"
    text = tiny_track.read_text(encoding="utf-8").split("[tasks.sst2]")[0].replace('"harness-2026"', '"kit-2022"')
    track.write_text(text + "[tasks.dbpedia]\ncalls = 2\nsplits = [1]\nshots = 1\ndev = 1\n", encoding="utf-8")
    made = evaluation(track, store)
    (cell,) = made.cells
    written = cell.file.task("kit-2022", "masked").words
    assert all(a.lower().startswith(b) and a != b for a, b in zip(written, cell.task.words, strict=True))
    made.lm.single_ids(cell.task.words)
    body = "def tune(lm, task, shots, rng, config):\n    lm.logits(None, shots.train.texts)\n    yield Answer.of(task)"
    run = made.run(find(write_submission(tmp_path, body)), {}, Watcher())
    (stored,) = store.cells(run)
    assert stored.status == "ok"
    assert stored.record.words == cell.task.words
    assert stored.record.template == " . {mask} News: {a}"


def test_finished_cells_are_skipped_and_progress_is_told(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    found = find(write_submission(tmp_path, SEARCH))
    first, second = Watcher(), Watcher()
    made = evaluation(tiny_track, store, tasks=("sst2",))
    run = made.run(found, {}, first)
    assert first.plans == [(2, 0)]
    assert first.cells == [("sst2", 1, "budget_exhausted"), ("sst2", 2, "budget_exhausted")]
    assert first.rows[-1] == ROWS
    assert first.rows == sorted(first.rows)
    assert made.run(found, {}, second) == run
    assert second.plans == [(2, 2)]
    assert second.cells == []
    assert len(store.attempts(run)) == 2


def test_an_interrupted_cell_starts_over_and_a_finished_one_does_not(
    tiny_track: Path, store: Store, tmp_path: Path
) -> None:
    found = find(write_submission(tmp_path, SEARCH))
    made = evaluation(tiny_track, store, tasks=("sst2",))

    class Impatient(Watcher):
        def spent(self, rows: int, note: Mapping[str, float]) -> None:
            if self.cells and rows > ROWS / 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(found, {}, Impatient())
    watcher = Watcher()
    run = made.run(found, {}, watcher)
    assert watcher.plans == [(2, 1)]
    assert watcher.cells == [("sst2", 2, "budget_exhausted")]
    assert [split for _, _, split in store.attempts(run)] == [1, 2, 2]
    stored = {cell.split: cell.attempt for cell in store.cells(run)}
    interrupted = next(n for n, _, split in store.attempts(run) if split == 2)
    assert stored[2] != interrupted
    again = store.ledger(stored[2])
    begun = store.ledger(interrupted)
    assert [row.sha256 for row in begun] == [row.sha256 for row in again][: len(begun)]
    check(Path(store.url), run, cells=2)


@pytest.mark.parametrize(
    ("choices", "modified"),
    [({"calls": 4}, ("calls",)), ({"seed": 7}, ()), ({"tasks": ("qqp",)}, ()), ({"splits": (2,)}, ())],
)
def test_what_was_replaced_is_part_of_the_run(
    tiny_track: Path, store: Store, choices: dict[str, Any], modified: tuple[str, ...]
) -> None:
    made = evaluation(tiny_track, store, **choices)
    assert made.plan.base.modified == modified
    if "calls" in choices:
        assert {cell.spec.calls for cell in made.cells} == {4}


def test_another_model_is_recorded_and_keeps_the_run_apart(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    model = str(load_track(str(tiny_track)).model.source)
    found = find(write_submission(tmp_path, SEARCH))
    runs = {
        evaluation(tiny_track, store, splits=(2,), **more).run(found, {}, Watcher()) for more in ({}, {"model": model})
    }
    assert len(runs) == 2
    assert {run.key.modified for run in store.runs()} == {(), ("model",)}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"tasks": ("mnli",)}, "no task 'mnli'; it has sst2, qqp"),
        ({"splits": (9,)}, "split 9 is in no chosen task"),
        ({"splits": (1, 9)}, "split 9 is in no chosen task"),
        ({"tasks": ("qqp",), "splits": (2,)}, "split 2 is in no chosen task"),
        ({"calls": 0}, "positive"),
        ({"calls": -5}, "positive"),
        ({"data": Path("/nowhere")}, "no such directory"),
    ],
)
def test_choices_that_make_no_sense_are_errors(
    tiny_track: Path, store: Store, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluation(tiny_track, store, **choices)


def on_a_gpu(track: Path, folder: Path, more: str = "") -> Path:
    """The tiny track, on a GPU."""
    path = folder / "tiny.toml"
    text = track.read_text(encoding="utf-8")
    changed = text.replace('device = "cpu"', 'device = "cuda"\ndevice_name = "NVIDIA H200"')
    path.write_text(changed + more, encoding="utf-8")
    return path


def test_a_run_on_another_device_is_stored_with_what_it_used(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    """It is no modified run, and the ranking goes by the device's name."""
    made = evaluation(on_a_gpu(tiny_track, tmp_path), store, tasks=("qqp",), device="cpu")
    assert (made.device, made.plan.base.modified) == ("cpu", ())
    made.run(find(write_submission(tmp_path, SEARCH)), {}, Watcher())
    (run,) = store.runs()
    assert run.key.device == "cpu"
    assert "gpu" not in run.environment


def test_a_track_on_a_gpu_asks_for_one(
    tiny_track: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before data or model are looked at."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = on_a_gpu(tiny_track, tmp_path)
    with pytest.raises(InputError, match=r"tiny runs on a CUDA device \(NVIDIA H200\).*--device cpu"):
        evaluation(path, store, data=Path("/nowhere"))


def test_the_numeric_profile_is_stored_and_is_no_part_of_the_runs_name(
    tiny_track: Path, store: Store, tmp_path: Path
) -> None:
    """The track's fingerprint has it already, where there is a table; without one, runs have the ids they had."""
    table = '\n[numerics]\nattention = "math"\nchunk_tokens = 512\n'
    for number, more in enumerate(("", table)):
        (tmp_path / f"{number}").mkdir()
        made = evaluation(on_a_gpu(tiny_track, tmp_path / f"{number}", more), store, tasks=("qqp",), device="cpu")
        assert made.lm.chunk_tokens == (512 if more else 4096)
        made.run(find(write_submission(tmp_path, SEARCH)), {}, Watcher())
    device.apply(Numerics())
    plain, tabled = store.runs()
    environment = dict(plain.environment)
    assert environment["numerics"] == {
        "dtype": "float32", "tf32": False, "attention": "sdpa", "deterministic": False, "threads": None,
        "chunk_tokens": 4096, "forward": "packed",
    }  # fmt: skip
    assert tabled.environment["numerics"] == environment["numerics"] | {"attention": "math", "chunk_tokens": 512}
    assert dataclasses.replace(plain.key, track_fingerprint=tabled.key.track_fingerprint) == tabled.key
    del environment["numerics"]
    assert plain.key.environment_sha256 == environment_sha256(environment)


def test_a_run_on_onnx_runtime_is_another_run_that_never_ranks(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    """It is told apart by what was replaced and by the environment, which has the runtime's version."""
    onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install -e ".[onnx]"')
    entry = find(write_submission(tmp_path, SEARCH))
    for backend in (None, "torch", "onnxruntime"):
        made = evaluation(tiny_track, store, tasks=("qqp",), backend=backend)
        made.run(entry, {}, Watcher())
    usual, other = store.runs()  # torch is the track's own: the same run
    assert (usual.key.modified, other.key.modified) == ((), ("backend",))
    assert other.environment["onnxruntime"] == onnxruntime.__version__
    assert other.environment["numerics"]["forward"] == "onnxruntime"
    again = {"modified": (), "environment_sha256": usual.key.environment_sha256}
    assert dataclasses.replace(other.key, **again) == usual.key


def test_a_backend_that_is_none_is_refused(tiny_track: Path, store: Store) -> None:
    with pytest.raises(InputError, match="--backend tensorflow: torch, onnxruntime or openai is needed"):
        evaluation(tiny_track, store, backend="tensorflow")


def test_a_data_directory_without_the_task_is_an_error(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        evaluation(tiny_track, store, data=tmp_path)


def write_reference(folder: Path) -> Path:
    place = folder / "reference"
    place.mkdir()
    (place / "submission.py").write_text(REFERENCE, encoding="utf-8")
    return place


def test_a_reference_runs_only_where_that_is_allowed(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    found, watcher = find(write_reference(tmp_path)), Watcher()
    with pytest.raises(InputError, match=r"without a sandbox.*never ranked.*--white-box"):
        evaluation(tiny_track, store).run(found, {}, watcher)
    assert store.runs() == []
    allowed = evaluation(tiny_track, store, white_box=True, tasks=("sst2",))
    run = allowed.run(found, {}, watcher)
    assert watcher.cells == [("sst2", 1, "ok"), ("sst2", 2, "ok")]
    (run,) = store.runs()
    assert run.key.access == "white-box"
    assert run.key.modified == ()
    assert allowed.run(found, {}, watcher) == run.id
    assert len(store.attempts(run.id)) == 2


def test_a_submission_stays_one_where_references_are_allowed(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    found = find(write_submission(tmp_path, SEARCH))
    runs = {
        evaluation(tiny_track, store, white_box=allowed, tasks=("qqp",)).run(found, {}, Watcher())
        for allowed in (True, False)
    }
    assert len(runs) == 1
    assert store.runs()[0].key.access == "black-box"


def test_access_makes_another_run_and_older_ids_stay() -> None:
    old = {
        name: value
        for name, value in dataclasses.asdict(key()).items()
        if name not in {"access", "external", "calls", "repeat", "team"}
    }
    assert key().id == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:16]
    assert key(access="white-box").id != key().id


# ── whole processes ──────────────────────────────────────────────────────────────────────────────────────────


def start(folder: Path, track: Path, submission: Path, *more: str) -> subprocess.Popen[str]:
    """`harness evaluate` in a process group of its own."""
    command = [sys.executable, "-m", "harness.cli", "evaluate", str(submission), "--track", str(track)]
    return subprocess.Popen(
        [*command, "--store", str(folder / "results.db"), "--json", *more],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_processes_on_one_store_make_one_outcome_per_cell(tiny_track: Path, tmp_path: Path) -> None:
    submission = write_submission(tmp_path, SLOW)
    both = [start(tmp_path, tiny_track, submission) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    store = Store(str(tmp_path / "results.db"))
    (run,) = [found.id for found in store.runs()]
    store.close()
    check(tmp_path / "results.db", run, cells=3)
    stored = [event for output in outputs for event in events(output) if event.get("stored")]
    assert len(stored) == 3


def test_the_command_line_refuses_a_reference_before_anything_is_loaded(tiny_track: Path, tmp_path: Path) -> None:
    place = write_reference(tmp_path)
    process = start(tmp_path, tiny_track, place)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--white-box" in output
    assert not (tmp_path / "results.db").exists()
    process = start(tmp_path, tiny_track, place, "--white-box", "--task", "qqp")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    (cell,) = (event for event in events(output) if event["event"] == "cell")
    assert (cell["status"], cell["access"]) == ("ok", "white-box")


def test_a_leaderboard_is_shown_as_soon_as_every_task_has_a_score(tiny_track: Path, tmp_path: Path) -> None:
    """Labelled as interim; not again by a command that takes up behind it, and not of a trial."""
    place = write_submission(tmp_path, "tune = search")
    shown = evaluated(tmp_path / "shown", tiny_track, place)
    before, interim, after = shown.partition(
        "interim leaderboard: every task of entry has a score, 1 cell of it still to run"
    )
    assert interim, shown
    assert "[2/3] qqp/1" in before
    assert after.index("+1 to run") < after.index("[3/3] sst2/2")
    store = Store(str(tmp_path / "shown" / "results.db"))
    assert [(task, split) for _, task, split in store.attempts(store.runs()[0].id)] == [
        ("sst2", 1),
        ("qqp", 1),
        ("sst2", 2),
    ]
    store.close()
    assert "interim" not in evaluated(tmp_path / "trial", tiny_track, place, "--calls", "2")
    evaluated(tmp_path / "two", tiny_track, place, "--split", "1")
    assert "interim" not in evaluated(tmp_path / "two", tiny_track, place)


def evaluated(folder: Path, track: Path, submission: Path, *more: str) -> str:
    """What `harness evaluate` says for people."""
    folder.mkdir(exist_ok=True)
    program = [sys.executable, "-m", "harness.cli", "evaluate", str(submission), "--track", str(track)]
    done = subprocess.run(
        [*program, "--store", "results.db", *more], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("finished", "ends", "told"),
    [
        ((), "sst2/1 qqp/1 sst2/2 qqp/2", [("a", 2)]),
        ((), "sst2/1 sst2/2 qqp/2 qqp/1", [("a", 1)]),  # a cluster ends them in any order
        (("sst2/1",), "qqp/1 sst2/2 qqp/2", [("a", 2)]),
        (("sst2/1", "qqp/1"), "sst2/2 qqp/2", []),
        (("sst2/1", "sst2/2", "qqp/2"), "qqp/1", []),
    ],
)
def test_the_first_round_is_told_once_and_only_if_more_is_to_come(
    finished: tuple[str, ...], ends: str, told: list[tuple[str, int]]
) -> None:
    heard: list[tuple[str, int]] = []
    progress = PlainProgress(Console(file=io.StringIO()), lambda entry, left: heard.append((entry, left)))
    cells: Any = {
        f"{task}/{split}": SimpleNamespace(task=SimpleNamespace(name=task, metric="accuracy"), split=split)
        for split in (1, 2)
        for task in ("sst2", "qqp")
    }
    record = CellRecord(rows_spent=1, train_rows=1, calls_total=1, tuning_s=1.0)
    todo = [cell for name, cell in cells.items() if name not in finished]
    progress.planned("a", list(cells.values()), todo)
    progress.planned("b", list(cells.values()), todo)
    for name in ends.split():
        progress.ended("a", cells[name], Verdict("ok", record, 0.5, stored=True))
    assert heard == told


NURSERY = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from evaluating import Watcher
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

path = sys.argv[3]
evaluation = Evaluation(load_track(sys.argv[2]), Overrides(), Store(path + ".unused"))
evaluation.store.close()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        evaluation.store = Store(path)
        evaluation.run(find(sys.argv[4]), {}, Watcher())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""
"""Loads the model once, then starts an evaluating process for every line it reads: many kills in little time."""


def kill_at_random(folder: Path, track: Path, kills: int, seed: int) -> None:
    """Start, kill the whole group somewhere between start and end, again and again; then let it finish."""
    chance, submission, path = random.Random(seed), write_submission(folder, SLOW), folder / "results.db"  # noqa: S311 - only the moments of kills
    program = [sys.executable, "-c", NURSERY, str(Path(__file__).parents[1]), str(track), str(path), str(submission)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers: set[int] = set()
    with subprocess.Popen(program, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for number in range(kills):
            print("start", file=nursery.stdin, flush=True)
            pid = int(nursery.stdout.readline())
            if number % 4:  # mostly wait until it does something, so that kills fall into cells
                grown(path, pid, chance.randrange(1, 8))
            time.sleep(chance.uniform(0.01, 0.25))
            workers |= descendants(pid)
            kill_group(pid)
            assert nursery.stdout.readline() == "ended\n"
        nursery.stdin.close()
    process = start(folder, track, submission)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    store = Store(str(path))
    (run,) = [found.id for found in store.runs()]
    assert len(store.attempts(run)) > 3
    store.close()
    check(path, run, cells=3)
    assert not [worker for worker in workers if "sandbox/confine.py" in command_line(worker)]


def grown(path: Path, pid: int, rows: int) -> None:
    """Wait until this many rows were added to the ledger, or the process ended."""

    def count() -> int:
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
                found = int(raw.execute("select count(*) from queries").fetchone()[0])
            raw.close()
        except sqlite3.Error:
            return 0
        return found

    start_at, until = count(), time.monotonic() + 30
    while command_line(pid) and count() < start_at + rows and time.monotonic() < until:
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return set()
    return {int(child) for child in found.split()}


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""


def test_killing_everything_at_random_loses_and_doubles_nothing(tiny_track: Path, tmp_path: Path) -> None:
    kill_at_random(tmp_path, tiny_track, kills=10, seed=1)


@pytest.mark.slow
def test_killing_everything_sixty_times_loses_and_doubles_nothing(tiny_track: Path, tmp_path: Path) -> None:
    for seed in range(6):
        (tmp_path / f"{seed}").mkdir()
        kill_at_random(tmp_path / f"{seed}", tiny_track, kills=10, seed=seed)


def test_two_whole_runs_are_equal_bit_for_bit(tiny_track: Path, tmp_path: Path) -> None:
    facts = []
    for name in ("one", "two"):
        folder = tmp_path / name
        process = start(folder, tiny_track, write_submission(folder, SEARCH), "--task", "sst2", "--split", "1")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        store = Store(str(folder / "results.db"))
        (run,) = [found.id for found in store.runs()]
        (cell,) = store.cells(run)
        digests = [row.sha256 for row in store.ledger(cell.attempt)]
        facts.append((digests, {mark: p.tolist() for mark, p in cell.predictions.items()}, cell.record.note))
        store.close()
    assert facts[0] == facts[1]


def test_another_budget_is_another_run(tiny_track: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "results.db"))
    made = [
        Evaluation(load_track(str(tiny_track)), Overrides(calls=calls), store).plan.base.id for calls in (None, 5, 6)
    ]
    assert len(set(made)) == 3
    store.close()
