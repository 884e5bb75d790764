"""What a worker process has, what it lacks, and that it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiers import skip_where_missing

from harness.sandbox import best_tier, launch
from harness.tracks.tiers import TIERS, Tier
from harness.tracks.track import Limits

if TYPE_CHECKING:
    from outer_models import Arena

LIMITS = Limits(wall_s=60, memory_gb=1)
REPORT = """
def tune(lm, task, shots, rng, config):
    import json, resource
    yield Answer.of(task)
    fds = {}
    for fd in range(64):
        try:
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass
    limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("AS", "CPU", "NOFILE", "CORE")}
    facts = dict(env=dict(os.environ), fds=fds, limits=limits, cwd=os.getcwd(), argv=sys.argv, pid=os.getpid(),
                 group=os.getpgid(0), session=os.getsid(0), torch="torch" in sys.modules, path=sys.path)
    print(json.dumps(facts))
"""


@pytest.fixture
def inside(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a submission sees around itself."""
    monkeypatch.setenv("A_SECRET", "of the referee")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    descriptor = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        run = arena.run(REPORT)
    finally:
        os.close(descriptor)
    assert run.record.detail == ""
    return dict(json.loads(run.record.output))


def test_the_environment_is_scrubbed(inside: dict[str, Any]) -> None:
    names = {name for name in inside["env"] if not name.endswith("_NUM_THREADS")}
    assert names <= {"PATH", "LANG", "HOME", "LC_CTYPE", "PWD", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR"}
    assert inside["cwd"] == "/"
    assert "/somewhere" not in inside["path"]


def test_the_socket_is_the_only_descriptor_beside_the_standard_ones(inside: dict[str, Any]) -> None:
    sock = inside["argv"][1]
    assert inside["fds"][sock].startswith("socket:")
    assert inside["fds"]["0"] == "/dev/null"
    assert set(inside["fds"]) == {"0", "1", "2", sock}


def test_limits_hold_and_cannot_be_raised(inside: dict[str, Any], arena: Arena) -> None:
    limits = arena.track.limits
    assert inside["limits"]["AS"] == [int(limits.memory_gb * 2**30)] * 2
    assert inside["limits"]["NOFILE"] == [limits.open_files] * 2
    assert inside["limits"]["CORE"] == [0, 0]
    assert inside["limits"]["CPU"][0] == inside["limits"]["CPU"][1] >= limits.wall_s


def test_the_worker_leads_a_session_of_its_own_and_is_gone_afterwards(inside: dict[str, Any]) -> None:
    assert inside["group"] == inside["session"] in {1, inside["pid"]}
    assert inside["group"] != os.getpgid(0)
    children = [task / "children" for task in Path("/proc/self/task").iterdir()]
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for each in children for pid in each.read_text().split()]
    assert not [command for command in commands if "confine.py" in command]


def test_the_worker_needs_no_torch(inside: dict[str, Any]) -> None:
    assert not inside["torch"]


def test_too_many_open_files_fail(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            held = [open("/dev/null") for _ in range(1000)]
    """)
    assert run.status == "crashed"
    assert "Too many open files" in run.record.detail


def test_a_worker_without_a_job_leaves_by_itself() -> None:
    worker = launch.start(LIMITS, None, best_tier.best().tier)
    left = worker.end(20)
    assert left.code == 1
    assert "harness evaluate" in left.output
    assert worker.end(0) is left


def test_a_worker_that_stays_is_killed_at_once() -> None:
    worker = launch.start(LIMITS, None, best_tier.best().tier)
    worker.sock.sendall(b"\x05")  # it waits for the rest
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    started = time.monotonic()
    left = worker.end(0.1)
    assert left.code == -signal.SIGKILL
    assert time.monotonic() - started < 20


def test_sources_are_compiled_anew_and_no_cached_file_is_read_or_written(arena: Arena) -> None:
    folder = arena.submission("import helper\ntune = helper.tune")
    (folder / "helper.py").write_text(
        "from submission import *\ndef tune(lm, task, shots, rng, config):\n    raise KeyError('old')\n"
    )
    import py_compile

    for name in ("helper", "submission"):
        py_compile.compile(str(folder / f"{name}.py"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    cached = {path: path.read_bytes() for path in (folder / "__pycache__").iterdir()}
    (folder / "helper.py").write_text(
        "from harness import Answer\ndef tune(lm, task, shots, rng, config):\n    yield Answer.of(task)\n"
    )
    run = arena.run("import helper\ntune = helper.tune")
    assert run.status == "ok"
    assert {path: path.read_bytes() for path in (folder / "__pycache__").iterdir()} == cached


REFEREE = """
import sys, time
from harness.sandbox import launch
from harness.tracks.track import Limits
worker = launch.start(Limits(wall_s=60, memory_gb=1), None, sys.argv[1])
print(worker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("tier", TIERS)
def test_the_worker_dies_within_a_second_of_its_referee(tier: Tier) -> None:
    skip_where_missing(tier)
    with subprocess.Popen([sys.executable, "-c", REFEREE, tier], stdout=subprocess.PIPE, text=True) as referee:
        assert referee.stdout is not None
        pid = int(referee.stdout.readline())
        assert alive(pid)
        referee.send_signal(signal.SIGKILL)
    until = time.monotonic() + 1
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
