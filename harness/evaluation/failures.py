"""What failed in an evaluation, as the results database and the engine tell it: for the end of the command."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError, SubmissionError
from harness.evaluation.run import check_access
from harness.results.status import COUNTS
from harness.sandbox.config_source import check_options
from harness.sandbox.presets import identity_sha256
from harness.sandbox.submission import entry_name, find

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from harness.evaluation.engines.job import Job
    from harness.evaluation.run import Plan
    from harness.results.records import RunKey, StoredCell
    from harness.results.store import Store
    from harness.sandbox.submission import Submission


@dataclass(frozen=True)
class Failure:
    """A line of the table."""

    entry: str
    status: str
    """How the cells ended; `not run` where there are none."""
    cells: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Entrant:
    """A folder that was given, and what its entry is called."""

    path: Path
    name: str | None = None
    """Instead of the folder's."""
    team: str | None = None

    def found(self) -> Submission:
        """The submission in the folder.

        Raises:
            SubmissionError: there is none, or it cannot be called so.
        """
        return find(self.path).called(self.name, self.team)


def check_names(found: Iterable[Submission]) -> None:
    """Refuse one name for two contents: the run of one would take the other's place in the ranking.

    Raises:
        InputError: which folders, and how to tell them apart.
    """
    known: dict[tuple[str, str], Submission] = {}
    for each in found:
        first = known.setdefault((each.team, each.name), each)
        if first.sha256 != each.sha256:
            whose = f" of team {each.team}" if each.team else ""
            raise InputError(
                f"{first.path} and {each.path} are both called {each.name}{whose} and are not the same (sha256 "
                f"{first.sha256[:12]} and {each.sha256[:12]}): one would take the other's place in the ranking. Say "
                "whose they are with --team, or what they are called with --as, once for each folder"
            )


def entrants(
    given: Iterable[Entrant], options: Mapping[str, str], white_box: bool
) -> tuple[list[Submission], list[Failure]]:
    """The submissions in these folders, and what is wrong with those that cannot be run.

    One that does not take the options is run all the same, if another one does: that is a status of its cells.

    Args:
        given: folders, in the order in which they are to be run.
        options: of every submission's Config, as NAME=VALUE.
        white_box: whether references may run.

    Raises:
        InputError: no submission can be run, with the first one's reason; or one name stands for two contents.
    """
    found: list[Submission] = []
    unusable: list[Failure] = []
    problems: list[InputError] = []
    good = 0
    for each in given:
        try:
            submission = each.found()
            check_access(submission, white_box)
        except InputError as problem:
            unusable.append(Failure(str(each.path), "not run", (), str(problem)))
            problems.append(problem)
            continue
        found.append(submission)
        try:
            check_options(submission, options)
            good += 1
        except InputError as problem:
            problems.append(problem)
    if problems and not good:
        raise problems[0]
    check_names(found)
    return found, unusable


def replacing(job: Job) -> list[str]:
    """Of what is about to run, the entries whose place in the ranking is another content's until now, in lines."""
    if job.choices.modified(job.track):
        return []  # not ranked
    newest: dict[tuple[str, str], RunKey] = {}
    for run in job.store.runs():
        key = run.key
        if key.track == job.track.name and key.access != "predictions" and not (key.modified or key.repeat):
            newest[key.team, key.entry] = key
    lines = []
    for each in dict.fromkeys(job.submissions):
        entry = entry_name(each.name, job.options)
        before = newest.get((each.team, entry))
        try:
            now = identity_sha256(each, job.options)
        except SubmissionError:
            continue  # no such preset, which its cells will say
        if before is not None and before.submission_sha256 not in {now, each.sha256_with_page}:
            lines.append(
                f"{before.label} was run before with other content (sha256 {before.submission_sha256[:12]}, now "
                f"{now[:12]}): the new run takes its place in the ranking. If this one is somebody else's, give --team "
                "or --as"
            )
    return lines


def failures(
    plan: Plan,
    store: Store,
    submissions: Iterable[Submission],
    options: Mapping[str, str],
    abandoned: Mapping[str, str],
) -> list[Failure]:
    """What failed of the cells that were asked for, now or in an earlier run; a line for each entry and status.

    Args:
        plan: what was asked for.
        store: where the outcomes are.
        submissions: those that were run.
        options: of their Config.
        abandoned: entries that were not run to their end, with the reason.

    Returns:
        The lines, in the order of the submissions.
    """
    asked = {(cell.task.name, cell.split) for cell in plan.cells}
    found: list[Failure] = []
    for submission in dict.fromkeys(submissions):
        run = plan.peek(store, submission, options)
        if run.entry in abandoned:
            found.append(Failure(run.entry, "not run", (), _last_line(abandoned[run.entry])))
        failed = [place for place in sorted(store.failed(run.id)) if place in asked]
        if failed:
            cells = [cell for cell in store.cells(run.id) if (cell.task, cell.split) in failed]
            found += _lines(run.entry, [cell for cell in cells if cell.status not in COUNTS])
    return found


def _lines(entry: str, cells: Sequence[StoredCell]) -> list[Failure]:
    by_status: dict[str, list[StoredCell]] = defaultdict(list)
    for cell in cells:
        by_status[cell.status].append(cell)
    return [
        Failure(
            entry,
            status,
            tuple(f"{cell.task}/{cell.split}" for cell in those),
            _last_line(those[0].record.detail or those[0].record.output),
        )
        for status, those in by_status.items()
    ]


def _last_line(text: str) -> str:
    """Of a traceback, the line that says what it is."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
