"""Plans the cells of a run, skips those that are finished, runs the rest in order."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import msgspec

from harness import known_plan
from harness.data import Source, check_unseen, examples_sha256, load_shots, load_test, splits_of
from harness.environment import environment, environment_sha256, onnxruntime_version
from harness.errors import DataError, InputError
from harness.fetch import at_hand
from harness.lm.kinds import kind_of
from harness.referee import Cell, Verdict, run_cell, run_reference
from harness.sandbox import ladder
from harness.store import RunKey, Store
from harness.submission import Access, entry_name
from harness.track import Track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.choices import Choices
    from harness.lm.model import LanguageModel
    from harness.referee import Watch
    from harness.sandbox.tiers import Tier
    from harness.submission import Submission
    from harness.tasks import TaskFile


class Progress(Protocol):
    """Somebody who watches."""

    def isolated(self, tier: Tier) -> None:
        """Workers of submissions will run in this tier of isolation."""
        ...

    def planned(self, entry: str, cells: Sequence[Cell], todo: Sequence[Cell]) -> None:
        """A run is about to start; of its cells all but those in `todo` are in the store already."""
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


@dataclass(frozen=True)
class Plan:
    """What is run of every submission, and as which run; plain data, without the model."""

    cells: tuple[Cell, ...]
    base: RunKey
    """What identifies a run, but for what comes with the submission."""
    environments: Mapping[Access, dict[str, Any]]
    numerics: dict[str, object]
    white_box: bool
    """Whether references may run."""

    def open(self, store: Store, submission: Submission, options: Mapping[str, str]) -> OpenRun:
        """Record the run of a submission, unless it is there, and see which of its cells are missing.

        Raises:
            InputError: it is a white-box reference, and the choices do not allow it.
        """
        self._check(submission)
        run = self.record(store, submission.access, **_own(submission, options))
        return self._opened(store, run, submission, options)

    def peek(self, store: Store, submission: Submission, options: Mapping[str, str]) -> OpenRun:
        """`open`, but nothing is recorded.

        Args:
            store: where the run may be.
            submission: what would be run.
            options: of its Config.

        Returns:
            The run under the id that it has or would have.

        Raises:
            InputError: as `open`.
        """
        self._check(submission)
        run = self._key(submission.access, **_own(submission, options)).id
        return self._opened(store, run, submission, options)

    def record(self, store: Store, access: Access, **own: Any) -> str:
        """Record a run, unless it is there, and return its id; `own` are the fields of `RunKey` that tell it apart."""
        return store.open_run(self._key(access, **own), self.environments[access] | {"numerics": self.numerics})

    def _key(self, access: Access, **own: Any) -> RunKey:
        digest = environment_sha256(self.environments[access])
        return dataclasses.replace(self.base, access=access, environment_sha256=digest, **own)

    def _check(self, submission: Submission) -> None:
        check_access(submission, self.white_box)
        if self.base.external and submission.access == "white-box":
            raise InputError(
                f"{submission.path} is a white-box reference, which starts from p0 as it is; leave out --p0"
            )

    def _opened(self, store: Store, run: str, submission: Submission, options: Mapping[str, str]) -> OpenRun:
        finished = store.finished(run)
        todo = tuple(c for c in self.cells if (c.task.name, c.split) not in finished)
        return OpenRun(run, entry_name(submission.name, options), todo)


def _own(submission: Submission, options: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `RunKey` that come with a submission."""
    given = tuple(sorted(options.items()))
    entry = entry_name(submission.name, options)
    return {"entry": entry, "submission_sha256": submission.sha256, "options": given}


@dataclass(frozen=True)
class OpenRun:
    """A run in the store, and what is still to be done of it."""

    id: str
    entry: str
    todo: tuple[Cell, ...]


