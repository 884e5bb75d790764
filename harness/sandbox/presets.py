"""Presets: named settings of a submission, ``--config preset=NAME``, from the `presets.toml` beside its code.

    [icml2022]
    about = "Sun et al., ICML 2022, Table 2"
    calls = 8000                            # at most so many calls in a cell, where the track allows more
    options = { projection = "uniform" }    # of the submission's Config
    tasks.snli = { loss = "hinge" }         # what is different on one task

An option that is given together with a preset overrides the preset's value. The file is not in the submission's digest,
so a new preset does not invalidate stored runs. The identity of a run with a preset includes a digest of that preset
(`identity_sha256`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from harness.errors import SubmissionError, did_you_mean
from harness.sandbox.submission import PRESETS
from harness.tracks.tomlfile import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.sandbox.submission import Submission

_MOST_CALLS = 10**9
OPTION = "preset"
"""The option that names a preset. No Config may have a field of that name."""
FORWARDS = "forwards"
"""The option that gives a white-box reference a budget of forward passes. No reference's Config may have this field."""
WHOLE_BUDGET = "budget"
"""Its value for as many as the track's budget pays for."""
Value: TypeAlias = str | bool | int | float


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of `presets.toml`."""

    about: str
    """The source of the settings, in one line."""
    calls: Annotated[int, msgspec.Meta(gt=0)] | None = None
    """Largest number of calls in a cell; None means the track's budget. It can only lower that budget."""
    options: dict[str, Value] = {}
    """Options of the Config, on all tasks."""
    tasks: dict[str, dict[str, Value]] = {}
    """Options of the Config, by task. They override `options`."""

    def on(self, task: str) -> dict[str, str]:
        """The preset's options on a task, as text, as on the command line."""
        return {name: _text(value) for name, value in (self.options | self.tasks.get(task, {})).items()}


def presets(submission: Submission) -> dict[str, Preset]:
    """The presets of a submission; empty if it has no `presets.toml`.

    Raises:
        SubmissionError: the file is not valid TOML of this form.
    """
    return parse_toml(submission.presets, submission.path / PRESETS, dict[str, Preset], SubmissionError)


def chosen(submission: Submission, options: Mapping[str, str]) -> Preset | None:
    """The preset that the options name; None if they name none.

    Raises:
        SubmissionError: there is no such preset. The message lists the existing ones.
    """
    if OPTION not in options:
        return None
    known, name = presets(submission), options[OPTION]
    if name not in known:
        there = "; ".join(f"{each} ({preset.about})" for each, preset in known.items())
        raise SubmissionError(
            f"no preset {name!r}{did_you_mean(name, known)}; there are {there}"
            if there
            else f"no preset {name!r}: no {PRESETS}"
        )
    return known[name]


def on_task(submission: Submission, options: Mapping[str, str], task: str) -> dict[str, str]:
    """The options of a cell on a task: the preset's, and those that were given together with it.

    `FORWARDS` of a white-box reference is not among them: the referee reads it, and not the reference.

    Raises:
        SubmissionError: see `chosen` and `forward_calls`.
    """
    forward_calls(submission, options, task, 1)
    found = _merged(submission, options, task)
    return {name: value for name, value in found.items() if not (name == FORWARDS and _budgeted(submission))}


def forward_calls(submission: Submission, options: Mapping[str, str], task: str, calls: int) -> int | None:
    """The budget of forward passes that a white-box reference was given, in calls.

    Args:
        submission: any.
        options: as they were given.
        task: name of the task.
        calls: the budget of the cell, which ``forwards=budget`` means.

    Returns:
        Calls, each as many forwards as there are training texts; None without a budget.

    Raises:
        SubmissionError: the value is neither ``budget`` nor a whole number above 0, or see `chosen`.
    """
    given = _merged(submission, options, task).get(FORWARDS)
    if given is None or not _budgeted(submission):
        return None
    if given == WHOLE_BUDGET:
        return calls
    if not given.isascii() or not given.isdecimal() or not 0 < int(given) <= _MOST_CALLS:
        raise SubmissionError(
            f"forwards={given}; a reference takes forwards={WHOLE_BUDGET} for as many forward passes as the track's "
            f"calls are, or a number of calls from 1 to {_MOST_CALLS:,}"
        )
    return int(given)


def _budgeted(submission: Submission) -> bool:
    return submission.access == "white-box"


def _merged(submission: Submission, options: Mapping[str, str], task: str) -> dict[str, str]:
    preset = chosen(submission, options)
    given = {name: value for name, value in options.items() if name != OPTION}
    return given if preset is None else preset.on(task) | given


def variants(submission: Submission, options: Mapping[str, str]) -> list[dict[str, str]]:
    """All sets of options that any task may run with, for checks before anything runs.

    Raises:
        SubmissionError: see `chosen`.
    """
    preset = chosen(submission, options)
    tasks = () if preset is None else preset.tasks
    found = [on_task(submission, options, task) for task in ("", *tasks)]
    return [each for n, each in enumerate(found) if each not in found[:n]]


def most_calls(submission: Submission, options: Mapping[str, str], calls: int) -> int:
    """The budget of a cell: the track's, or the preset's if it is lower.

    Raises:
        SubmissionError: see `chosen`.
    """
    preset = chosen(submission, options)
    return calls if preset is None or preset.calls is None else min(calls, preset.calls)


def identity_sha256(submission: Submission, options: Mapping[str, str]) -> str:
    """The identity of a submission in its runs: its digest, combined with the preset's digest if there is a preset.

    Raises:
        SubmissionError: see `chosen`.
    """
    preset = chosen(submission, options)
    if preset is None:
        return submission.sha256
    counted = msgspec.json.encode([submission.sha256, preset.calls, preset.options, preset.tasks], order="sorted")
    return hashlib.sha256(counted).hexdigest()


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
