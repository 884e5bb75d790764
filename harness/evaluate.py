"""Plans the cells of a run, skips those that are finished, runs the rest in order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from harness.data import Source, examples_sha256, load_shots, load_test, splits_of
from harness.environment import environment, environment_sha256
from harness.errors import DataError, InputError
from harness.lm.load import kind_of, load_model
from harness.referee import Cell, Verdict, run_cell, run_reference
from harness.store import RunKey, Store
from harness.track import Track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.lm.model import LanguageModel
    from harness.submission import Submission


@dataclass(frozen=True)
class Choices:
    """What the command line may replace of a track, and which part of it to run."""

    model: str | None = None
    data: Path | None = None
    tasks: tuple[str, ...] = ()
    splits: tuple[int, ...] = ()
    present_splits: bool = False
    calls: int | None = None
    """Budget of every task instead of the track's; such a run is never ranked with the track."""
    seed: int = 0
    white_box: bool = False
    """Whether references may run: code with the model's weights, in this process."""


class Progress(Protocol):
    """Somebody who watches."""

    def planned(self, entry: str, cells: Sequence[Cell], finished: int) -> None:
        """A run is about to start; `finished` of its cells are in the store already."""
        ...

    def began(self, entry: str, cell: Cell) -> None:
        """A cell starts."""
        ...

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """Rows charged so far in this cell, and the note of the answer that stands."""
        ...

    def ended(self, entry: str, cell: Cell, verdict: Verdict) -> None:
        """A cell ended."""
        ...


class Evaluation:
    """A track with its model and data at hand, ready to run submissions."""

    def __init__(self, track: Track, choices: Choices, store: Store) -> None:
        """Check data and cells first, then load the model.

        Raises:
            InputError: the data or the choices do not fit the track.
            ModelError: the model cannot be had.
        """
        self.store = store
        self._given = track
        self._seed, self._white_box = choices.seed, choices.white_box
        self.modified = tuple(
            name for name, value in (("model", choices.model), ("calls", choices.calls)) if value is not None
        )
        if choices.data is not None and track.data.source != "kit":
            self.modified += ("data",)
        if track.device != "cpu":
            wanted = track.device_name or track.device
            raise InputError(
                f"track {track.name} runs on {wanted}, and this version evaluates on the CPU alone; "
                'choose a track with device = "cpu": see `harness tracks`'
            )
        self.track = replaced(track, choices)
        self._source = _source(track, choices)
        self._files = track_tasks(self.track)
        self.cells = self._plan(choices)
        self._data_sha256 = self._digest()
        self.lm: LanguageModel = load_model(self.track.model, self.track.prompt)
        self._environment = environment()

    def run(self, submission: Submission, options: Mapping[str, str], progress: Progress) -> str:
        """Run what is missing of one submission; return the run's id. May be interrupted and called again.

        Raises:
            InputError: it is a white-box reference, and the choices do not allow it.
            SubmissionError: it cannot be imported or configured.
        """
        check_access(submission, self._white_box)
        run_one = run_reference if submission.access == "white-box" else run_cell
        key = self._key(submission, options)
        run = self.store.open_run(key, self._environment)
        finished = self.store.finished(run)
        todo = [cell for cell in self.cells if (cell.task.name, cell.split) not in finished]
        progress.planned(key.entry, self.cells, len(self.cells) - len(todo))
        for cell in todo:
            if (cell.task.name, cell.split) in self.store.finished(run):
                continue  # by another process, meanwhile
            progress.began(key.entry, cell)
            attempt = self.store.begin(run, cell.task.name, cell.split)
            verdict = run_one(cell, submission, options, self.lm, attempt, progress.spent)
            progress.ended(key.entry, cell, verdict)
        return run

    def _plan(self, choices: Choices) -> list[Cell]:
        unknown = sorted(set(choices.tasks) - set(self._files))
        if unknown:
            raise InputError(f"track {self.track.name} has no task {unknown[0]!r}; it has {', '.join(self._files)}")
        cells: list[Cell] = []
        for name, file in self._files.items():
            if choices.tasks and name not in choices.tasks:
                continue
            spec = self.track.tasks[name]
            task = file.task(self.track.profile, self.track.model.kind)
            there = splits_of(file, self._source, spec, choices.present_splits)
            for split in there:
                if choices.splits and split not in choices.splits:
                    continue
                cells.append(Cell(file, task, split, spec, self.track.limits, self._source, self._seed))
        nowhere = sorted(set(choices.splits) - {cell.split for cell in cells})
        if nowhere or not cells:
            raise InputError(f"split {', '.join(map(str, nowhere))} is in no chosen task of track {self.track.name}")
        return cells

    def _digest(self) -> str:
        """Digest of the data of the whole track, the chosen part or not.

        Reading it is also the check that what will run is there and well-formed; other tasks may be missing.
        """
        digest = hashlib.sha256()
        chosen = {cell.file.name for cell in self.cells}
        for name, file in self._files.items():
            spec = self.track.tasks[name]
            try:
                digest.update(examples_sha256(load_test(file, self._source)).encode())
                for split in splits_of(file, self._source, spec, present_only=True):
                    shots = load_shots(file, self._source, split, spec)
                    digest.update((examples_sha256(shots.train) + examples_sha256(shots.dev)).encode())
            except DataError:
                if name in chosen:
                    raise
                digest.update(b"absent")
        return digest.hexdigest()[:16]

    def _key(self, submission: Submission, options: Mapping[str, str]) -> RunKey:
        return RunKey(
            entry_name(submission.name, options),
            submission.sha256,
            tuple(sorted(options.items())),
            self._given.name,
            self._given.fingerprint,
            self._given.rules,
            self.lm.name,
            self.lm.sha256,
            str(self._source),
            self._data_sha256,
            "cpu",
            self._seed,
            environment_sha256(self._environment),
            self.modified,
            submission.access,
        )


def check_access(submission: Submission, white_box: bool) -> None:
    """Refuse a white-box reference unless it was allowed.

    Raises:
        InputError: what it is, and how to allow it.
    """
    if submission.access == "white-box" and not white_box:
        raise InputError(
            f"{submission.path} is a white-box reference: it trains with the model's weights and gradients, in the "
            "referee's own process and without a sandbox, and is listed but never ranked. "
            "If you trust its code, allow that with --white-box"
        )


def entry_name(name: str, options: Mapping[str, str]) -> str:
    """Name on the leaderboard: the folder, and the options that were given."""
    given = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}[{given}]" if given else name


def replaced(track: Track, choices: Choices) -> Track:
    """The track with the command line's choices put in.

    Raises:
        InputError: a choice makes no sense.
    """
    if choices.model is not None:
        kind = kind_of(choices.model)
        model = msgspec.structs.replace(track.model, source=choices.model, kind=kind, revision=None)
        track = msgspec.structs.replace(track, model=model)
    if choices.calls is not None:
        if choices.calls <= 0:
            raise InputError(f"--calls {choices.calls}: a positive number of calls is needed")
        tasks = {name: msgspec.structs.replace(spec, calls=choices.calls) for name, spec in track.tasks.items()}
        track = msgspec.structs.replace(track, tasks=tasks)
    return track


def _source(track: Track, choices: Choices) -> Source:
    if choices.data is None:
        return Source(track.data.source)
    if not choices.data.is_dir():
        raise InputError(f"--data {choices.data}: no such directory")
    return Source("hub" if track.data.source == "hub" and not _looks_like_kit(choices.data) else "kit", choices.data)


def _looks_like_kit(directory: Path) -> bool:
    return any(directory.glob("*/test.tsv"))
