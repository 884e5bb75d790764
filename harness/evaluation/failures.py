"""Lists what failed in an evaluation, from the results database and the engine. It is shown at the command's end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError, SubmissionError
from harness.evaluation.access import check_access
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
    """One line of the table of failures."""

    entry: str
    status: str
    """The status of the cells; `not run` if there are none."""
    cells: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Entrant:
    """A folder that was given, and the name of its entry."""

    path: Path
    name: str | None = None
    """A name that replaces the folder's."""
    team: str | None = None

    def found(self) -> Submission:
        """The submission in the folder.

        Raises:
            SubmissionError: there is no submission, or the name is not allowed.
        """
        return find(self.path).called(self.name, self.team)


def check_names(found: Iterable[Submission]) -> None:
    """Refuse one name for two different contents. One run would replace the other in the ranking.

    Raises:
        InputError: two folders share a name. The message says which, and how to give them different names.
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
    """Find the submissions in these folders, and say why the others cannot be run.

    A submission that refuses the options still runs if another one accepts them. Its cells then get a status.

    Args:
        given: folders, in the order in which they are to be run.
        options: values for every submission's Config, as NAME=VALUE.
        white_box: whether white-box references may run.

    Raises:
        InputError: no submission can be run (with the reason of the first one), or one name stands for two contents.
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
    """Lines for the entries that will replace an older run with other content in the ranking."""
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
            continue  # no such preset: the cells' status will say so
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
    """The requested cells that failed, now or in an earlier run: one line for each entry and status.

    Args:
        plan: the cells that were requested.
        store: the database that holds the outcomes.
        submissions: the submissions that were run.
        options: values of their Config's fields.
        abandoned: entries that were stopped before all cells were run, with the reason.

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
    """The last line of a traceback, which names the error."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
