"""Presets: named settings of a submission, ``--config preset=NAME``, from the `presets.toml` beside its code.

    [icml2022]
    about = "Sun et al., ICML 2022, Table 2"
    calls = 8000                            # at most so many calls in a cell, where the track allows more
    options = { projection = "uniform" }    # of the submission's Config
    tasks.snli = { loss = "hinge" }         # what is different on one task

An option that is given beside a preset goes before it. The file is no part of the submission's digest, so that a new
preset makes no stored run stale; a run with a preset has the digest of what that preset says in its own
(`identity_sha256`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from harness.errors import SubmissionError
from harness.sandbox.submission import PRESETS
from harness.tracks.tomlfile import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.sandbox.submission import Submission

OPTION = "preset"
"""The option that names one; no Config may have a field of that name."""
Value: TypeAlias = str | bool | int | float


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of `presets.toml`."""

    about: str
    """Where the settings are from, in a line."""
    calls: Annotated[int, msgspec.Meta(gt=0)] | None = None
    """Most calls of a cell; None is the track's budget. It can only lower that."""
    options: dict[str, Value] = {}
    """Of the Config, on all tasks."""
    tasks: dict[str, dict[str, Value]] = {}
    """Of the Config, by task; they go before `options`."""

    def on(self, task: str) -> dict[str, str]:
        """The preset's options on a task, as the command line would give them."""
        return {name: _text(value) for name, value in (self.options | self.tasks.get(task, {})).items()}


def presets(submission: Submission) -> dict[str, Preset]:
    """The presets of a submission; none where it has no such file.

    Raises:
        SubmissionError: the file is no such TOML.
    """
    return parse_toml(submission.presets, submission.path / PRESETS, dict[str, Preset], SubmissionError)


def chosen(submission: Submission, options: Mapping[str, str]) -> Preset | None:
    """The preset that the options name; None where they name none.

    Raises:
        SubmissionError: there is no such preset; the message lists those there are.
    """
    if OPTION not in options:
        return None
    known, name = presets(submission), options[OPTION]
    if name not in known:
        there = "; ".join(f"{each} ({preset.about})" for each, preset in known.items())
        raise SubmissionError(
            f"no preset {name!r}; there are {there}" if there else f"no preset {name!r}: no {PRESETS}"
        )
    return known[name]


def on_task(submission: Submission, options: Mapping[str, str], task: str) -> dict[str, str]:
    """The options that a cell of a task runs with: the preset's, and those that were given beside it.

    Raises:
        SubmissionError: see `chosen`.
    """
    preset = chosen(submission, options)
    given = {name: value for name, value in options.items() if name != OPTION}
    return given if preset is None else preset.on(task) | given


def variants(submission: Submission, options: Mapping[str, str]) -> list[dict[str, str]]:
    """All sets of options that some task may run with, for checks before anything runs.

    Raises:
        SubmissionError: see `chosen`.
    """
    preset = chosen(submission, options)
    tasks = () if preset is None else preset.tasks
    found = [on_task(submission, options, task) for task in ("", *tasks)]
    return [each for n, each in enumerate(found) if each not in found[:n]]


def most_calls(submission: Submission, options: Mapping[str, str], calls: int) -> int:
    """The budget of a cell: the track's, or the preset's where that is lower.

    Raises:
        SubmissionError: see `chosen`.
    """
    preset = chosen(submission, options)
    return calls if preset is None or preset.calls is None else min(calls, preset.calls)


def identity_sha256(submission: Submission, options: Mapping[str, str]) -> str:
    """What a run of a submission is identified by: its digest, and with a preset that of the preset, too.

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
