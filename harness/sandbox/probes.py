"""For `harness doctor`: which layers of isolation this machine has, and what would add the missing ones.

This module only explains. The tier is chosen by trying each one (`harness.sandbox.best_tier`).
"""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys

from harness.sandbox import bubblewrap
from harness.sandbox.confine import landlock_abi
from harness.sandbox.launch import filter_file

_WHY_NO_LANDLOCK = {
    errno.ENOSYS: "the kernel is older than 5.13 or was built without it, or this is gVisor",
    errno.EOPNOTSUPP: "the kernel has it switched off; boot with lsm=landlock,…",
    errno.EPERM: "the container's seccomp profile denies it; allow landlock_create_ruleset, _add_rule, _restrict_self",
}
_NO_NAMESPACES = (
    "allow user namespaces: sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 on Debian, "
    "an AppArmor profile for bwrap on Ubuntu"
)
_NO_NAMESPACES_IN_A_CONTAINER = (
    "a default container denies namespaces, and B is its best tier; for A give it a --security-opt that allows them"
)


def landlock() -> tuple[str, str]:
    """Fact and advice."""
    if sys.platform != "linux":
        return f"none on {platform.system()}", "run in a Linux virtual machine or container"
    abi = landlock_abi()
    if abi < 1:
        return f"none: {os.strerror(-abi)}", _WHY_NO_LANDLOCK.get(-abi, "allow the landlock system calls")
    if abi < 6:  # noqa: PLR2004
        return f"interface {abi}", "6 (Linux 6.12) also keeps signals in; here seccomp alone does"
    return f"interface {abi}", ""


def seccomp() -> tuple[str, str]:
    """Fact and advice."""
    found = filter_file()
    if found is None:
        return f"no filter for {platform.machine()} on {sys.platform}", "x86_64 and aarch64 Linux have one"
    return found.name, ""


def namespaces() -> tuple[str, str]:
    """Fact and advice."""
    found = bubblewrap.executable()
    if found is None:
        return "no bubblewrap", 'apt-get install bubblewrap, or pip install -e ".[sandbox]"'
    own = [] if os.geteuid() == 0 else ["--unshare-user"]
    tried = subprocess.run(
        [found, *own, "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    if tried.returncode == 0:
        return found, ""
    said = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    container = any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))
    return f"{found} does not work: {said[-1]}", _NO_NAMESPACES_IN_A_CONTAINER if container else _NO_NAMESPACES
