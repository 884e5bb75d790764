"""Refusals, listings, and commands with nothing to do do not wait for torch or the model."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from evaluating import Watcher
from outer_models import write_submission

from harness.errors import SubmissionError
from harness.evaluation import known_plan
from harness.evaluation.engines import local
from harness.evaluation.engines.job import Job
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.run import Evaluation, keep, plan_known_before
from harness.lm import load
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(local.__file__).resolve().parents[3]
BBT = str(ROOT / "submissions" / "bbt")
WITHOUT_TORCH = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "transformers", "datasets"}:
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Refuses())
from harness.cli import main
"""
"""Begins a process in which an import of torch is an error."""
MANY = """
import contextlib, io, json

ended = []
for given in json.loads(sys.argv[1]):
    said, sys.argv = io.StringIO(), ["harness", *given]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        except RuntimeError as problem:
            code = str(problem)
    ended.append((code, said.getvalue()))
print(json.dumps(ended))
"""
"""Runs several commands in one such process, and says how each ended."""


def command(
    folder: Path, *given: str, program: str = WITHOUT_TORCH + "main()", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command where torch cannot be imported."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | more
    return subprocess.run(
        [sys.executable, "-c", program, *given],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )


REFUSED = [
    (["evaluate", BBT, "--config", "nope=1"], "no option 'nope'"),
    (["evaluate", BBT, "--config", "dim=0"], "option dim='0'"),
    (["evaluate", BBT, "--config", "sigma=x"], "a number is expected"),
    (["evaluate", BBT, "--task", "nope"], "no task 'nope'"),
    (["evaluate", BBT, "--split", "99"], "split 99 is in no chosen task"),
    (["evaluate", BBT, "--calls", "0"], "a positive number of calls"),
    (["evaluate", BBT, "--track", "nope"], "no track 'nope'"),
    (["evaluate", BBT, "--device", "tpu"], "cpu or cuda is needed"),
    (["evaluate", BBT, "--backend", "nope"], "torch, onnxruntime or openai is needed"),
    (["evaluate", BBT, "--sandbox", "Z"], "no tier 'Z'"),
    (["evaluate", BBT, "--data", "nowhere"], "no such directory"),
    (["evaluate", BBT, "--test-data", "nowhere"], "no such directory"),
    (["evaluate", BBT, "--model", "./nowhere"], "no such directory"),
    (["evaluate", BBT, "--p0", "nowhere"], "no pre-trained prompt is there"),
    (["evaluate", "nowhere"], "no submission.py there"),
    (["evaluate", str(ROOT / "submissions" / "lora")], "white-box reference"),
    (["plan", BBT, "--config", "nope=1"], "no option 'nope'"),
    (["plan", BBT, "--split", "99"], "split 99 is in no chosen task"),
    (["serve", "--task", "nope"], "no task 'nope'"),
    (["leaderboard", "--store", "nowhere.db"], "no such results database"),
]
LISTED = [["--help"], ["--version"], ["tracks"], ["tasks"], ["plan", BBT]]


def test_refusals_and_listings_work_without_torch(tmp_path: Path) -> None:
    commands = [given for given, _ in REFUSED] + LISTED
    done = command(tmp_path, json.dumps(commands), program=WITHOUT_TORCH + MANY, COLUMNS="1000")
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    for (given, wanted), (code, said) in zip(REFUSED, ended, strict=False):
        assert code in {1, 2}, (given, code, said)
        assert "error: " in said, given
        assert wanted in said, (given, said)
    for given, (code, said) in zip(LISTED, ended[len(REFUSED) :], strict=True):
        assert code == 0, (given, code, said)
        assert said


# ── a command that is finished ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def test_a_finished_command_never_imports_torch_and_one_that_is_not_does(tiny_track: Path, tmp_path: Path) -> None:
    place = write_submission(tmp_path, "tune = search")
    given = ["evaluate", str(place), "--track", str(tiny_track), "--store", "results.db", "--task", "qqp"]
    first = command(tmp_path, *given, program="from harness.cli import main; main()")
    assert first.returncode == 0, first.stderr
    again = command(tmp_path, *given)
    assert again.returncode == 0, again.stderr
    assert "1 of them finished before" in again.stderr
    assert "facts are in results.db" in again.stdout
    for more in (["--seed", "1"], ["--task", "sst2"]):
        assert "torch was imported" in command(tmp_path, *given, *more).stderr
    assert "torch was imported" in command(tmp_path, *given, OMP_NUM_THREADS="2").stderr
    (place / "submission.py").write_text((place / "submission.py").read_text() + "\n", encoding="utf-8")
    assert "torch was imported" in command(tmp_path, *given).stderr


def test_a_plan_known_before_is_the_plan_that_the_model_gives(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    track, submission = load_track(str(tiny_track)), find(write_submission(tmp_path, "tune = search"))
    prepared = Preparation(track, Overrides(seed=77))
    assert plan_known_before(prepared) is None
    plan = Evaluation(track, Overrides(seed=77), store, prepared).plan
    keep(prepared, plan)
    known = plan_known_before(Preparation(track, Overrides(seed=77)))
    assert known is not None
    assert (known.base, known.environments, known.numerics) == (plan.base, plan.environments, plan.numerics)
    peeked = known.peek(store, submission, {"step": "2"})
    assert store.runs() == []
    opened = plan.open(store, submission, {"step": "2"})
    assert (peeked.id, peeked.entry, len(peeked.todo)) == (opened.id, opened.entry, len(opened.todo))


def key(track: Path, **choices: Any) -> str | None:
    return known_plan.key_of(Preparation(load_track(str(track)), Overrides(**choices)))


def test_another_choice_machine_program_or_model_is_another_key(
    tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(tiny_track)
    assert before is not None
    assert key(tiny_track) == before
    assert len({before, key(tiny_track, seed=1), key(tiny_track, calls=3)}) == 3
    for name in ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "3")
            assert key(tiny_track) != before
    with monkeypatch.context() as patched:
        patched.setattr(known_plan, "package_version", lambda _: "0")
        assert key(tiny_track) != before
    model = Path(load_track(str(tiny_track)).model.source)
    weights = model / "model.safetensors"
    weights.touch()
    assert key(tiny_track) != before
    assert key(tiny_track, device="cpu") == key(tiny_track)


def test_a_kept_plan_that_cannot_be_read_or_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    plan = known_plan.KnownPlan(dataclasses.replace(a_key(), entry="e"), {"black-box": {}}, {})
    known_plan.write("k", plan)
    assert known_plan.read("k") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known_plan.write("k", plan)
    assert known_plan.read("k") == plan
    (known_plan.directory() / "k.json").write_text('{"base": 1}', encoding="utf-8")
    assert known_plan.read("k") is None


def test_only_the_newest_plans_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(known_plan, "_MOST", 3)
    for number in range(6):
        known_plan.write(str(number), known_plan.KnownPlan(a_key(), {}, {}))
        os.utime(known_plan.directory() / f"{number}.json", (number, number))
    known_plan.write("6", known_plan.KnownPlan(a_key(), {}, {}))
    assert {path.stem for path in known_plan.directory().iterdir()} == {"4", "5", "6"}


def a_key() -> Any:
    from made_up import key as made

    return made()


# ── what only a worker can tell ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model is an error."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(load, "load_model", fail)


POST_INIT = """
    def __post_init__(self):
        if self.step > 3:
            raise ValueError(f"step={self.step}; at most 3 fits")
"""


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        ({"step": "5"}, POST_INIT, r"entry: step=5.0; at most 3 fits$"),
        ({}, "    raise KeyError('at import')\n", r"(?s)cannot be imported or configured:\n.*KeyError: 'at import'"),
        ({}, "    import os; os._exit(3)\n", "the worker left with exit code 3"),
    ],
)
def test_a_worker_refuses_a_submission_before_the_model_is_loaded(
    tiny_track: Path, store: Store, tmp_path: Path, options: dict[str, str], change: str, said: str
) -> None:
    place = write_submission(tmp_path, "tune = search")
    source = (place / "submission.py").read_text(encoding="utf-8")
    marker = "    step: float = 1.0\n"
    (place / "submission.py").write_text(source.replace(marker, marker + change), encoding="utf-8")
    job = Job(load_track(str(tiny_track)), Overrides(), store, (find(place),), options)
    with pytest.raises(SubmissionError, match=said):
        local.run(job, Watcher())
    assert store.runs() == []


@pytest.mark.usefixtures("no_model")
def test_a_config_that_its_source_settles_starts_no_worker(
    tiny_track: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "try_config", lambda *_: pytest.fail("a worker was started"))
    job = Job(load_track(str(tiny_track)), Overrides(), store, (find(write_submission(tmp_path, "tune = search")),), {})
    with pytest.raises(AssertionError, match="the model was loaded"):
        local.run(job, Watcher())
