"""Prediction archives in the competition's upload layout: ``<Task>/<split>.csv``, header ``,pred``.

They are scored like any run's predictions and stored as a run of their own kind. Nothing is known of what they cost, so
they are listed and never ranked.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import lzma
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import DataError, InputError
from harness.results.records import CellRecord, KeptAnswer, RunKey
from harness.solving.metrics import cell_score
from harness.tracks.competition import day_start
from harness.tracks.examples import Source, examples_sha256, load_test, splits_of
from harness.tracks.litter import is_litter
from harness.tracks.track import Track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.contract import Examples, IntArray, Metric
    from harness.results.store import Store
    from harness.tracks.competition import Competition
    from harness.tracks.tasks import TaskFile

PLANNED = "planned"
"""What a run of predictions keeps beside its identity: the cells that there were to predict."""
_LARGEST_FILE = 16 << 20
_MOST_FILES = 1000
_UNREADABLE = (OSError, EOFError, RuntimeError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Scored:
    """One scored prediction file."""

    task: str
    split: int
    rows: int
    metric: Metric
    score: float
    predictions: IntArray  # (rows,) classes
    test: Examples
    classes: tuple[str, ...] = ()
    """Names of the task's classes, which stand in for the label words that nobody knows."""


def score_archive(path: Path, track: Track, source: Source) -> list[Scored]:
    """Score every ``<Task>/<split>.csv`` of a zip archive against the test set of `source`.

    Raises:
        InputError: no archive, a file of another layout, a task or split that the track lacks, a file too large, or a
            row that is malformed, missing or too many.
        DataError: the data lack a task's splits or its test set.
    """
    files = track_tasks(track)
    by_folder = {_folder(file).lower(): file for file in files.values()} | {file.name: file for file in files.values()}
    found: dict[tuple[str, int], Scored] = {}
    for name, text in _members(path):
        place = PurePosixPath(name)
        file = by_folder.get(place.parent.name.lower())
        if file is None or not re.fullmatch("[0-9]{1,9}", place.stem) or place.is_absolute() or ".." in place.parts:
            folders = ", ".join(sorted(map(_folder, files.values())))
            raise InputError(f"{path}: {name!r}: <Task>/<split>.csv expected, with Task one of {folders}")
        split, splits = int(place.stem), splits_of(file, source, track.tasks[file.name])
        if split not in splits:
            there = ", ".join(map(str, splits))
            where = f"track {track.name}" if track.tasks[file.name].splits != "present" else str(source.directory)
            raise InputError(f"{path}: {name!r}: {where} has no split {split} of {file.name}; it has {there}")
        if (file.name, split) in found:
            raise InputError(f"{path}: {name!r}: there are two files for {_folder(file)}, split {split}")
        test = load_test(file, source)
        predicted = _column(f"{path}: {name}", text, file, len(test))
        value = cell_score(file.metric, predicted, test.labels, len(file.classes))
        found[file.name, split] = Scored(file.name, split, len(test), file.metric, value, predicted, test, file.classes)
    if not found:
        raise InputError(f"{path}: it has no .csv file; <Task>/<split>.csv expected")
    return [found[key] for key in sorted(found)]


def planned_cells(track: Track, source: Source) -> list[tuple[str, int]]:
    """All cells (task, split) of a track: those that it names, else those that the data have."""
    found = list(track.planned)
    for file in track_tasks(track).values():
        spec = track.tasks[file.name]
        if spec.splits == "present":
            with contextlib.suppress(DataError):  # a task that the data lack altogether
                found += [(file.name, split) for split in splits_of(file, source, spec)]
    return found


def missing_cells(planned: Sequence[tuple[str, int]], scored: Sequence[Scored]) -> list[str]:
    """Cells, as <task>/<split>, without predictions."""
    there = {(s.task, s.split) for s in scored}
    return [f"{name}/{split}" for name, split in planned if (name, split) not in there]


