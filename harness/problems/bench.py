"""`harness bench`: a suite of optimizers on language-model objectives, resumable, in a results database."""

from __future__ import annotations

import itertools
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from harness.errors import InputError, ModelError, StoreError
from harness.evaluation.environment import package_version
from harness.evaluation.overrides import Overrides
from harness.problems.adapters import minimize, parsed
from harness.problems.opening import on_cell, planned, prepare
from harness.problems.trials import trial_of

if TYPE_CHECKING:
    from harness.evaluation.run import Evaluation
    from harness.problems.spec import Spec
    from harness.problems.trials import Trial
    from harness.results.store import Store

_DISTRIBUTIONS = {"random": "numpy"}
"""The package behind an adapter, if its name differs from the adapter's."""


@dataclass(frozen=True)
class Job:
    """One optimizer on one problem with one seed."""

    optimizer: str
    task: str
    split: int
    dim: int
    seed: int

    def __str__(self) -> str:
        """The name that the progress display shows."""
        return f"{self.optimizer}  {self.task}/{self.split}  dim {self.dim}  seed {self.seed}"


@dataclass(frozen=True)
class Suite:
    """Optimizers x tasks x splits x dims x seeds."""

    optimizers: tuple[str, ...]
    tasks: tuple[str, ...]
    splits: tuple[int, ...]
    dims: tuple[int, ...]
    seeds: tuple[int, ...]
    budget: int | None
    """Calls of each trial; None is the track's."""
    spec: Spec
    """The search space and the loss, without `dims`."""
    track: str = "mini"
    choices: Overrides = Overrides()  # noqa: RUF009 - a frozen value
    """What replaces the track's choices: model, data, or a server in the place of the model."""

    @property
    def jobs(self) -> list[Job]:
        """All trials. Every optimizer has its trial on a problem before the next problem begins."""
        each = itertools.product(self.seeds, self.splits, self.tasks, self.dims, self.optimizers)
        return [Job(optimizer, task, split, dim, seed) for seed, split, task, dim, optimizer in each]

    def check(self) -> None:
        """Refuse what can be refused before the model is loaded.

        Raises:
            InputError: something is empty, named twice, out of range, or unknown.
        """
        for name in ("optimizers", "tasks", "splits", "dims", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"--{name} {','.join(map(str, values))}: at least one is needed, and each once")
        for optimizer in self.optimizers:
            library, _ = parsed(optimizer)
            if package_version(_DISTRIBUTIONS.get(library, library)) == "absent":
                raise InputError(f'{library} is not installed; run: pip install -e ".[optimizers]"')
        if min(self.dims) < 1 or min(self.seeds) < 0:
            raise InputError("--dims are at least 1, and --seeds at least 0")
        if self.spec.space == "template":
            raise InputError(
                "--space template: a list of templates cannot be given here; harness.problem takes one "
                "(docs/optimizers.md). Take --space input, deep, words or mixed"
            )


class Progress(Protocol):
    """Receives the events of a suite, to show its progress."""

    def began(self, number: int, of: int, job: Job) -> None:
        """A trial starts."""
        ...

    def ended(self, number: int, of: int, job: Job, trial: Trial, *, again: bool) -> None:
        """A trial is finished, now or, with `again`, by an earlier command."""
        ...

    def failed(self, number: int, of: int, job: Job, problem: str) -> None:
        """A trial ended without a result; the suite goes on."""
        ...


def run(suite: Suite, store: Store, progress: Progress) -> list[Trial]:
    """Run what is missing of a suite, and return all trials that have a result.

    It may be interrupted and called again: a finished trial is read from the store. An optimizer that raises ends its
    own trial alone, and is tried again by the next call.

    Args:
        suite: what is run.
        store: where ledgers and results are kept.
        progress: is told of each trial.

    Raises:
        InputError: something of the suite is wrong or unknown.
        HarnessError: the model cannot be loaded, or the store not be written.
    """
    suite.check()
    choices = replace(suite.choices, tasks=suite.tasks, splits=suite.splits)
    with closing(prepare(store, suite.track, suite.budget, choices)) as evaluation:
        return _trials(suite, evaluation, store, progress)


def _trials(suite: Suite, evaluation: Evaluation, store: Store, progress: Progress) -> list[Trial]:
    """Run what is missing of a suite on a loaded track, and return all trials that have a result.

    Raises:
        InputError: the track has no such split.
    """
    there = {(cell.task.name, cell.split) for cell in evaluation.cells}
    lacking = sorted({(job.task, job.split) for job in suite.jobs} - there)
    if lacking:
        raise InputError(f"track {suite.track} has no split {lacking[0][1]} of {lacking[0][0]}")
    found, jobs = [], suite.jobs
    for number, job in enumerate(jobs, start=1):
        name, spec = entry_of(job.optimizer), replace(suite.spec, dim=job.dim)
        run_id = planned(name, job.seed, spec).id(evaluation)
        again = (job.task, job.split) in store.finished(run_id)
        if not again:
            progress.began(number, len(jobs), job)
            problem = _trial(evaluation, store, name, job, spec)
            if problem:
                progress.failed(number, len(jobs), job, problem)
                continue
        (cell,) = [each for each in store.cells(run_id) if (each.task, each.split) == (job.task, job.split)]
        trial = trial_of(cell, job.optimizer, job.dim, job.seed)
        if trial is None:
            progress.failed(number, len(jobs), job, f"its answer could not be scored: {cell.status}")
            continue
        found.append(trial)
        progress.ended(number, len(jobs), job, trial, again=again)
    return found


def entry_of(optimizer: str) -> str:
    """Name of an optimizer's runs. It includes the version, because another version may search differently."""
    library, _ = parsed(optimizer)
    distribution = _DISTRIBUTIONS.get(library, library)
    return f"{optimizer}@{distribution}-{package_version(distribution)}"


def _trial(evaluation: Evaluation, store: Store, name: str, job: Job, spec: Spec) -> str:
    """Run one trial. Return the reason if it has no result, or an empty text."""
    try:
        with on_cell(evaluation, store, name, job.task, job.split, job.seed, spec) as problem:
            with warnings.catch_warnings(action="ignore"):  # warnings of libraries about their internals
                minimize(job.optimizer, problem, job.seed)
            problem.test_score()
    except (InputError, StoreError, ModelError):
        raise
    except Exception as failure:  # noqa: BLE001 - a library may raise any exception
        return f"{type(failure).__name__}: {failure}"
    return ""
