"""Everything that is wrong with a folder of tasks, a track or a competition, with file and line; without the model.

`harness.tracks.track.load_track` and `harness.tracks.examples` raise the first error that they meet. Here all of them
are collected, so that an organiser mends a folder in one go. What is wrong stops an evaluation; what is odd is a
warning.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError, TaskError, TrackError, counted
from harness.tracks.examples import Source, file_splits
from harness.tracks.files import read_table
from harness.tracks.tasks import TaskFile, load_task, task_names, task_problems
from harness.tracks.tomlfile import read_toml
from harness.tracks.track import OF_FOLDER, Track, located, track_path, track_problems, tracks_dir

if TYPE_CHECKING:
    from harness.contract import Text
    from harness.tracks.files import Row

_NAMED = 20
"""Most problems of one data file that are listed."""
_PARTS = ("train", "dev")


@dataclass
class Inspection:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    """What stops an evaluation, each with file and line."""
    warnings: list[str] = field(default_factory=list)
    """What can be evaluated, but may not be meant."""
    counts: list[str] = field(default_factory=list)
    """How much data each task has, in lines."""
    track: Track | None = None
    """The track, if there is one and its file can be read."""
    tasks: dict[str, TaskFile] = field(default_factory=dict)
    """The tasks whose files can be read."""


def inspect(where: str, tasks: Path | None = None) -> Inspection:
    """Look at a competition, a track, a folder of tasks, or the folder of one task.

    Args:
        where: the folder, or what `harness.tracks.track.load_track` takes.
        tasks: a folder of tasks that is searched first, for a track.

    Raises:
        TrackError: there is nothing of the kind.
    """
    found, folder = Inspection(), Path(where)
    shipped = (tracks_dir() / f"{where}.toml").is_file()
    if folder.is_dir() and not shipped and not (folder / OF_FOLDER).is_file():
        alone = (folder / "task.toml").is_file()
        root = folder.absolute().parent if alone else folder / "tasks" if (folder / "tasks").is_dir() else folder
        names = [folder.absolute().name] if alone else task_names(root)
        if not names:
            raise TrackError(f"{folder} has no {OF_FOLDER} and no folder with a task.toml; nothing to check")
        for name in names:
            _task(found, name, root)
    else:
        _track(found, track_path(where), tasks)
    for file in found.tasks.values():
        _data(found, file)
    return found


def _track(found: Inspection, path: Path, tasks: Path | None) -> None:
    try:
        track = located(read_toml(path, Track, TrackError), path, tasks)
    except TrackError as problem:
        found.problems.append(str(problem))
        return
    for name in track.tasks:
        folder = track.tasks_folder
        own = folder is not None and (folder / name / "task.toml").is_file()
        _task(found, name, folder if own else None)
    own_faults = set(found.problems)
    for line in track_problems(path, track):
        if not any(fault in line for fault in own_faults):
            found.problems.append(line)
    found.track = track


def _task(found: Inspection, name: str, root: Path | None) -> None:
    first = None
    try:
        found.tasks[name] = load_task(name, root)
    except TaskError as problem:
        first = str(problem)
    if first is None:
        return
    every = [first]
    if root is not None:
        with contextlib.suppress(TaskError):
            path = root / name / "task.toml"
            every = list(task_problems(path, read_toml(path, TaskFile, TaskError)))
    found.problems += every or [first]


def _data(found: Inspection, file: TaskFile) -> None:
    """Look at a task's own files with named columns; data of other kinds are read when a track is evaluated."""
    if file.files is None or not isinstance(file.folder, str):
        return
    folder, ending = Path(file.folder), file.files.format
    test = _file(found, file, folder / f"test.{ending}")
    splits = _splits(found, file)
    seen: set[Text] = set()
    for number in splits:
        parts = {part: _file(found, file, folder / "splits" / str(number) / f"{part}.{ending}") for part in _PARTS}
        train, dev = (None if rows is None else {row.texts for row in rows} for rows in parts.values())
        if train and dev and train & dev:
            shared = counted(len(train & dev), "text")
            found.warnings.append(f"{folder / 'splits' / str(number)}: train and dev share {shared}")
        seen |= (train or set()) | (dev or set())
    known = [row for row in test or () if row.texts in seen]
    if known:
        where = f"{folder / f'test.{ending}'}:{known[0].line}"
        shared = f"{len(known):,} of {len(test or ()):,} test texts stand in train or dev of a split"
        found.warnings.append(f"{where}: {shared}, this one first: {known[0].texts[0][:60]!r}")
    if test is not None:
        found.counts.append(f"{file.name}: {counted(len(test), 'test text')}, {counted(len(splits), 'split')}")


def _splits(found: Inspection, file: TaskFile) -> list[int]:
    there = file_splits(file, Source("files"))
    if not there:
        message = "no splits; <number>/train and <number>/dev are expected in it"
        found.problems.append(f"{Path(str(file.folder)) / 'splits'}:1: {message}")
    wanted = found.track.tasks[file.name].splits if found.track and file.name in found.track.tasks else "present"
    missing = [] if wanted == "present" else [split for split in wanted if split not in there]
    if there and missing:
        numbers = ", ".join(map(str, missing))
        found.problems.append(
            f"{Path(str(file.folder)) / 'splits'}:1: the track wants split {numbers}, which is not there"
        )
    return there


def _file(found: Inspection, file: TaskFile, path: Path) -> list[Row] | None:
    """The rows of a data file; None if it cannot be read. Its problems and oddities are added to what was found."""
    assert file.files is not None  # noqa: S101 - its caller has looked
    try:
        rows, problems = read_table(path, file.files.columns, file.files.label)
    except DataError as problem:
        found.problems.append(str(problem))
        return None
    lines = [str(each) for each in problems]
    expected = ", ".join(file.written_labels)
    lines += [
        f"{path}:{row.line}: unknown label {row.label!r}; expected one of {expected}"
        for row in rows
        if row.label not in file.written_labels
    ]
    lines.sort(key=lambda line: int(line.removeprefix(f"{path}:").partition(":")[0]))
    if len(lines) > _NAMED:
        lines[_NAMED:] = [f"{path}: and {counted(len(lines) - _NAMED, 'problem')} more of this file"]
    if not rows and not lines:
        lines = [f"{path}:1: no rows; at least one example is expected"]
    found.problems += lines
    _odd(found, file, path, rows)
    return rows


def _odd(found: Inspection, file: TaskFile, path: Path, rows: list[Row]) -> None:
    counts = Counter(row.label for row in rows)
    lacking = [label for label in file.written_labels if not counts[label]]
    if rows and lacking:
        found.warnings.append(
            f"{path}: no text of {counted(len(lacking), 'class', 'classes')}: {', '.join(lacking[:5])}"
        )
    first: dict[Text, Row] = {}
    again = [(row, first.setdefault(row.texts, row)) for row in rows]
    twice = [(row, before) for row, before in again if row is not before]
    if twice:
        row, before = twice[0]
        how = "with another label" if row.label != before.label else "with the same label"
        more = f", and {len(twice) - 1:,} more such rows" if len(twice) > 1 else ""
        found.warnings.append(f"{path}:{row.line}: this text stands in line {before.line}, too, {how}{more}")