def keep(
    store: Store,
    entry: str,
    path: Path,
    track: Track,
    data: str,
    scored: Sequence[Scored],
    planned: Sequence[tuple[str, int]],
    team: str = "",
) -> str:
    """Store uploaded predictions as a run of their own kind, without a budget; return its id.

    The same archive under the same name on the same data is one run, however often it is stored. The `planned` cells
    are stored with it, so that a list of uploads knows how many it lacks. Archives of two `team`s are two, whatever
    they are called.

    Raises:
        InputError: the competition is not open, or the team has had its attempts of the day.
        SubmissionError: an organiser's ruling does not allow it.
    """
    tests = "".join(examples_sha256(s.test) for s in scored)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    key = RunKey(
        entry=entry,
        submission_sha256=digest,
        options=(),
        track=track.name,
        track_fingerprint=track.fingerprint,
        rules=track.rules,
        model="",
        model_sha256="",
        data=data,
        data_sha256=hashlib.sha256(tests.encode()).hexdigest()[:16],
        device="",
        seed=0,
        environment_sha256="",
        access="predictions",
        team=team,
    )
    _check_open(store, key, track.competition)
    run = store.open_run(key, {PLANNED: [list(cell) for cell in planned]})
    finished = store.finished(run)
    for s in scored:
        if (s.task, s.split) not in finished:
            kept = KeptAnswer(1.0, 0, b"", s.predictions)
            attempt = store.begin(run, s.task, s.split)
            record = CellRecord(access="predictions", metric=s.metric, words=s.classes)
            attempt.finish("ok", record, examples_sha256(s.test), s.test.labels, [kept])
    return run


def _check_open(store: Store, key: RunKey, competition: Competition) -> None:
    """Refuse an archive that the dates and limits of a competition do not allow; one that is stored counts once."""
    refused = competition.refusal()
    if refused:
        raise InputError(f"{key.label}: {refused}; nothing is scored or stored")
    own = [run for run in store.runs() if run.key.access == "predictions" and run.key.track == key.track]
    if key.id in {run.id for run in own}:
        return
    who = key.team or key.entry
    today = [run for run in own if (run.key.team or run.key.entry) == who and run.started >= day_start()]
    competition.check_attempts(f"team {key.team}" if key.team else who, len(today))


def _folder(file: TaskFile) -> str:
    """A task's folder in an archive: that of the competition kit, or the task's title if the kit lacks the task."""
    return file.kit.folder if file.kit else file.title


def _members(path: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the CSV files. Sizes are checked before unpacking, and nothing is written to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and not is_litter(PurePosixPath(e.filename))]
            if len(entries) > _MOST_FILES:
                raise InputError(f"{path}: it has {len(entries)} files; at most {_MOST_FILES} are read")
            for entry in entries:
                if not entry.filename.lower().endswith(".csv"):
                    raise InputError(f"{path}: {entry.filename}: an archive may contain only <Task>/<split>.csv files")
                data = b""
                if entry.file_size <= _LARGEST_FILE:
                    with archive.open(entry) as stream:
                        data = stream.read(_LARGEST_FILE + 1)
                if max(entry.file_size, len(data)) > _LARGEST_FILE:
                    raise InputError(f"{path}: {entry.filename} is larger than {_LARGEST_FILE >> 20} MiB")
                yield entry.filename, data.decode("utf-8-sig")
    except _UNREADABLE as problem:
        advice = "; make one of <Task>/<split>.csv" if isinstance(problem, zipfile.BadZipFile) else ""
        raise InputError(f"{path}: cannot be read as a zip of CSV files: {problem}{advice}") from problem


def _column(where: str, text: str, file: TaskFile, rows: int) -> IntArray:
    """The `pred` column as class indices. Class numbers, class names and the kit's own labels are accepted."""
    numbers = tuple(map(str, range(len(file.classes))))
    kinds = (numbers, file.classes, file.kit.labels if file.kit else ())
    names = {label: k for labels in kinds for k, label in enumerate(labels)}
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error as problem:
        raise InputError(f"{where}: not a CSV file: {problem}") from problem
    if not lines or lines[0] != ["", "pred"]:
        raise InputError(f"{where}:1: header {','.join(lines[0]) if lines else ''!r}; ',pred' expected")
    body = [line for line in lines[1:] if line]
    if len(body) != rows:
        raise InputError(f"{where}: {len(body)} predictions; the test set has {rows}")
    labels = np.empty(rows, dtype=np.int64)
    for n, line in enumerate(body):
        if len(line) != 2 or line[0] != str(n):  # noqa: PLR2004 - index, prediction
            raise InputError(
                f"{where}:{n + 2}: {','.join(line)!r}; '{n},<class>' expected, in the order of the test set"
            )
        if line[1].strip() not in names:
            raise InputError(f"{where}:{n + 2}: unknown class {line[1]!r}; 0..{len(file.classes) - 1} expected")
        labels[n] = names[line[1].strip()]
    return labels
