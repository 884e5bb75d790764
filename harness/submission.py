"""Submission folders. The referee only reads their bytes; the code runs in the worker alone."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from harness.errors import SubmissionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LARGEST_FOLDER = 64 << 20


@dataclass(frozen=True)
class Submission:
    """A folder with a ``submission.py``, as the referee sees it."""

    name: str
    path: Path
    sha256: str
    """Digest over the names and bytes of every file in the folder."""


@dataclass(frozen=True)
class Solver:
    """A submission as imported inside the worker."""

    tune: Callable[..., Any]
    config: Any


def find(path: str | Path) -> Submission:
    """Look at a submission folder without running anything in it.

    Raises:
        SubmissionError: no such folder, no submission.py, an unusable name, or too many bytes.
    """
    folder = Path(path).resolve()
    if folder.name == "submission.py":
        folder = folder.parent
    if not (folder / "submission.py").is_file():
        raise SubmissionError(f"{folder}: no submission.py there; `harness new NAME` makes one to start from")
    if not _NAME.fullmatch(folder.name):
        raise SubmissionError(f"{folder.name!r} cannot be a submission's name; letters, digits, '-' and '_', up to 64")
    digest, total = hashlib.sha256(), 0
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        data = file.read_bytes()
        total += len(data)
        if total > _LARGEST_FOLDER:
            raise SubmissionError(f"{folder}: more than {_LARGEST_FOLDER >> 20} MiB; a submission is code and small data")
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(data)}\0".encode() + data)
    return Submission(folder.name, folder, digest.hexdigest())


def load(path: Path, options: Mapping[str, str]) -> Solver:
    """Import ``submission.py`` and build its Config. Runs the author's code: call it in the worker only.

    Raises:
        SubmissionError: no `tune`, no `Config`, or options that do not fit it.
        Exception: whatever the author's module raises.
    """
    spec = importlib.util.spec_from_file_location("submission", path / "submission.py")
    if spec is None or spec.loader is None:
        raise SubmissionError(f"{path / 'submission.py'} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["submission"] = module
    sys.path.insert(0, str(path))
    spec.loader.exec_module(module)
    tune, config = getattr(module, "tune", None), getattr(module, "Config", None)
    if not callable(tune):
        raise SubmissionError(f"{path / 'submission.py'} has no function tune(lm, task, shots, rng, config)")
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise SubmissionError(f"{path / 'submission.py'} has no dataclass Config; `class Config:` with no fields will do")
    return Solver(tune, config(**parse_options(config, options)))


def parse_options(config: type, options: Mapping[str, str]) -> dict[str, Any]:
    """Convert ``name=value`` strings to the types of the Config's fields.

    Raises:
        SubmissionError: unknown name, or a value that does not convert.
    """
    hints = get_type_hints(config)
    known = {field.name for field in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            raise SubmissionError(f"no option {name!r}; Config has {', '.join(sorted(known)) or 'no fields'}")
        try:
            values[name] = _convert(hints[name], text)
        except ValueError as problem:
            raise SubmissionError(f"option {name}={text!r}: {problem}") from problem
    return values


def _convert(kind: Any, text: str) -> Any:
    if kind is bool:
        choices = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in choices:
            raise ValueError("true or false expected")
        return choices[text.lower()]
    if kind in {int, float, str}:
        return kind(text)
    choices = getattr(kind, "__args__", None)
    if choices and all(isinstance(choice, str) for choice in choices):  # a Literal of strings
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)} expected")
        return text
    for option in choices or ():
        if option is type(None) and text.lower() == "none":
            return None
        if option in {int, float, str, bool}:
            return _convert(option, text)
    raise ValueError(f"fields of type {kind} cannot be set from the command line")
