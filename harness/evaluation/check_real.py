"""`harness check --track`: one real query of a submission, to the model and the data of a track. Nothing is stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.evaluation import check_here
from harness.evaluation.applying import predicted
from harness.evaluation.preparation import Preparation
from harness.evaluation.referee import priced_model, settled
from harness.evaluation.text_cells import read_as
from harness.evaluation.trying import Trial, in_a_worker
from harness.solving.metrics import cell_score
from harness.tracks.examples import load_shots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.evaluation.overrides import Overrides
    from harness.evaluation.trying import Checked
    from harness.sandbox.submission import Submission
    from harness.tracks.track import Track


@dataclass(frozen=True)
class Asked:
    """What came of one real query."""

    where: str
    """Track, task, split and model."""
    metric: str
    calls: int
    """The budget of the cell."""
    checked: Checked
    dev: float | None
    """Score of the last answer so far on the dev texts, from 0 to 1; None without an answer."""

    @property
    def query_calls(self) -> float:
        """Calls that the query cost; 0 if none was asked."""
        return self.checked.calls

    @property
    def whole_s(self) -> float | None:
        """Seconds of the model for the whole budget at the pace of this query; None if none was asked."""
        seconds = sum(row.seconds for row in self.checked.rows)
        return seconds / self.query_calls * self.calls if self.query_calls else None

    @property
    def lines(self) -> list[str]:
        """The result for people."""
        if self.whole_s is None:
            first = f"{self.where}: it asked no query and {self.checked.end}"
        else:
            (row,) = self.checked.rows
            first = (
                f"{self.where}: one real query, {row.rows:,} rows, {self.query_calls:,.1f} of {self.calls:,} calls, "
                f"{row.seconds:.2f} s; at that pace the whole budget takes the model {_duration(self.whole_s)}"
            )
        if self.dev is None:
            return [first, "no answer was yielded before the second query; if the time ended there, none would count"]
        return [first, f"its last answer so far: {self.metric} {self.dev:.2f} on the dev texts, by the real model"]


def ask_once(
    submission: Submission,
    options: Mapping[str, str],
    track: Track,
    choices: Overrides,
    *,
    here: bool,
    wall_s: float | None,
) -> Asked:
    """Run a submission on the first chosen cell of a track until it asks its second query.

    Args:
        submission: the folder.
        options: values of its Config's fields, as text.
        track: the track, as its file says.
        choices: the command line's overrides of the track.
        here: whether it runs in this process, without isolation.
        wall_s: seconds that it has when the model is loaded; None is no limit.

    Returns:
        What came of it.

    Raises:
        SubmissionError: the submission fails, or its first query does not fit into the budget.
        InputError: data or choices do not fit the track.
        FetchError: the track's model or data are not here.
        ModelError: the model cannot be loaded.
    """
    from harness.lm.load import load_model  # noqa: PLC0415 - imports torch: wrong input is refused before

    prepared = Preparation(track, choices)
    changed = prepared.track
    lm = load_model(changed.model, changed.prompt, device=prepared.kind, numerics=changed.numerics)
    cell, given = settled(prepared.cells[0], submission, options)
    task = cell.file.wording(changed.profile, changed.model.kind, lm)
    cell = dataclasses.replace(cell, task=task)
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    trial = Trial(
        priced_model(cell, shots, lm), lm.info(shots.train.texts, read_as(task)), shots, cell.spec.calls, given,
        cell.worker_seed, wall_s, cell.limits, cell.packages, once=True,
    )  # fmt: skip
    with lm.serving():
        checked = check_here.run(submission, trial) if here else in_a_worker(submission, trial)
        dev = None
        if checked.last is not None:
            said, _ = predicted(checked.last, task, lm, shots.dev)
            dev = cell_score(task.metric, said, shots.dev.labels, len(task.classes))
    where = f"{track.name} {task.name}/{cell.split}, {lm.name} in {lm.format}"
    return Asked(where, task.metric, cell.spec.calls, checked, dev)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"  # noqa: PLR2004
