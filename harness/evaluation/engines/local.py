"""The engine that needs nothing: one cell after the other, in this process."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from harness.errors import HarnessError, SandboxError, SubmissionError
from harness.evaluation.preparation import Preparation
from harness.evaluation.run import Evaluation, keep, plan_known_before
from harness.sandbox import best_tier
from harness.sandbox.config_source import check_options
from harness.sandbox.presets import variants
from harness.sandbox.trial import try_config

if TYPE_CHECKING:
    from harness.evaluation.engines.job import Job
    from harness.evaluation.run import Plan, Progress
    from harness.sandbox.submission import Submission


def run(job: Job, progress: Progress) -> Plan:
    """Run what is missing of every submission; return what was planned.

    The model is loaded only where something is missing, and after everything else was found to be right. What is wrong
    with one submission is a status of its cells, or is told to `progress`, and the others go on. Only where none of
    them can be imported or takes the options nothing is run.

    Raises:
        SubmissionError: no submission can be run; the first one's reason.
        HarnessError: as `Preparation`, `Evaluation` and its `run`.
    """
    prepared = Preparation(job.track, job.choices)
    progress.noticed(prepared.oddities)
    known = plan_known_before(prepared)
    opened = [known.peek(job.store, each, job.options, again=job.again) for each in job.submissions] if known else []
    if known is not None and not any(run.todo for run in opened):
        for each in opened:
            progress.planned(each.entry, known.cells, each.todo)
        return known
    runs = dict(zip(job.submissions, opened, strict=True)) if opened else {}
    todo = [each for each in dict.fromkeys(job.submissions) if each not in runs or runs[each].todo]
    problems = [problem for each in todo if (problem := _refused(job, each)) is not None]
    if problems and len(problems) == len(set(job.submissions)):
        raise problems[0]
    evaluation = Evaluation(job.track, job.choices, job.store, prepared)
    keep(prepared, evaluation.plan)
    if job.isolated:
        progress.isolated(evaluation.tier)
    for submission in job.submissions:
        _run(evaluation, job, submission, progress)
    return evaluation.plan


def _run(evaluation: Evaluation, job: Job, submission: Submission, progress: Progress) -> None:
    """Run one submission. An error of this program that it has brought about ends it alone, without an outcome.

    Raises:
        HarnessError: what would meet the others as well: a database, data or a model that cannot be used.
    """
    entry = evaluation.plan.label(submission, job.options)
    try:
        evaluation.run(submission, job.options, progress, again=job.again)
    except (SandboxError, SubmissionError) as problem:
        progress.abandoned(entry, str(problem))
    except (HarnessError, OSError):
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the other submissions have no part in it
        progress.abandoned(entry, f"an error of this program, please report it:\n{traceback.format_exc()}")


def _refused(job: Job, submission: Submission) -> SubmissionError | None:
    """What keeps a submission from being run; a worker is asked where its source does not tell.

    Raises:
        SandboxError: no worker can be isolated.
    """
    try:
        settled = check_options(submission, job.options)
        if not settled and submission.access == "black-box":
            for options in variants(submission, job.options):
                try_config(submission, options, job.track.limits, job.choices.sandbox or best_tier.best().tier)
    except SubmissionError as problem:
        return problem
    return None
