"""Tracebacks as an author reads them: they begin in the author's own file, without the harness's frames above it."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType

_HERE = str(Path(__file__).resolve().parents[1])
_BLOCK = re.compile(
    r"^(?:Current t|T)hread 0x\w+[^\n]*\(most recent call first\):\n((?:  File [^\n]*\n?)+)", re.MULTILINE
)
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_MOST_FRAMES = 30
"""Frames of a stack that are shown: a recursion may have thousands."""
HEAD = "Where it was (most recent call last):"
"""First line of a stack at a timeout."""


def authors(problem: BaseException, folder: Path) -> str:
    """The traceback of an exception, from the author's first line on.

    Args:
        problem: what was raised by a submission's code, or below it.
        folder: the folder that the submission was imported from.

    Returns:
        The text. The frames above the author's first one, which are the harness's and Python's import system's, are
        left out, also of causes and of the members of an exception group.
    """
    shown = traceback.TracebackException.from_exception(problem)
    _cut(shown, f"{folder}/", set())
    return "".join(shown.format())


def of_frame(frame: FrameType | None, folder: Path) -> str:
    """The stack of a running frame, from the author's first line on."""
    return _listed(_from(traceback.extract_stack(frame), f"{folder}/"))


def of_dump(dump: str, folder: Path, files: Mapping[str, bytes]) -> str:
    """The stack that a worker's `faulthandler` has written, in the form of a traceback.

    Args:
        dump: the worker's output. The submission can write there, too, so nothing but its own files is read for it.
        folder: the folder that the submission was imported from.
        files: the bytes of the submission's files by name, for the lines of its code.

    Returns:
        The stack of the thread that runs the author's code; empty where there is none.
    """
    own = f"{folder}/"
    for block in reversed(_BLOCK.findall(dump)):
        frames = [(path, int(line), name) for path, line, name in _FRAME.findall(block)][::-1]
        first = next((n for n, frame in enumerate(frames) if frame[0].startswith(own)), None)
        if first is not None:
            return _listed(
                traceback.FrameSummary(
                    path, line, name, lookup_line=False, line=_line(path.removeprefix(own), line, files)
                )
                for path, line, name in frames[first:]
            )
    return ""


def without_dumps(output: str) -> str:
    """A worker's output without the stacks that `faulthandler` has written into it."""
    return _BLOCK.sub("", output)


def _line(name: str, number: int, files: Mapping[str, bytes]) -> str:
    """A line of one of the submission's files; empty for any other file."""
    lines = files.get(name, b"").decode("utf-8", "replace").splitlines()
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _listed(frames: Iterable[traceback.FrameSummary]) -> str:
    lines = traceback.StackSummary.from_list(list(frames)[-_MOST_FRAMES:]).format()
    return "\n".join([HEAD, *(line.rstrip() for line in lines)]) if lines else ""


def _from(frames: Iterable[traceback.FrameSummary], own: str) -> list[traceback.FrameSummary]:
    """The frames from the author's first one on; where there is none, those below the last one of the harness."""
    frames = list(frames)
    for n, frame in enumerate(frames):
        if frame.filename.startswith(own):
            return frames[n:]
    ours = [n for n, frame in enumerate(frames) if _ours(frame.filename)]
    return frames[ours[-1] + 1 :] if ours else frames


def _ours(name: str) -> bool:
    return name.startswith((_HERE, "<frozen importlib"))


def _cut(shown: traceback.TracebackException, own: str, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    whole = list(shown.stack)
    left = _from(whole, own)
    # A cause that was raised and caught within the harness has no frame of the author, and its own are kept.
    shown.stack = traceback.StackSummary.from_list(left if left or len(seen) == 1 else whole)
    for each in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if each is not None:
            _cut(each, own, seen)
