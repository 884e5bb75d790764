"""Plans the cells of a run, skips those that are finished, and runs the rest in order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args

import msgspec

from harness.errors import SubmissionError
from harness.evaluation import known_plan
from harness.evaluation.access import check_access, check_cells
from harness.evaluation.environment import environment, environment_sha256, onnxruntime_version
from harness.evaluation.overrides import backend_of
from harness.evaluation.preparation import Preparation, relative_to_p0
from harness.evaluation.referee import Cell, Verdict, run_cell, run_reference
from harness.results.records import RunKey
from harness.sandbox import best_tier
from harness.sandbox.presets import identity_sha256
from harness.sandbox.submission import Access, entry_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Watch
    from harness.lm.endpoint.model import EndpointModel
    from harness.lm.model import LanguageModel
    from harness.lm.served import Served
    from harness.results.records import StoredCell
    from harness.results.store import Store
    from harness.sandbox.submission import Submission
    from harness.tracks.tiers import Tier
    from harness.tracks.track import Track


class Progress(Protocol):
    """Receives the events of an evaluation, to show its progress."""

    def isolated(self, tier: Tier) -> None:
        """Workers of submissions will run in this tier of isolation."""
        ...

    def noticed(self, lines: Sequence[str]) -> None:
        """Lines about unusual data; usually there are none."""
        ...

    def served(self, lines: Sequence[str]) -> None:
        """Lines about the server of a served model: what it gives, and when it makes requests wait."""
        ...

    def planned(
        self, entry: str, cells: Sequence[Cell], todo: Sequence[Cell], before: Sequence[StoredCell] = ()
    ) -> None:
        """A run is about to start. All its cells but those in `todo` are in the store already: those `before`."""
        ...

    def began(self, entry: str, cell: Cell) -> None:
        """A cell starts."""
        ...

    def spent(self, rows: int, note: Mapping[str, float]) -> None:
        """Rows charged so far in this cell, and the note of the current answer.

        When the submission is gone and its answers write, the note has how many test texts are `written`, of `texts`.
        """
        ...

    def ended(self, entry: str, cell: Cell, verdict: Verdict) -> None:
        """A cell ended."""
        ...

    def abandoned(self, entry: str, problem: str) -> None:
        """A submission cannot be run, or has stopped before its end. The others go on."""
        ...


@dataclass(frozen=True)
class Plan:
    """The cells that are run for every submission, and the identity of the run. Plain data, without the model."""

    cells: tuple[Cell, ...]
    base: RunKey
    """The identity of a run, without the fields that depend on the submission."""
    environments: Mapping[Access, dict[str, Any]]
    numerics: dict[str, object]
    white_box: bool
    """Whether white-box references may run."""

    def open(self, store: Store, submission: Submission, options: Mapping[str, str], *, again: bool = False) -> OpenRun:
        """Record the run of a submission, unless it is stored already, and find its missing cells.

        With `again`, failed cells are run again, too.

        Raises:
            InputError: the submission is a white-box reference, and the choices do not allow it.
            SubmissionError: an organiser's ruling does not allow it.
        """
        self._check(submission)
        run = self.record(store, submission.access, **_own(submission, options))
        return self._opened(store, run, submission, options, again)

    def peek(self, store: Store, submission: Submission, options: Mapping[str, str], *, again: bool = False) -> OpenRun:
        """Like `open`, but nothing is recorded.

        Args:
            store: the database in which the run is looked up.
            submission: the submission that would be run.
            options: values of its Config's fields.
            again: whether failed cells are run again, too.

        Returns:
            The run, with the id that it has or would get.

        Raises:
            InputError: as `open`.
        """
        self._check(submission)
        run = self._key(submission.access, **_own(submission, options)).id
        return self._opened(store, run, submission, options, again)

    def record(self, store: Store, access: Access, *, ruled: bool = True, **own: Any) -> str:
        """Record a run, unless it is stored already, and return its id. `own` are the fields of `RunKey` for this run.

        Raises:
            SubmissionError: the run is new, and an organiser's ruling forbids it. With `ruled` False, none counts.
        """
        environment = self.environments[access] | {"numerics": self.numerics}
        return store.open_run(self._key(access, **own), environment, ruled=ruled)

    def label(self, submission: Submission, options: Mapping[str, str]) -> str:
        """The entry's name as it is shown to people."""
        return dataclasses.replace(self.base, entry=entry_name(submission.name, options), team=submission.team).label

    def run_id(self, access: Access, **own: Any) -> str:
        """The id that `record` gives a run, without recording it."""
        return self._key(access, **own).id

    def _key(self, access: Access, **own: Any) -> RunKey:
        digest = environment_sha256(self.environments[access])
        return dataclasses.replace(self.base, access=access, environment_sha256=digest, **own)

    def _check(self, submission: Submission) -> None:
        check_access(submission, self.white_box)
        check_cells(submission, self.cells, self.base.external)

    def _opened(
        self, store: Store, run: str, submission: Submission, options: Mapping[str, str], again: bool
    ) -> OpenRun:
        failed = store.failed(run) if again else {}
        finished = store.finished(run) - set(failed)
        todo = tuple(c for c in self.cells if (c.task.name, c.split) not in finished)
        return OpenRun(run, self.label(submission, options), todo, failed)