class Preparation:
    """An evaluation before its model is loaded: the track, the choices, the data and the cells are checked.

    Neither torch nor transformers is imported here, unless the device is a GPU or the model a hub id: what a person
    gave wrongly is refused at once.
    """

    def __init__(self, track: Track, choices: Choices) -> None:
        """Check everything that can be checked without the model.

        Args:
            track: the track, as its file says.
            choices: what the command line replaces of it.

        Raises:
            InputError: the data or the choices do not fit the track.
            FetchError: the track's model or data are neither staged nor to be had.
            ModelError: the model's configuration cannot be had, or is of a family that is not supported.
        """
        self.given, self.choices = track, choices
        modified = tuple(
            name for name, value in (("model", choices.model), ("calls", choices.calls)) if value is not None
        )
        if choices.data is not None and track.data.source != "kit":
            modified += ("data",)
        if choices.test_data is not None:
            if not choices.test_data.is_dir():
                raise InputError(f"--test-data {choices.test_data}: no such directory")
            modified += ("test_data",)
        if choices.backend not in {None, backend(track)}:
            modified += ("backend",)
        self.modified = modified
        self.kind = _device_kind(track, choices.device)
        hub_tasks = () if choices.data else choices.tasks or tuple(track.tasks)
        self.track, staged = at_hand(replaced(track, choices), choices.staged, hub_tasks)
        self.source = source_of(track, choices) if staged is None else Source("hub", staged)
        named = self.source if staged is None else Source("hub")  # staged or not, it is the same data
        self.source = dataclasses.replace(self.source, test=choices.test_data)
        self.data = str(dataclasses.replace(named, test=choices.test_data))
        self.files = track_tasks(self.track)
        self.cells = chosen_cells(self.track, self.files, self.source, choices)
        if choices.p0 is not None:
            if not choices.p0.is_file():
                raise InputError(f"{choices.p0}: no pre-trained prompt is there; make one with harness pretrain-prompt")
            if not any(_relative_to_p0(cell) for cell in self.cells):
                raise InputError(f"--p0 {choices.p0} is for sentence-pair tasks, and none is chosen")
        self.data_sha256 = self._digest(self.cells)

    def plan_known_before(self) -> Plan | None:
        """The plan, if it is known from an earlier time how the model identifies a run; None if it is not.

        Its cells have the label words as the task file writes them, so they name what is run and cannot be run.
        """
        key = known_plan.key_of(self)
        known = None if key is None else known_plan.read(key)
        if known is None:
            return None
        return Plan(tuple(self.cells), known.base, known.environments, known.numerics, self.choices.white_box)

    def keep(self, plan: Plan) -> None:
        """Let `plan_known_before` find a plan that was made with the model at hand."""
        key = known_plan.key_of(self)
        if key is not None:
            known_plan.write(key, known_plan.KnownPlan(plan.base, dict(plan.environments), plan.numerics))

    def _digest(self, cells: Sequence[Cell]) -> str:
        """Digest of the data of the whole track, the chosen part or not.

        Reading it is also the check that what will run is there and well-formed; other tasks may be missing.
        """
        digest = hashlib.sha256()
        chosen = {cell.file.name for cell in cells}
        for name, file in self.files.items():
            spec = self.track.tasks[name]
            try:
                digest.update(examples_sha256(load_test(file, self.source)).encode())
                drawn = []
                for split in splits_of(file, self.source, spec, present_only=True):
                    shots = load_shots(file, self.source, split, spec)
                    drawn.append(shots)
                    digest.update((examples_sha256(shots.train) + examples_sha256(shots.dev)).encode())
                if self.source.test is not None:
                    check_unseen(file, self.source, drawn)
            except DataError:
                if name in chosen:
                    raise
                digest.update(b"absent")
        return digest.hexdigest()[:16]


