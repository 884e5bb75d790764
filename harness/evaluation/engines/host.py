"""The host of a device: it loads the model once and runs cells on it. It is a Ray actor, written in plain Python.

A `HarnessError` is returned, not raised, so that its message arrives without a traceback of Ray.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, SubmissionError
from harness.results.store import Store
from harness.sandbox.submission import PRESETS, of_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.evaluation.overrides import Overrides
    from harness.evaluation.referee import Verdict
    from harness.evaluation.run import Evaluation, Plan
    from harness.sandbox.submission import Submission
    from harness.tracks.tiers import Tier
    from harness.tracks.track import Track

_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Parcel:
    """A submission folder as it is sent to other machines, which need not share a file system."""

    path: str
    """Path of the folder on the machine that read it, for messages."""
    sha256: str
    files: tuple[tuple[str, bytes], ...]
    options: Mapping[str, str]
    presets: bytes = b""

    @classmethod
    def of(cls, submission: Submission, options: Mapping[str, str]) -> Parcel:
        """Pack the files that the digest covers, and the presets."""
        return cls(str(submission.path), submission.sha256, submission.files, options, submission.presets)

    def unpack(self) -> Submission:
        """Unpack the submission without writing any file.

        Raises:
            SubmissionError: the received files differ from the sent ones.
        """
        found = of_files(Path(self.path), (*self.files, (PRESETS, self.presets)))
        if found.sha256 != self.sha256:
            raise SubmissionError(
                f"{self.path}: changed while it was sent: {found.sha256[:12]} arrived, {self.sha256[:12]} was planned. "
                "Run the same command again"
            )
        return found


@dataclass(frozen=True)
class Loaded:
    """What a host reports when its model is loaded."""

    plan: Plan
    """The cells that will be run, and the identity of the runs."""
    tier: Tier | None
    """Isolation tier of its workers; None if no workers will run."""
    oddities: tuple[str, ...] = ()
    """Lines about unusual data that it found."""


class Host:
    """One device with one copy of the weights. Several cells run at once and take turns on it."""

    def __init__(self, track: Track, choices: Overrides, store: str, threads: str | None, isolated: bool) -> None:
        """Set the driver's thread count before torch is loaded, because Ray sets another one.

        Args:
            track: the track, before any override.
            choices: the overrides of the track. Their paths are valid on this machine.
            store: path or URL of the results database, as this machine reaches it.
            threads: the driver's OMP_NUM_THREADS; None if it is not set.
            isolated: whether workers will run here.
        """
        if threads is None:
            os.environ.pop(_THREADS, None)
        else:
            os.environ[_THREADS] = threads
        self._track, self._choices, self._url, self._isolated = track, choices, store, isolated
        self._evaluation: Evaluation | None = None

    def load(self) -> Loaded | HarnessError:
        """Load the model, and find the isolation tier of workers on this machine."""
        from harness.evaluation.run import Evaluation  # noqa: PLC0415 - imports torch

        try:
            self._evaluation = Evaluation(self._track, self._choices, Store(self._url))
            tier = self._evaluation.tier if self._isolated else None
            return Loaded(self._evaluation.plan, tier, self._evaluation.oddities)
        except HarnessError as problem:
            return problem

    def run_cell(
        self, parcel: Parcel, run: str, number: int, replaces: int | None = None
    ) -> Verdict | HarnessError | None:
        """Run a planned cell of an open run. Return None if another process has finished it meanwhile.

        The outcome replaces that of the attempt `replaces`.
        """
        evaluation = self._evaluation
        if evaluation is None:
            raise RuntimeError("load comes first")
        cell = evaluation.plan.cells[number]
        try:
            if evaluation.is_done(run, cell, replaces):
                return None
            submission = parcel.unpack()
            return evaluation.run_cell(run, cell, submission, parcel.options, lambda _rows, _note: None, replaces)
        except HarnessError as problem:
            return problem
