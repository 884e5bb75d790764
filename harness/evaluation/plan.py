"""`harness plan`: the cells of a competition as lines of text, for schedulers that start each cell separately.

A line names a cell and holds two digests: one of the submission, and one of the track with the given choices. If the
line is later run with another submission, track or choices, an error says so before anything runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode

from harness.errors import InputError
from harness.evaluation.access import check_access
from harness.evaluation.preparation import chosen_cells, replaced, source_of
from harness.sandbox.submission import find
from harness.tracks.track import track_tasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.evaluation.overrides import Overrides
    from harness.sandbox.submission import Submission
    from harness.tracks.track import Track

_BASIS, _SHA256 = 8, 12
_FORM = re.compile(
    rf"(?P<track>[^/@?]+)@(?P<basis>[0-9a-f]{{{_BASIS}}})/(?P<submission>[^/@?]+)@(?P<sha256>[0-9a-f]{{{_SHA256}}})"
    r"/(?P<task>[^/@?]+)/(?P<split>\d+)(\?(?P<options>.*))?"
)


@dataclass(frozen=True)
class CellId:
    """The name of one cell of one submission: ``TRACK@BASIS/SUBMISSION@SHA256/TASK/SPLIT?OPTIONS``, percent-encoded."""

    track: str
    basis: str
    """Digest of the track's content and of the choices given with it, see `basis_of`."""
    submission: str
    """Name of the entry, after ``TEAM/`` if it has a team."""
    sha256: str
    """The first characters of the digest of the submission's folder."""
    task: str
    split: int
    options: tuple[tuple[str, str], ...] = ()
    """Options of the submission's Config, sorted."""

    def __str__(self) -> str:
        """The line of a plan."""
        track, submission, task = (quote(name, safe="") for name in (self.track, self.submission, self.task))
        options = f"?{urlencode(self.options)}" if self.options else ""
        return f"{track}@{self.basis}/{submission}@{self.sha256}/{task}/{self.split}{options}"

    @classmethod
    def parse(cls, text: str) -> CellId:
        """Read a line of a plan.

        Raises:
            InputError: the text is not a line of a plan.
        """
        found = _FORM.fullmatch(text.strip())
        if found is not None:
            track, submission, task = (unquote(found[name]) for name in ("track", "submission", "task"))
            options = tuple(sorted(parse_qsl(found["options"] or "", keep_blank_values=True)))
            made = cls(track, found["basis"], submission, found["sha256"], task, int(found["split"]), options)
            if str(made) == text.strip():
                return made
        raise InputError(f"--cell {text!r}: not a line of `harness plan`, TRACK@DIGEST/SUBMISSION@DIGEST/TASK/SPLIT")


def plan(
    track: Track, choices: Overrides, submissions: Iterable[Submission], options: Mapping[str, str]
) -> list[CellId]:
    """List the cells that `harness evaluate` would run with the same arguments, in its order. No model is loaded.

    Raises:
        InputError: the choices do not fit the track, a submission is named twice, or a submission is a white-box
            reference and the choices do not allow it.
        DataError: the data directory lacks splits.
    """
    submissions = list(submissions)
    for each in submissions:
        check_access(each, choices.white_box)
    changed = replaced(track, choices)
    cells = chosen_cells(changed, track_tasks(changed), source_of(track, choices), choices)
    basis, given = basis_of(track, choices), tuple(sorted(options.items()))
    found = [
        CellId(track.name, basis, entry, each.sha256[:_SHA256], cell.task.name, cell.split, given)
        for each in submissions
        for entry in [f"{each.team}/{each.name}" if each.team else each.name]
        for cell in cells
    ]
    if len(set(found)) != len(found):
        raise InputError("a submission is named twice; name each once, so that its cells run once")
    return found


def basis_of(track: Track, choices: Overrides) -> str:
    """Digest of what a cell's result depends on beside the submission: the track, and the choices that override it."""
    return hashlib.sha256(json.dumps([track.fingerprint, *choices.basis()]).encode()).hexdigest()[:_BASIS]


def planned(cell: CellId, track: Track, choices: Overrides, folders: Sequence[Path]) -> tuple[Overrides, Submission]:
    """Find what to evaluate for one line of a plan: the choices for its cell alone, and its submission.

    The submission is searched in `folders`, or in ``submissions/<name>`` if `folders` is empty.

    Raises:
        InputError: the track, the choices or the submission differ from those of the plan, or there is no such cell.
    """
    if cell.track != track.name:
        raise InputError(f"cell {cell} is of track {cell.track}, not {track.name}; give evaluate the plan's --track")
    if cell.basis != basis_of(track, choices):
        raise InputError(
            f"cell {cell} was planned with another version of track {track.name}, or with other choices: give evaluate "
            "the plan's --data, --model, --calls, --seed, --device, --backend, --p0 and --test-data, or plan again"
        )
    team, _, name = cell.submission.rpartition("/")
    known = [find(folder) for folder in folders or [Path("submissions") / name]]
    # A folder with another name was planned with --as. Its content identifies it.
    named = [each for each in known if each.name == name] or [e for e in known if e.sha256.startswith(cell.sha256)]
    if not named:
        there = ", ".join(each.name for each in known)
        raise InputError(f"cell {cell} is of submission {name}, and only {there} is given")
    same = [each for each in named if each.sha256.startswith(cell.sha256)]
    if not same:
        raise InputError(
            f"cell {cell} was planned with another version of {named[0].path}, whose digest is "
            f"{named[0].sha256[:_SHA256]} now, {cell.sha256} then; bring that version back, or plan again"
        )
    return choices.only(cell.task, cell.split), same[0].called(name, team)