class Evaluation:
    """A track with its model and data at hand, ready to run submissions."""

    def __init__(self, track: Track, choices: Choices, store: Store, prepared: Preparation | None = None) -> None:
        """Check data and cells first, unless they were `prepared`, then load the model.

        Args:
            track: the track, as its file says.
            choices: what the command line replaces of it.
            store: where facts are stored.
            prepared: the same track and choices, checked before; None checks them now.

        Raises:
            InputError: the data or the choices do not fit the track.
            FetchError: the track's model or data are neither staged nor to be had.
            ModelError: the model cannot be loaded.
        """
        from harness.lm import device  # noqa: PLC0415 - this and the next two import torch: `Preparation` comes first
        from harness.lm.load import load_model  # noqa: PLC0415
        from harness.pretrain import read_p0  # noqa: PLC0415

        self.store = store
        self._sandbox = choices.sandbox
        prepared = prepared or Preparation(track, choices)
        self.track, self.device = prepared.track, device.name(prepared.kind)
        self.lm: LanguageModel = load_model(
            self.track.model, self.track.prompt, device=prepared.kind, numerics=self.track.numerics
        )
        self._p0 = None if choices.p0 is None else read_p0(choices.p0, self.lm)
        self._with_p0 = self.lm.with_p0(self._p0.values) if self._p0 else self.lm
        runtime = {"onnxruntime": onnxruntime_version()} if backend(self.track) == "onnxruntime" else {}
        facts = device.facts(prepared.kind) | runtime
        self.plan = Plan(
            tuple(self._fitted(cell) for cell in prepared.cells),
            self._base(prepared),
            {access: environment(facts, reference=access == "white-box") for access in get_args(Access)},
            numeric_profile(self.track),
            choices.white_box,
        )

    def run(self, submission: Submission, options: Mapping[str, str], progress: Progress) -> str:
        """Run what is missing of one submission; return the run's id. May be interrupted and called again.

        Raises:
            InputError: it is a white-box reference, and the choices do not allow it.
            SubmissionError: it cannot be imported or configured.
        """
        run = self.plan.open(self.store, submission, options)
        progress.planned(run.entry, self.cells, run.todo)
        for cell in run.todo:
            if (cell.task.name, cell.split) in self.store.finished(run.id):
                continue  # by another process, meanwhile
            progress.began(run.entry, cell)
            verdict = self.run_cell(run.id, cell, submission, options, progress.spent)
            progress.ended(run.entry, cell, verdict)
        return run.id

    def run_cell(
        self, run: str, cell: Cell, submission: Submission, options: Mapping[str, str], watch: Watch
    ) -> Verdict:
        """Run one cell of an open run. Several threads may do so at once: their forward passes take turns.

        A reference has the model to itself until it ends.

        Raises:
            SandboxError: no worker can be isolated.
            SubmissionError: it cannot be imported or configured.
        """
        white_box, lm = submission.access == "white-box", self.model_for(cell)
        tier = None if white_box else self.tier  # before anything is recorded
        attempt = self.store.begin(run, cell.task.name, cell.split)
        if white_box:
            with lm.turns:
                return run_reference(cell, submission, options, lm, attempt, watch)
        return run_cell(cell, submission, options, lm, attempt, watch, tier)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What is run of every submission."""
        return self.plan.cells

    def model_for(self, cell: Cell) -> LanguageModel:
        """The model as this cell's submission meets it: with the pre-trained prompt where there is one for it."""
        return self._with_p0 if _relative_to_p0(cell) else self.lm

    @cached_property
    def tier(self) -> Tier:
        """Isolation that all workers run in: the best that this machine gives, or the chosen one.

        Raises:
            SandboxError: no worker comes up in any.
        """
        return self._sandbox or ladder.best().tier

    def _fitted(self, cell: Cell) -> Cell:
        """The cell with label words that are tokens of the model, where the profile reads their first tokens."""
        task = cell.file.task(self.track.profile, self.track.model.kind, self.lm)
        return dataclasses.replace(cell, task=task)

    def _base(self, prepared: Preparation) -> RunKey:
        given, choices = prepared.given, prepared.choices
        return RunKey(
            entry="",
            submission_sha256="",
            options=(),
            track=given.name,
            track_fingerprint=given.fingerprint,
            rules=given.rules,
            model=self.lm.name,
            model_sha256=self.lm.sha256,
            data=prepared.data,
            data_sha256=prepared.data_sha256,
            device=self.device,
            seed=choices.seed,
            environment_sha256="",
            modified=prepared.modified,
            external=self._p0.name if self._p0 else "",
            calls=choices.calls,
        )


