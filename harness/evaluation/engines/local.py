"""The default engine: it runs one cell after the other, in this process."""

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
    """Run the missing cells of every submission, and return the plan.

    The model is loaded only if a cell is missing, and after everything else was checked. A fault of one submission
    gives its cells a status or is reported to `progress`, and the others go on. If no submission can be imported and
    accepts the options, nothing is run.

    Raises:
        SubmissionError: no submission can be run; it has the reason of the first one.
        HarnessError: as `Preparation`, `Evaluation` and its `run`.
    """
    prepared = Preparation(job.track, job.choices)
    progress.noticed(prepared.oddities)
    known = plan_known_before(prepared)
    opened = [known.peek(job.store, each, job.options, again=job.again) for each in job.submissions] if known else []
    if known is not None and not any(run.todo for run in opened):
        for each in opened:
            progress.planned(each.entry, known.cells, each.todo, each.before(job.store))
        return known
    runs = dict(zip(job.submissions, opened, strict=True)) if opened else {}
    todo = [each for each in dict.fromkeys(job.submissions) if each not in runs or runs[each].todo]
    problems = [problem for each in todo if (problem := _refused(job, each)) is not None]
    if problems and len(problems) == len(set(job.submissions)):
        raise problems[0]
    evaluation = Evaluation(job.track, job.choices, job.store, prepared)
    keep(prepared, evaluation.plan)
    evaluation.tell(progress.served)
    if job.isolated:
        progress.isolated(evaluation.tier)
    for submission in job.submissions:
        _run(evaluation, job, submission, progress)
    return evaluation.plan


def _run(evaluation: Evaluation, job: Job, submission: Submission, progress: Progress) -> None:
    """Run one submission. If it causes an error of this program, it alone ends, without an outcome.

    Raises:
        HarnessError: the error affects the other submissions, too: the database, data or model cannot be used.
    """
    entry = evaluation.plan.label(submission, job.options)
    try:
        evaluation.run(submission, job.options, progress, again=job.again)
    except (SandboxError, SubmissionError) as problem:
        progress.abandoned(entry, str(problem))
    except (HarnessError, OSError):
        raise
    except Exception:  # noqa: BLE001 - any such error concerns this submission alone
        progress.abandoned(entry, f"an error of this program, please report it:\n{traceback.format_exc()}")


def _refused(job: Job, submission: Submission) -> SubmissionError | None:
    """The reason why a submission cannot be run, or None. If its source does not decide that, a worker imports it.

    Raises:
        SandboxError: no worker can be isolated.
    """
    try:
        settled = check_options(submission, job.options)
        if not settled and submission.access == "black-box":
            tier = job.choices.sandbox or best_tier.best().tier
            for options in variants(submission, job.options):
                try_config(submission, options, job.track.limits, tier, job.track.packages)
    except SubmissionError as problem:
        return problem
    return None
