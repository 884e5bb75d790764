"""Reads submission folders. The referee only reads their bytes; their code runs only in the worker.

A white-box reference is the exception. If a folder's source says ``access = "white-box"``, the referee itself runs it,
but only if a person allowed that.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import math
import re
import sys
from dataclasses import dataclass
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from harness.errors import SubmissionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import CodeType

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST_FOLDER = 64 << 20
_LARGEST_SOURCE = 4 << 20
IMPORTABLE = ("numpy", "scipy", "cma", "nevergrad", "scikit-learn", "torch")
"""Distributions that submissions may import, with their requirements, beside `harness` and the standard library."""
PAGE = "README.md"
"""The page about a submission. It is not in the digest, so it can be rewritten, and a worker cannot read it."""
PRESETS = "presets.toml"
"""Named settings of a submission (`harness.sandbox.presets`). They are not in its digest either."""
_NAMED = 5
"""Largest number of submissions that a message names."""

Access: TypeAlias = Literal["black-box", "white-box"]


@dataclass(frozen=True)
class Submission:
    """A folder with a ``submission.py``, as the referee sees it."""

    name: str
    path: Path
    sha256: str
    """Digest over the names and bytes of every file that a worker can load: all but `PAGE` and `PRESETS`."""
    sha256_with_page: str = ""
    """The digest with the page included, as in the first release. It is used to find stored runs of that release."""
    access: Access = "black-box"
    """``white-box`` if it trains with the model's weights, as its source declares."""
    files: tuple[tuple[str, bytes], ...] = dataclasses.field(default=(), repr=False, compare=False)
    """Names and bytes that `sha256` covers. A worker gets these, even if the folder changes later."""
    presets: bytes = dataclasses.field(default=b"", repr=False, compare=False)
    """Content of the file `PRESETS`, see `harness.sandbox.presets`."""
    team: str = ""
    """Its team; empty if none was given."""

    def called(self, name: str | None, team: str | None) -> Submission:
        """The same submission with another name than its folder's, or with a team. None keeps the present one.

        Raises:
            SubmissionError: the name is not allowed.
        """
        if name is not None and not _NAME.fullmatch(name):
            raise SubmissionError(f"--as {name!r}: a letter, then letters, digits, '-' and '_', up to 64, are needed")
        whose = self.team if team is None else check_team(team)
        return dataclasses.replace(self, name=self.name if name is None else name, team=whose)


@dataclass(frozen=True)
class Solver:
    """An imported submission: in the worker, or in the referee if it is a white-box reference."""

    tune: Callable[..., Any]
    config: Any
    folder: Path
    """From which it was imported."""


def check_team(team: str) -> str:
    """Check the name of a team and return it. An empty name means no team.

    Raises:
        SubmissionError: the name has characters that are not allowed.
    """
    if team and not _TEAM.fullmatch(team):
        raise SubmissionError(
            f"--team {team!r}: a letter or digit, then letters, digits, '.', '-' and '_', up to 64, are needed"
        )
    return team


def find(path: str | Path) -> Submission:
    """Read a submission folder without running anything in it.

    Raises:
        SubmissionError: there is no such folder or no submission.py, the name is not allowed, the folder has too many
            bytes, or `access` cannot be read.
    """
    try:
        folder = Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as problem:  # circular links, or a name that no path can have
        raise SubmissionError(f"{path}: cannot be looked at: {problem}") from problem
    if folder.name == "submission.py":
        folder = folder.parent
    if not (folder / "submission.py").is_file():
        below = sorted(file.parent.name for file in folder.glob("*/submission.py"))
        more = ", ..." if len(below) > _NAMED else ""
        way_out = (
            f"name one of the folders in it: {', '.join(str(Path(path) / name) for name in below[:_NAMED])}{more}"
            if below
            else "`harness new NAME` makes one to start from"
        )
        raise SubmissionError(f"{folder}: no submission.py there{_alike(Path(path))}; {way_out}")
    if not _NAME.fullmatch(folder.name):
        raise SubmissionError(f"{folder.name!r} cannot be a submission's name; letters, digits, '-' and '_', up to 64")
    try:
        return of_files(folder, tuple(read_files(folder)))
    except (OSError, RuntimeError, ValueError) as problem:  # circular links, or a name that is not text
        raise SubmissionError(f"{folder}: cannot be read: {problem}") from problem