def chosen_cells(track: Track, files: Mapping[str, TaskFile], source: Source, choices: Choices) -> list[Cell]:
    """The cells of a track that are to run: all tasks in their first split, then all in their second, and so on.

    So every task has a score after as many cells as there are tasks.

    Raises:
        InputError: a task or split is not the track's.
        DataError: the data directory lacks splits.
    """
    unknown = sorted(set(choices.tasks) - set(files))
    if unknown:
        raise InputError(f"track {track.name} has no task {unknown[0]!r}; it has {', '.join(files)}")
    cells: list[tuple[int, Cell]] = []
    """Each with which of its task's splits it is."""
    for name, file in files.items():
        if choices.tasks and name not in choices.tasks:
            continue
        spec = track.tasks[name]
        task = file.task(track.profile, track.model.kind)
        there = splits_of(file, source, spec, choices.present_splits)
        chosen = [split for split in there if not choices.splits or split in choices.splits]
        cells += enumerate(Cell(file, task, split, spec, track.limits, source, choices.seed) for split in chosen)
    nowhere = sorted(set(choices.splits) - {cell.split for _, cell in cells})
    if nowhere or not cells:
        raise InputError(f"split {', '.join(map(str, nowhere))} is in no chosen task of track {track.name}")
    return [cell for _, cell in sorted(cells, key=lambda each: each[0])]


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


def _device_kind(track: Track, wanted: str | None) -> Literal["cpu", "cuda"]:
    """The kind of device, found to be here where it is a GPU."""
    if track.device_kind(wanted) == "cpu":
        return "cpu"
    from harness.lm import device  # noqa: PLC0415 - torch, which knows of GPUs

    return device.chosen(track, wanted)


def _relative_to_p0(cell: Cell) -> bool:
    """Whether a pre-trained p0 is for this cell: one trained on pairs of sentences is for pairs."""
    return cell.task.fields == 2  # noqa: PLR2004


def numeric_profile(track: Track) -> dict[str, object]:
    """How numbers were computed, as stored with a run: number format and the track's `Numerics`."""
    return {"dtype": track.model.dtype, **msgspec.to_builtins(track.numerics)}


def backend(track: Track) -> str:
    """What computes the model's forward passes: ``torch`` or ``onnxruntime``."""
    return "onnxruntime" if track.numerics.forward == "onnxruntime" else "torch"


def _on_backend(track: Track, wanted: str) -> Track:
    """The track on another backend; ONNX Runtime computes in float32."""
    if wanted not in {"torch", "onnxruntime"}:
        raise InputError(f"--backend {wanted}: torch or onnxruntime is needed")
    if wanted == backend(track):
        return track
    numerics = msgspec.structs.replace(track.numerics, forward="packed" if wanted == "torch" else wanted)
    model = msgspec.structs.replace(track.model, dtype=track.model.dtype if wanted == "torch" else "float32")
    return msgspec.structs.replace(track, given_numerics=numerics, model=model)


def replaced(track: Track, choices: Choices) -> Track:
    """The track with the command line's choices put in.

    Raises:
        InputError: a choice makes no sense.
    """
    if choices.model is not None:
        kind = kind_of(choices.model)
        model = msgspec.structs.replace(track.model, source=choices.model, kind=kind, revision=None)
        track = msgspec.structs.replace(track, model=model)
    if choices.backend is not None:
        track = _on_backend(track, choices.backend)
    if choices.calls is not None:
        if choices.calls <= 0:
            raise InputError(f"--calls {choices.calls}: a positive number of calls is needed")
        tasks = {name: msgspec.structs.replace(spec, calls=choices.calls) for name, spec in track.tasks.items()}
        track = msgspec.structs.replace(track, tasks=tasks)
    return track


def source_of(track: Track, choices: Choices) -> Source:
    """Where the examples come from, before what is staged is looked for.

    Raises:
        InputError: no such data directory.
    """
    if choices.data is None:
        return Source(track.data.source)
    if not choices.data.is_dir():
        raise InputError(f"--data {choices.data}: no such directory")
    directory = choices.data.absolute()  # ``.`` has no name
    return Source("hub" if track.data.source == "hub" and not _looks_like_kit(directory) else "kit", directory)


def _looks_like_kit(directory: Path) -> bool:
    return any(directory.glob("*/test.tsv"))
