"""The engine that needs nothing: one cell after the other, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.evaluate import Evaluation

if TYPE_CHECKING:
    from harness.engines.job import Job
    from harness.evaluate import Plan, Progress


def run(job: Job, progress: Progress) -> Plan:
    """Run what is missing of every submission; return what was planned.

    Raises:
        HarnessError: as `Evaluation` and its `run`.
    """
    evaluation = Evaluation(job.track, job.choices, job.store)
    if job.isolated:
        progress.isolated(evaluation.tier)
    for submission in job.submissions:
        evaluation.run(submission, job.options, progress)
    return evaluation.plan
