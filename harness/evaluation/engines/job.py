"""The job of an engine: what it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.evaluation.overrides import Overrides
    from harness.results.store import Store
    from harness.sandbox.submission import Submission
    from harness.tracks.track import Track


@dataclass(frozen=True)
class Job:
    """Submissions to be run on a track."""

    track: Track
    choices: Overrides
    store: Store
    submissions: tuple[Submission, ...]
    options: Mapping[str, str]
    """Options for every submission's Config, as NAME=VALUE."""
    again: bool = False
    """Whether failed cells are run once more."""

    @property
    def isolated(self) -> bool:
        """Whether workers run. References need none, because they train in the referee's process."""
        return any(submission.access == "black-box" for submission in self.submissions)
