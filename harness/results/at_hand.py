"""The data at hand, for the audit: what is stored of test sets and examples is compared with them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.results import tables
from harness.tracks.examples import examples_sha256, load_shots, load_test, splits_of
from harness.tracks.track import track_tasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.tracks.examples import Source
    from harness.tracks.tasks import TaskFile
    from harness.tracks.track import Track


@dataclass(frozen=True)
class DataHere:
    """Data that are at hand under a name, to be compared with those that runs used under that name."""

    name: str
    """As `RunKey.data` has it."""
    tests: Mapping[str, str]
    """Digest of the test set by task."""
    shots: Mapping[tuple[str, int], tuple[str, str]]
    """Digests of training and dev examples by task and split."""

    def differs(self, task: str, split: int, test: str, shots: Sequence[str]) -> list[str]:
        """What a cell used that is not what is here now, in words; nothing of what is not here at all."""
        found = []
        if self.tests.get(task, test) != test:
            found.append(f"{task} was scored on another test set than {self.name} has now")
        if shots and self.shots.get((task, split), tuple(shots)) != tuple(shots):
            found.append(f"{task}/{split} was tuned on other examples than {self.name} has now")
        return found


def data_here(track: Track, source: Source) -> DataHere:
    """Digests of the data that a source has for a track; what it lacks is left out."""
    tests: dict[str, str] = {}
    shots: dict[tuple[str, int], tuple[str, str]] = {}
    for name, file in track_tasks(track).items():
        with contextlib.suppress(DataError):
            tests[name] = examples_sha256(load_test(file, source))
            for split in splits_of(file, source, track.tasks[name], present_only=True):
                drawn = load_shots(file, source, split, track.tasks[name])
                shots[name, split] = examples_sha256(drawn.train), examples_sha256(drawn.dev)
    return DataHere(str(source), tests, shots)


def labels_at_hand(files: Iterable[TaskFile], source: Source) -> dict[str, bytes]:
    """Labels of the test sets a source has, as the database keeps them, by digest; those it lacks are passed over."""
    found = {}
    for file in files:
        try:
            test = load_test(file, source)
        except DataError:
            continue
        found[examples_sha256(test)] = tables.class_bytes(test.labels)
    return found