def _alike(path: Path) -> str:
    """Submissions beside the path, or in ``submissions``, whose names are like that of the path, for a message."""
    for meant in dict.fromkeys((path, Path("submissions") / path.name)):
        alike = did_you_mean(str(meant), (str(file.parent) for file in meant.parent.glob("*/submission.py")))
        if alike:
            return alike
    return ""


def of_files(folder: Path, files: tuple[tuple[str, bytes], ...]) -> Submission:
    """Make a submission from files that were read in `folder`, here or on another machine.

    Raises:
        SubmissionError: `access` cannot be read.
    """
    whole = tuple((name, data) for name, data in files if name != PRESETS)
    own = tuple((name, data) for name, data in whole if name != PAGE)
    access = _access(folder / "submission.py", dict(own)["submission.py"])
    return Submission(folder.name, folder, _sha256(own), _sha256(whole), access, own, dict(files).get(PRESETS, b""))


def entry_name(name: str, options: Mapping[str, str]) -> str:
    """Name on the leaderboard: the folder's name and the given options."""
    given = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}[{given}]" if given else name


def folder_of(entry: str) -> str:
    """The name of the submission's folder, from a name that `entry_name` made, with or without the team."""
    return entry.partition("[")[0].rpartition("/")[2]


def _sha256(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def read_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a submission folder with its bytes, ordered by name.

    Compiled files are left out, and so are files that desktop programs leave in folders.

    Raises:
        SubmissionError: a link leads out of the folder, to a folder or to nothing, a name is not UTF-8, or there are
            too many bytes.
    """
    from harness.tracks.litter import is_litter  # noqa: PLC0415 - a worker, which imports this module, has no tracks

    left = _LARGEST_FOLDER
    for file in sorted(folder.rglob("*")):
        within = file.relative_to(folder)
        if file.is_symlink():
            _check_link(file, folder)
        if not file.is_file() or "__pycache__" in within.parts or is_litter(within):
            continue
        name = within.as_posix()
        if not name.encode("utf-8", "ignore").decode() == name:  # bytes in another encoding appear as surrogates
            raise SubmissionError(f"{folder}: the name {name!r} is not UTF-8; rename the file")
        with file.open("rb") as stream:
            data = stream.read(left + 1)
        left -= len(data)
        if left < 0:
            raise SubmissionError(
                f"{folder}: more than {_LARGEST_FOLDER >> 20} MiB; a submission is code and small data"
            )
        yield name, data


def _check_link(file: Path, folder: Path) -> None:
    """Accept a link to a file of the same folder, which counts as that file once more. Refuse any other link."""
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError) as problem:  # Python's error for circular links
        raise SubmissionError(f"{file} is a link that leads nowhere or in a circle; remove it") from problem
    if not target.is_relative_to(folder):
        raise SubmissionError(f"{file} leads out of the folder; a submission is one folder, copy what it needs")
    if target.is_dir():
        raise SubmissionError(f"{file} is a link to a folder, which is not followed; copy what it needs")


def _access(file: Path, source: bytes) -> Access:
    """The value of a module-level ``access = "..."``; black-box without one, or if the source is not valid Python."""
    for statement in _statements(source):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if not any(isinstance(node, ast.Name) and node.id == "access" for node in targets):
            continue
        value = getattr(statement, "value", None)
        said = value.value if isinstance(value, ast.Constant) else None
        if said not in get_args(Access):
            raise SubmissionError(
                f'{file}:{statement.lineno}: access must be the plain string "black-box" or "white-box"'
            )
        return "white-box" if said == "white-box" else "black-box"
    return "black-box"


def statements(file: Path) -> list[ast.stmt]:
    """Top-level statements of a source file; none if it does not parse. The import will explain that error better."""
    with file.open("rb") as stream:
        return _statements(stream.read(_LARGEST_SOURCE + 1))


def _statements(source: bytes) -> list[ast.stmt]:
    """The statements of a source; none if it is so large that its syntax tree would fill the referee's memory."""
    if len(source) > _LARGEST_SOURCE:
        return []
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def check_source(found: Submission) -> None:
    """Check that `tune` and `Config` exist, without running anything.

    Raises:
        SubmissionError: one of them is missing.
    """
    names = {getattr(statement, "name", "") for statement in statements(found.path / "submission.py")}
    for name, kind in (("tune", "function tune(lm, task, shots, rng, config)"), ("Config", "dataclass Config")):
        if name not in names:
            raise SubmissionError(f"{found.path / 'submission.py'} has no {kind}")


class _Loader(SourceFileLoader):
    """Compiles the source file itself, never a cached file that the digest does not cover."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load(path: Path, options: Mapping[str, str]) -> Solver:
    """Import ``submission.py`` and build its Config. This runs the author's code, so call it in the worker.

    Raises:
        SubmissionError: there is no `tune` or no `Config`, the options do not fit the Config, or the Config raised a
            ValueError, whose message is kept.
        Exception: any other exception that the author's module raises.
    """
    finder = FileFinder(str(path), (_Loader, SOURCE_SUFFIXES))
    sys.path.insert(0, str(path))  # a submission may have its own modules
    sys.path_importer_cache[str(path)] = finder
    spec = finder.find_spec("submission")
    if spec is None or spec.loader is None:
        raise SubmissionError(f"{path / 'submission.py'} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["submission"] = module
    spec.loader.exec_module(module)
    tune, config = getattr(module, "tune", None), getattr(module, "Config", None)
    if not callable(tune):
        raise SubmissionError(f"{path / 'submission.py'} has no function tune(lm, task, shots, rng, config)")
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise SubmissionError(
            f"{path / 'submission.py'} has no dataclass Config; `class Config:` with no fields will do"
        )
    values = parse_options(config, options)
    try:
        return Solver(tune, config(**values), path)
    except ValueError as problem:
        raise SubmissionError(str(problem) or repr(problem)) from problem


@contextlib.contextmanager
def loaded(path: Path, options: Mapping[str, str]) -> Iterator[Solver]:
    """`load` in a process that runs other submissions later. The modules and search path of this one are removed again.

    Raises:
        SubmissionError: as `load`.
        Exception: any exception that the author's module raises.
    """
    search = list(sys.path)
    try:
        yield load(path, options)
    finally:
        sys.path[:] = search
        sys.path_importer_cache.pop(str(path), None)
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(path):
                del sys.modules[name]


def parse_options(config: type, options: Mapping[str, str]) -> dict[str, Any]:
    """Convert ``name=value`` strings to the types of the Config's fields, and check the bounds of these fields.

    Raises:
        SubmissionError: a name is unknown, or a value does not convert or is out of bounds.
    """
    hints = get_type_hints(config, include_extras=True) if options else {}
    known = {field.name for field in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            alike = did_you_mean(name, known)
            raise SubmissionError(f"no option {name!r}{alike}; Config has {', '.join(sorted(known)) or 'no fields'}")
        try:
            values[name] = _convert(hints[name], text)
        except ValueError as problem:
            raise SubmissionError(f"option {name}={text!r}: {problem}") from problem
    return values


def _convert(kind: Any, text: str) -> Any:
    if kind is bool or kind is type(None):
        choices = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        named = choices if kind is bool else {"none": None}
        if text.lower() not in named:
            raise ValueError("true or false expected" if kind is bool else "none expected")
        return named[text.lower()]
    if kind is int or kind is float:
        return _number(kind, text)
    if kind is str:
        return text
    if get_origin(kind) is Literal:
        named = {str(choice): choice for choice in get_args(kind)}
        if text not in named:
            raise ValueError(f"one of {', '.join(named)} expected")
        return named[text]
    if get_origin(kind) in {Union, UnionType}:
        return _convert_first(get_args(kind), text)
    if get_origin(kind) is Annotated:
        return msgspec.convert(_convert(get_args(kind)[0], text), kind)
    raise ValueError(f"fields of type {kind} cannot be set from the command line")


def _number(kind: type[int | float], text: str) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        raise ValueError(f"{'an integer' if kind is int else 'a number'} is expected") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("a finite number is expected")
    return number


def _convert_first(kinds: tuple[Any, ...], text: str) -> Any:
    """The value by the first of several types that accepts the text. None is tried first, and str last."""
    problems = []
    for kind in sorted(kinds, key=lambda kind: (kind is str, kind is not type(None))):
        try:
            return _convert(kind, text)
        except ValueError as problem:
            problems.append(str(problem))
    raise ValueError("; or ".join(problems))
