"""What attacks are after, made for one test: labels, a database, another worker, listeners. And what became of it.

Everything belongs to the user that the worker runs as, so that file modes and user ids are in nobody's way: what
blocks an attack is the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHEAT = Path(__file__).parent / "cheat"
NOBODY = 65534
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/")
_SYSTEM_V = {"shm": "shmctl", "sem": "semctl", "msg": "msgctl"}
_libc = ctypes.CDLL(None, use_errno=True)


class World:
    """A folder with something to steal in it, a decoy process, and listeners that nobody should reach."""

    def __init__(self, database: bytes, *, site: Path | None = None, package: Path | None = None) -> None:
        """Make it all; `database` is a results database. `site` and `package` are real ones, or else made up."""
        self.uid = os.getuid() or NOBODY
        self.token = f"cheat-{secrets.token_hex(8)}"
        self.key = secrets.randbits(30) | 1
        self.root = Path(tempfile.mkdtemp(prefix="attacked-"))
        self.root.chmod(0o755)
        for name in ("data/sst2", "other", "scratch", "site", "package"):
            (self.root / name).mkdir(parents=True)
        self.labels = self.root / "data" / "sst2" / "test.jsonl"
        self.labels.write_text(f'{{"texts": ["nobody has seen {secrets.token_hex(8)}"], "label": "positive"}}\n')
        self.store = self.root / "results.db"
        self.store.write_bytes(database)
        for name in ("submission", "submission_of_another"):
            (self.root / "other" / f"{name}.py").write_text("SECRET = 1\n")
        self.site, self.package = site or self.root / "site", package or self.root / "package"
        shutil.copytree(CHEAT, self.root / "cheat", ignore=shutil.ignore_patterns("__pycache__"))
        self._listen()
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, self.uid, self.uid)
        self._before = self._files()
        with self.labels.open("rb") as labels:
            self.decoy = subprocess.Popen(
                ["/bin/sleep", "120"], env={"TOKEN": self.token},
                stdin=labels, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                user=self.uid if os.getuid() == 0 else None, group=self.uid if os.getuid() == 0 else None,
                extra_groups=[] if os.getuid() == 0 else None, start_new_session=True,
            )  # fmt: skip
        self._decoy_before, self._self_before = _traits(self.decoy.pid), _traits(os.getpid())
        self._mounts = _mounts()

    def _listen(self) -> None:
        self.listeners = {
            "tcp": socket.create_server(("127.0.0.1", 0)),
            "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "unix": socket.socket(socket.AF_UNIX),
            "abstract": socket.socket(socket.AF_UNIX),
            "datagrams": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        }
        self.listeners["udp"].bind(("127.0.0.1", 0))
        self.listeners["unix"].bind(str(self.root / "socket"))
        self.listeners["abstract"].bind(f"\0{self.token}".encode())
        self.listeners["datagrams"].bind(f"\0{self.token}.d".encode())
        for name, each in self.listeners.items():
            each.setblocking(False)
            if name not in {"udp", "datagrams"}:
                each.listen(8)

    def situation(self, **more: Any) -> dict[str, Any]:
        """What the attacks are told: all that an attacker would like to know."""
        return {
            "labels": str(self.labels), "data": str(self.labels.parents[1]), "store": str(self.store),
            "other": str(self.root / "other"), "scratch": str(self.root / "scratch"), "site": str(self.site),
            "package": str(self.package), "token": self.token, "key": self.key, "decoy": self.decoy.pid,
            "referee": os.getpid(), "tcp": self.listeners["tcp"].getsockname()[1],
            "udp": self.listeners["udp"].getsockname()[1], "unix": str(self.root / "socket"),
            "abstract": self.token, "datagrams": f"{self.token}.d",
        } | more  # fmt: skip

    def held(self) -> int:
        """A descriptor with the token behind it, which a child would inherit if it is not closed."""
        path = self.root / "held"
        path.write_text(self.token)
        self._before = self._files()
        descriptor = os.open(path, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        return descriptor

    def damage(self) -> list[str]:
        """What is not as it was made; processes and kernel objects that were left are removed."""
        time.sleep(0.05)  # signals and connections are on their way
        found = [*self._left_processes(), *self._left_objects(), *self._arrived()]
        after = self._files()
        found += [f"{path} is gone" for path in self._before.keys() - after.keys()]
        found += [f"{path} is new" for path in after.keys() - self._before.keys()]
        found += [
            f"{path} has changed" for path in self._before if after.get(path, self._before[path]) != self._before[path]
        ]
        places = {*_PLACES, str(self.site), str(self.package)} - {str(self.root / "site"), str(self.root / "package")}
        for place in places:
            for path in Path(place).glob(f"{self.token}*"):
                found.append(f"{path} was left")
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.decoy.poll() is not None:
            found.append(f"the decoy ended with {self.decoy.returncode}")
        elif (now := _traits(self.decoy.pid)) != self._decoy_before:
            found.append(f"the decoy was {self._decoy_before} and is {now}")
        if (own := _traits(os.getpid())) != self._self_before:
            found.append(f"the referee was {self._self_before} and is {own}")
        if _mounts() != self._mounts:
            found.append("something was mounted")
        return found

    def close(self) -> None:
        """Remove it all."""
        self.decoy.kill()
        self.decoy.wait()
        for each in self.listeners.values():
            each.close()
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.with_suffix(".printed").unlink(missing_ok=True)

    def _files(self) -> dict[str, Any]:
        """Content, mode, time and attributes of every file; the database's own side files aside."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.name.startswith("results.db-") or "__pycache__" in path.parts:
                continue
            facts = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            marks = tuple(os.listxattr(path, follow_symlinks=False))
            dated = (facts.st_mtime_ns, facts.st_nlink) if path.is_file() else ()
            found[str(path.relative_to(self.root))] = (content, facts.st_mode, dated, marks)
        return found

    def _arrived(self) -> list[str]:
        found = []
        for name, each in self.listeners.items():
            with contextlib.suppress(BlockingIOError):
                each.recv(100) if name in {"udp", "datagrams"} else each.accept()[0].close()
                found.append(f"something came by {name}")
        return found

    def _left_processes(self) -> list[str]:
        """Children that were inherited from workers: this process must be a subreaper."""
        found = []
        for child in children():
            if child == self.decoy.pid:
                continue
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{child}/stat").read_text()
                if line.rsplit(")", 1)[1].split()[0] != "Z":
                    found.append(f"process {child} was left: {line[:40]}")
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        return found

    def _left_objects(self) -> list[str]:
        found = []
        for kind, control in _SYSTEM_V.items():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
                    key, number = line.split()[:2]
                    if int(key) == self.key:
                        found.append(f"System V {kind} {number} was left")
                        getattr(_libc, control)(int(number), *([0, 0] if kind == "sem" else [0, None]))
        if _libc.mq_unlink(f"/{self.token}".encode()) == 0:
            found.append("a message queue was left")
        return found


def children() -> set[int]:
    """Processes that are this one's children now."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def become_a_subreaper() -> None:
    """Orphans come to this process, which can then see that there are some."""
    _libc.prctl(36, 1, 0, 0, 0)


def _traits(pid: int) -> tuple[Any, ...]:
    """What others could change of a process: stopped or not, limits, priority, processors, policy."""
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    limits = hash(Path(f"/proc/{pid}/limits").read_text())
    score = Path(f"/proc/{pid}/oom_score_adj").read_text()
    place = tuple(sorted(os.sched_getaffinity(pid))), os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)
    return state == "T", limits, place, score


def _mounts() -> int:
    return len(Path("/proc/self/mountinfo").read_text().splitlines())
