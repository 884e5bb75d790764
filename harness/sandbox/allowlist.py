"""The allow list of files that a worker can see. The referee computes it, and it is the same in every tier.

It holds the interpreter and its libraries, the packages that a submission may import with their requirements, the
modules of `harness` itself, and the submission's folder. Weights, tasks and all other installed files are not on the
list. Some of them lie in a directory that is on the list. Such a directory is *cut*: its other contents are listed
one by one.
"""

from __future__ import annotations

import dataclasses
import stat
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from harness.errors import SubmissionError
from harness.sandbox.submission import IMPORTABLE
from harness.tracks.packages import with_requirements
from harness.tracks.tasks import tasks_dir

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_OWN = ("numpy", "msgspec", "safetensors")  # packages that the worker's side of `harness` imports
_PARTS = ("blackbox", "contract", "sandbox", "solving", "__pycache__")
PACKAGE = Path(__file__).resolve().parents[1]
DEVICES = {"/dev/null": "write", "/dev/urandom": "read"}
"""Device files, and the access that a worker has to them."""
_FACTS = (  # facts about the machine, from which torch and OpenMP choose kernels and threads
    "/etc/ld.so.cache", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """The readable files, as absolute paths without symbolic links."""

    trees: tuple[Path, ...]
    """Files, and directories with their whole content, except those in `hidden`."""
    hidden: tuple[Path, ...]
    """Directories that are not readable. Some paths of `packages` may lie in them."""
    packages: tuple[Path, ...]
    """Files and directories of installed packages."""
    search: tuple[Path, ...]
    """Directories of packages, for ``sys.path``. The names in them can be listed."""
    own: Path | None = None
    """The submission's folder with its whole content; None for a worker that only tests a tier."""
    missing: tuple[str, ...] = ()
    """Modules in these directories that cannot be read. An import must not find them, as if they were not installed."""

    @property
    def read(self) -> list[Path]:
        """Paths that cover exactly the readable files, for systems that cannot exclude a part of a directory."""
        own = [] if self.own is None else [self.own]
        return [path for tree in self.trees for path in cut(tree, self.hidden)] + list(self.packages) + own

    @property
    def listed(self) -> list[Path]:
        """Directories in which imports search for names."""
        cuts = [parent for h in self.hidden for tree in self.trees for parent in _between(tree, h)]
        return list(dict.fromkeys([*self.search, *cuts]))


@cache
def base_view(more: tuple[str, ...] = ()) -> View:
    """The view without a submission. It takes half a second, once in a process.

    `more` are distributions that may be imported beside `IMPORTABLE`.
    """
    packages, search = _packages(more)
    base = {"platbase": sys.base_exec_prefix}  # in a virtual environment, too
    python = (Path(sysconfig.get_path(name, vars=base)).resolve() for name in ("stdlib", "platstdlib"))
    prefix = Path(sys.base_prefix).resolve()
    trees = dict.fromkeys([
        Path(sys.executable).resolve(), *python, *_libraries(prefix), *(p for p in map(Path, _FACTS) if p.exists()),
        PACKAGE,
    ])  # fmt: skip
    hidden = [child for child in PACKAGE.iterdir() if child.is_dir() and child.name not in _PARTS]
    for tree in trees:
        for name in ("site-packages", "dist-packages"):
            hidden += [tree / name, *tree.glob(f"python*/{name}")]
    hidden += search
    inside = dict.fromkeys(h for h in hidden if h.is_dir() and any(h.is_relative_to(tree) for tree in trees))
    allowed = {path.name.split(".")[0] for path in packages}
    there = {path.name.split(".")[0] for place in search for path in place.iterdir()}
    return View(tuple(trees), tuple(inside), packages, search, missing=tuple(sorted(there - allowed - {""})))


def view(submission: Path | None, packages: tuple[str, ...] = ()) -> View:
    """The view of one submission's worker; without a submission, that of a worker that only tests a tier.

    Args:
        submission: its folder, which holds only the files that its digest covers (`harness.sandbox.snapshot`).
        packages: distributions that the track allows beside `IMPORTABLE`.

    Raises:
        SubmissionError: the folder holds files that a submission must not see.
    """
    if submission is None:
        return base_view(packages)
    check_alone(submission)
    return dataclasses.replace(base_view(packages), own=submission)


def check_alone(folder: Path) -> None:
    """Refuse a submission's folder that also holds other things, such as this project.

    Raises:
        SubmissionError: the folder holds other things. The message says what to do.
    """
    if any(path.is_relative_to(folder) for path in (PACKAGE, secret(), *base_view().search)):
        raise SubmissionError(
            f"{folder} holds the harness, its tasks or installed packages, and a worker may read all of its own "
            "folder; give the submission a folder that holds nothing else"
        )


def secret() -> Path:
    """An existing file that must not be readable: labelled test texts, if there are some."""
    return next(tasks_dir().glob("*/mini/test.jsonl"), PACKAGE / "tracks" / "builtin" / "mini.toml")


@cache
def cut(tree: Path, hidden: tuple[Path, ...]) -> list[Path]:
    """Paths that cover `tree` without the paths in `hidden`."""
    if tree in hidden:
        return []
    if not any(h.is_relative_to(tree) for h in hidden):
        return [tree]
    return [path for child in sorted(tree.iterdir()) if not child.is_symlink() for path in cut(child, hidden)]


@cache
def open_to_all(path: Path) -> bool:
    """Whether every user can read a path, by its mode and those of the directories above it."""
    above = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return above and bool(path.stat().st_mode & stat.S_IROTH)


def _between(tree: Path, hidden: Path) -> list[Path]:
    """Directories from `tree` down to the one that holds `hidden`."""
    return [parent for parent in hidden.parents if parent.is_relative_to(tree)] if hidden != tree else []


def _libraries(prefix: Path) -> list[Path]:
    """Directories of shared libraries, and Python's own library."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or "none"
    narrow = [path for root in ("/lib", "/usr/lib") if (path := Path(root, multiarch)).is_dir()]
    wide = [Path(name) for name in ("/lib", "/usr/lib")] if not narrow else [Path("/usr/lib/locale")]
    found = [*narrow, *wide, Path("/lib64"), Path("/usr/lib64"), *Path("/lib").glob("ld-*.so*")]
    # A conda environment brings all its libraries along.
    found += [prefix / "lib"] if (prefix / "conda-meta").is_dir() else prefix.glob("lib/libpython*.so*")
    return list(dict.fromkeys(path.resolve() for path in found if path.exists()))


@cache
def importable(more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What a submission may import beside the standard library and `harness`, for people: ``numpy 2.3.4``.

    Args:
        more: distributions that the track allows beside those of every track.

    Returns:
        Each installed distribution with its version, and the name that is imported where it is another one.
    """
    names = [canonicalize_name(name) for name in (*IMPORTABLE, *more)]
    found = with_requirements(names)
    return tuple(_imported_as(name, found[name]) for name in dict.fromkeys(names) if name in found)


def _imported_as(name: str, each: Distribution) -> str:
    """A distribution with its version, and the modules that it has where none is called like it."""
    tops = sorted({top.removesuffix(".py") for top in _tops(each) if top.removesuffix(".py").isidentifier()})
    public = [top for top in tops if not top.startswith("_")]
    other = "" if name.replace("-", "_") in public or not public else f" ({', '.join(public)})"
    return f"{name} {each.version}{other}"


def _packages(more: tuple[str, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files and folders of the importable distributions and of all their requirements, and the directories of these."""
    found = with_requirements([*IMPORTABLE, *_OWN, *more])
    places = {name: Path(str(each.locate_file(""))).resolve() for name, each in found.items()}
    paths = {places[name] / top for name, each in found.items() for top in _tops(each)}
    return tuple(sorted(path for path in paths if path.exists())), tuple(dict.fromkeys(places.values()))


def _tops(each: Distribution) -> set[str]:
    """Names of the files and folders that a distribution puts into the directory of packages."""
    record = each.read_text("RECORD")
    if record is None:
        return set((each.read_text("top_level.txt") or each.metadata["Name"]).split())
    tops = {line.split("/", 1)[0].split(",", 1)[0].strip('"') for line in record.splitlines()}
    return {top for top in tops - {"", "..", "__pycache__"} if not top.endswith(".pth")}
