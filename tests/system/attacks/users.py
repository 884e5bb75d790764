"""How to start a driver as root or as an ordinary user, and never in the machine's own mount namespace as root."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Literal

from world import NOBODY

User = Literal["root", "user"]
TREE = Path(__file__).resolve().parents[3]

_WITHOUT = "--clear-groups --inh-caps=-all --bounding-set=-all"
_SETPRIV = f"setpriv --reuid {NOBODY} --regid {NOBODY} {_WITHOUT} env HOME=/nonexistent"
_BIND = """
set -e
closed=$1; shift
aside=$(mktemp -d); mount -t tmpfs tmpfs "$aside"; n=0
for place in $PLACES; do mkdir "$aside/$n"; mount --bind "$place" "$aside/$n"; n=$((n+1)); done
mount -t tmpfs -o mode=755 tmpfs "$closed"; n=0
for place in $PLACES; do mkdir -p "$place"; mount --bind "$aside/$n" "$place"; n=$((n+1)); done
exec SETPRIV "$@"
""".replace("SETPRIV", _SETPRIV)


def command(user: User, program: list[str]) -> list[str]:
    """The command that runs a program as a user; LookupError, with the reason, where this machine cannot."""
    if os.geteuid() != 0:
        if user == "root":
            raise LookupError("needs root")
        return program
    tools = [tool for tool in ("unshare", "setpriv") if shutil.which(tool) is None]
    if tools:
        raise LookupError(f"needs {tools[0]}, of util-linux")
    alone = ["unshare", "-m", "--propagation", "private"]
    if user == "root":
        return alone + program
    needed = [Path(sys.base_prefix).resolve(), Path(sys.prefix), TREE]
    closed = {top for place in needed if (top := _closed(place)) is not None}
    if not closed:
        return _SETPRIV.split() + program
    if len(closed) > 1:
        raise LookupError(f"{' and '.join(map(str, closed))} are closed to ordinary users, and Python is in there")
    (top,) = closed
    places = " ".join(str(place) for place in needed if place.is_relative_to(top))
    return [*alone, "env", f"PLACES={places}", "sh", "-c", _BIND, "sh", str(top), *program]


def _closed(place: Path) -> Path | None:
    """The topmost directory on the way that others cannot enter."""
    return next((top for top in reversed([place, *place.parents]) if not top.stat().st_mode & stat.S_IXOTH), None)
