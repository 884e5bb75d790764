"""The engine that needs nothing: one cell after the other, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.evaluation.preparation import Preparation
from harness.evaluation.run import Evaluation, keep, plan_known_before
from harness.sandbox import best_tier
from harness.sandbox.config_source import check_options
from harness.sandbox.trial import try_config

if TYPE_CHECKING:
    from harness.evaluation.engines.job import Job
    from harness.evaluation.run import Plan, Progress
    from harness.sandbox.submission import Submission


def run(job: Job, progress: Progress) -> Plan:
    """Run what is missing of every submission; return what was planned.

    The model is loaded only where something is missing, and after everything else was found to be right.

    Raises:
        HarnessError: as `Preparation`, `Evaluation` and its `run`.
    """
    prepared = Preparation(job.track, job.choices)
    progress.noticed(prepared.oddities)
    known = plan_known_before(prepared)
    opened = [known.peek(job.store, each, job.options) for each in job.submissions] if known else []
    if known is not None and not any(run.todo for run in opened):
        for each in opened:
            progress.planned(each.entry, known.cells, each.todo)
        return known
    runs = dict(zip(job.submissions, opened, strict=True)) if opened else {}
    for submission in job.submissions:
        if submission not in runs or runs[submission].todo:
            _try(job, submission)
    evaluation = Evaluation(job.track, job.choices, job.store, prepared)
    keep(prepared, evaluation.plan)
    if job.isolated:
        progress.isolated(evaluation.tier)
    for submission in job.submissions:
        evaluation.run(submission, job.options, progress)
    return evaluation.plan


def _try(job: Job, submission: Submission) -> None:
    """Refuse a submission whose Config does not take the options; a worker is asked where its source does not tell.

    Raises:
        SubmissionError: what is wrong with it.
        SandboxError: no worker can be isolated.
    """
    settled = check_options(submission, job.options)
    if not settled and submission.access == "black-box":
        try_config(submission, job.options, job.track.limits, job.choices.sandbox or best_tier.best().tier)