def _own(submission: Submission, options: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `RunKey` that depend on the submission."""
    given = tuple(sorted(options.items()))
    entry = entry_name(submission.name, options)
    digest = identity_sha256(submission, options)
    return {"entry": entry, "team": submission.team, "submission_sha256": digest, "options": given}


@dataclass(frozen=True)
class OpenRun:
    """A run in the store, and the cells that are still missing."""

    id: str
    entry: str
    todo: tuple[Cell, ...]
    failed: Mapping[tuple[str, int], int]
    """For each cell that is run again, the attempt whose outcome will be replaced."""

    def before(self, store: Store) -> list[StoredCell]:
        """The finished cells of the run that are not run again."""
        again = {(cell.task.name, cell.split) for cell in self.todo}
        return [cell for cell in store.cells(self.id) if (cell.task, cell.split) not in again]

    def replaces(self, cell: Cell) -> int | None:
        """The attempt whose outcome the cell's next attempt replaces; None if the cell has no outcome."""
        return self.failed.get((cell.task.name, cell.split))


class Evaluation:
    """A track with its model and data loaded, ready to run submissions."""

    def __init__(self, track: Track, choices: Overrides, store: Store, prepared: Preparation | None = None) -> None:
        """Check data and cells first, unless they are `prepared`, then load the model.

        Args:
            track: the track, as its file says.
            choices: the command line's overrides of the track.
            store: the database that holds the facts.
            prepared: the same track and choices, already checked; None checks them now.

        Raises:
            InputError: the data or the choices do not fit the track.
            FetchError: the track's model or data are neither staged nor available.
            ModelError: the model cannot be loaded.
        """
        from harness.evaluation.pretrain import read_p0  # noqa: PLC0415
        from harness.lm import device  # noqa: PLC0415 - this and the next two import torch: `Preparation` comes first
        from harness.lm.load import load_model  # noqa: PLC0415

        self.store = store
        self._sandbox = choices.sandbox
        prepared = prepared or Preparation(track, choices)
        self.track, self.oddities, self._p0 = prepared.track, prepared.oddities, None
        self.lm: Served
        self._with_p0: Served
        self._server: EndpointModel | None = None
        if backend_of(self.track) == "openai":
            self._server = served = _connected(self.track, choices)
            self.lm, self._with_p0, self.device = served, served, served.ranked_as
        else:
            numerics = self.track.numerics
            own = load_model(self.track.model, self.track.prompt, device=prepared.kind, numerics=numerics)
            self._p0 = None if choices.p0 is None else read_p0(choices.p0, own)
            self.lm, self._with_p0 = own, own.with_p0(self._p0.values, self._p0.mode) if self._p0 else own
            self.device = device.name(prepared.kind)
        runtime = {"onnxruntime": onnxruntime_version()} if backend_of(self.track) == "onnxruntime" else {}
        allowed: dict[str, Any] = {"allowed": prepared.allowed} if prepared.allowed else {}
        facts = device.facts(prepared.kind) | runtime | allowed
        self.plan = Plan(
            tuple(self._fitted(cell) for cell in prepared.cells),
            self._base(prepared),
            {access: environment(facts, reference=access == "white-box") for access in get_args(Access)},
            numeric_profile(self.track, self.lm.format),
            choices.white_box,
        )

    def tell(self, told: Callable[[Sequence[str]], None], patience_s: float | None = None) -> None:
        """Say what the server of a served model gives, and later when it makes requests wait (`EndpointModel.tell`)."""
        if self._server is not None:
            of_text = any(not cell.task.classes for cell in self.cells)
            told([*self._server.found.lines(), *(self._server.text_found.lines() if of_text else ())])
            self._server.tell(lambda line: told([line]), patience_s)

    def close(self) -> None:
        """Close the connections to the server of a served model."""
        if self._server is not None:
            self._server.close()

    def run(
        self, submission: Submission, options: Mapping[str, str], progress: Progress, *, again: bool = False
    ) -> str:
        """Run the missing cells of one submission and return the run's id. It may be interrupted and called again.

        With `again`, failed cells are run once more, and the new outcome replaces the failure.

        Raises:
            InputError: the submission is a white-box reference, and the choices do not allow it.
        """
        run = self.plan.open(self.store, submission, options, again=again)
        progress.planned(run.entry, self.cells, run.todo, run.before(self.store))
        for cell in run.todo:
            replaces = run.replaces(cell)
            if self.is_done(run.id, cell, replaces):
                continue  # another process has finished it meanwhile
            progress.began(run.entry, cell)
            verdict = self.run_cell(run.id, cell, submission, options, progress.spent, replaces)
            progress.ended(run.entry, cell, verdict)
        return run.id

    def is_done(self, run: str, cell: Cell, replaces: int | None = None) -> bool:
        """Whether a cell has an outcome from another attempt than `replaces`."""
        place = cell.task.name, cell.split
        return place in self.store.finished(run) and (replaces is None or self.store.failed(run).get(place) != replaces)

    def run_cell(
        self,
        run: str,
        cell: Cell,
        submission: Submission,
        options: Mapping[str, str],
        watch: Watch,
        replaces: int | None = None,
    ) -> Verdict:
        """Run one cell of an open run. Several threads may call this at once; their forward passes take turns.

        A reference has exclusive use of the model until it ends. The outcome replaces that of the attempt `replaces`.

        Raises:
            SandboxError: no worker can be isolated.
        """
        white_box, lm = submission.access == "white-box", self.model_for(cell)
        tier = None if white_box else self.tier  # may raise, so it comes before anything is recorded
        attempt = self.store.begin(run, cell.task.name, cell.split, replaces)
        try:
            if white_box:
                own = cast("LanguageModel", lm)  # `check_endpoint` refuses --white-box with a server
                with own.device_lock:
                    return run_reference(cell, submission, options, own, attempt, watch)
            return run_cell(cell, submission, options, lm, attempt, watch, tier)
        except SubmissionError:
            attempt.withdraw()
            raise

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are run for every submission."""
        return self.plan.cells

    def model_for(self, cell: Cell) -> Served:
        """The model that serves this cell's submission: with the pre-trained prompt, if the cell uses one."""
        return self._with_p0 if relative_to_p0(cell) else self.lm

    @cached_property
    def tier(self) -> Tier:
        """The isolation tier of all workers: the best one on this machine, or the chosen one.

        Raises:
            SandboxError: no worker can be started in any tier.
        """
        return self._sandbox or best_tier.best().tier

    def _fitted(self, cell: Cell) -> Cell:
        """The cell with label words that are tokens of the model. Some profiles use the first token of each word."""
        task = cell.file.wording(self.track.profile, self.track.model.kind, self.lm)
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
            modified=choices.modified(given),
            external=self._p0.name if self._p0 else "",
            calls=choices.calls,
            repeat=choices.repeat,
        )


def _connected(track: Track, choices: Overrides) -> EndpointModel:
    from harness.lm.endpoint.model import connect  # noqa: PLC0415 - torch, as `Evaluation`

    served = choices.served_model or (track.endpoint.served if track.endpoint else "")
    return connect(track.model, track.prompt, choices.endpoint or "", served or None, choices.concurrency)


def numeric_profile(track: Track, dtype: str) -> dict[str, object]:
    """How numbers are computed, as stored with a run: the number format used here and the track's `Numerics`."""
    return {"dtype": dtype, **msgspec.to_builtins(track.numerics)}


def plan_known_before(prepared: Preparation) -> Plan | None:
    """The plan, if the model's part of the run's identity is known from an earlier command; None if it is not.

    Its cells have the label words of the task file, not those fitted to the model. So they can be named but not run.
    """
    key = known_plan.key_of(prepared)
    known = None if key is None else known_plan.read(key)
    if known is None:
        return None
    return Plan(tuple(prepared.cells), known.base, known.environments, known.numerics, prepared.choices.white_box)


def keep(prepared: Preparation, plan: Plan) -> None:
    """Keep a plan that was made with the loaded model, for `plan_known_before`."""
    key = known_plan.key_of(prepared)
    if key is not None:
        known_plan.write(key, known_plan.KnownPlan(plan.base, dict(plan.environments), plan.numerics))
