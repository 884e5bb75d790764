"""`harness check`: a submission on the fake language model, in seconds, and on request one query to a real one.

The submission runs in a worker, in the best tier of isolation, as in an evaluation. For authors who debug their own
code, it can also run in this process. The fake model has no weights, so only the source of a white-box reference is
checked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from harness.blackbox.fake import fake_shots, fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.fake_text import fake_text_shots, fake_text_task
from harness.blackbox.fake_text_lm import fake_priced, written
from harness.blackbox.pricing import PricedModel
from harness.contract import Answer, TextTask
from harness.errors import InputError, counted
from harness.evaluation import check_here
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import allowed_packages
from harness.evaluation.trying import FOREVER_S, LONGEST_S, MEMORY_GB, Trial, in_a_worker
from harness.sandbox import best_tier
from harness.sandbox import submission as submissions
from harness.sandbox.allowlist import importable
from harness.sandbox.presets import on_task
from harness.solving import answers
from harness.solving.metrics import accuracy
from harness.tracks.defences import Defences
from harness.tracks.limits import Limits
from harness.tracks.track import track_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.contract import Examples, ModelInfo, Shots
    from harness.evaluation.trying import Checked
    from harness.tracks.track import Track

CALLS = 200
"""Budget on the fake model, unless another is given."""
_LARGEST = 64 << 20


def check(
    path: Path,
    options: Mapping[str, str],
    *,
    here: bool = False,
    wall_s: float | None = LONGEST_S,
    calls: int = CALLS,
    track: Track | None = None,
    choices: Overrides | None = None,
) -> dict[str, Any]:
    """Import a submission and run it on a fake model; with a track, let it ask its real model one query, too.

    Args:
        path: its folder.
        options: values of its Config's fields, as text.
        here: whether it runs in this process, with the caller's rights and without isolation, for debugging.
        wall_s: seconds that each of the two runs may take; None is no limit.
        calls: budget on the fake model.
        track: whose packages, limits, model and data are used; None is the fake model alone.
        choices: the command line's overrides of the track.

    Returns:
        A report. Its `lines` are for people, and its `output` is what the submission printed in its worker.

    Raises:
        SubmissionError: the submission fails, breaks the contract, or its first query does not fit into the budget. The
            error has the author's own traceback.
        InputError: the track, its data or its packages cannot be used.
        SandboxError: no worker process can be started.
    """
    if calls <= 0:
        raise InputError(f"--calls {calls}: a positive number of calls is needed")
    if wall_s is not None and not wall_s > 0:  # the comparison is also false for NaN
        raise InputError(f"--timeout {wall_s:g}: seconds, more than 0, are needed; 0 alone is no limit")
    wall_s = None if wall_s is None else min(wall_s, FOREVER_S)
    found = submissions.find(path)
    if found.access == "white-box":
        return _source_report(found)
    if track is not None:
        allowed_packages(track)
    of_text = track is not None and _answered_by_text(track, choices or Overrides())
    shots, priced, info = _fake_of_text() if of_text else _fake_of_classes(track)
    trial = Trial(
        priced, info, shots, calls, on_task(found, options, priced.task.name), wall_s=wall_s,
        packages=() if track is None else track.packages,
        limits=Limits(wall_s=LONGEST_S, memory_gb=MEMORY_GB) if track is None else track.limits,
    )  # fmt: skip
    tier = "" if here else best_tier.best().tier
    checked, seconds = _timed(found, trial, here=here)
    assert checked.last is not None  # noqa: S101 - `result` has refused a run without an answer
    dev, told = _on_dev(checked.last, priced, shots)
    where = "in this process, without isolation" if here else f"in a worker, sandbox tier {tier}"
    config = ", ".join(f"{name}={value!r}" for name, value in checked.config.items())
    may_import, members = importable(trial.packages), counted(len(checked.last.members), "member")
    report = {
        "submission": found.name,
        "access": found.access,
        "sandbox": tier,
        "answers": checked.answers,
        "calls": checked.calls,
        "end": checked.end,
        "dev_accuracy": dev,
        "output": checked.output,
        "importable": list(may_import),
        "real": None,
        "lines": [
            f"{found.name}: imported, Config({config}), {where}",
            f"{checked.answers} answers, {checked.calls:,.0f} of {calls:,} calls used, {checked.end}, {seconds:.1f} s",
            told,
            f"final answer: {members}, {len(answers.to_bytes(checked.last)):,} bytes",
            f"it can import harness, the standard library, its own files, {', '.join(may_import)}, and what these need",
            *filter(None, [checked.advice]),
        ],
    }
    if track is not None:
        report |= _asked(found, options, track, choices or Overrides(), report, here=here, wall_s=wall_s)
    return report


def _fake_of_classes(track: Track | None) -> tuple[Shots, PricedModel, ModelInfo]:
    """Examples, model and published facts of the fake task with classes, under the defences of a track."""
    task = fake_task()
    model: Any = FakeLanguageModel(task)  # whose "token ids" are words
    kept_back = Defences() if track is None else msgspec.structs.replace(track.defences, noise=0.0, noise_seed=0)
    priced = PricedModel(model, task, _LARGEST, _LARGEST, defences=kept_back)
    return fake_shots(task, np.random.default_rng(0)), priced, model.fake.info


def _fake_of_text() -> tuple[Shots, PricedModel, ModelInfo]:
    """The same of the fake task whose answer is text."""
    shots = fake_text_shots(np.random.default_rng(0))
    priced = fake_priced(fake_text_task(), shots)
    model: Any = priced.lm
    return shots, priced, model.fake.info


def _on_dev(answer: Answer, priced: PricedModel, shots: Shots) -> tuple[float, str]:
    """How an answer does on the dev texts of the fake model, from 0 to 1, and a line about it."""
    task, model = priced.task, cast("FakeLanguageModel", priced.lm)
    if isinstance(task, TextTask):
        dev, bare = (
            _right(written(model, task, each, shots.dev.texts), shots.dev) for each in (answer, Answer.of(task))
        )
        return dev, f"right outputs on the fake model {dev:.2f} (bare template {bare:.2f}, planted prompt about 1)"
    p = answers.probabilities(answer, task, model.fake, shots.dev.texts)
    dev = float(accuracy(p.argmax(axis=1), shots.dev.labels))
    return dev, f"dev accuracy on the fake model {dev:.2f} (chance {1 / len(task.classes):.2f}, planted prompt about 1)"


def _right(outputs: Sequence[str], examples: Examples) -> float:
    """Share of outputs that are a reference."""
    return float(np.mean([a in references for a, references in zip(outputs, examples.references, strict=True)]))


def _answered_by_text(track: Track, choices: Overrides) -> bool:
    """Whether the task that is asked about is one whose answer is text."""
    files = track_tasks(track)
    chosen = [file for name, file in files.items() if not choices.tasks or name in choices.tasks]
    return bool(chosen) and not chosen[0].classes


def _asked(
    found: submissions.Submission,
    options: Mapping[str, str],
    track: Track,
    choices: Overrides,
    report: dict[str, Any],
    *,
    here: bool,
    wall_s: float | None,
) -> dict[str, Any]:
    """The parts of the report that one real query adds or changes."""
    from harness.evaluation.check_real import ask_once  # noqa: PLC0415 - the model's modules, which a fake does without

    asked = ask_once(found, options, track, choices, here=here, wall_s=wall_s)
    real = {
        "track": track.name,
        "where": asked.where,
        "rows": sum(row.rows for row in asked.checked.rows),
        "calls": asked.query_calls,
        "budget_calls": asked.calls,
        "whole_budget_s": asked.whole_s,
        "dev": asked.dev,
    }
    said = [report["output"], asked.checked.output]
    return {"real": real, "lines": [*report["lines"], *asked.lines], "output": "".join(filter(None, said))}


def _timed(found: submissions.Submission, trial: Trial, *, here: bool) -> tuple[Checked, float]:
    started = time.monotonic()
    checked = check_here.run(found, trial) if here else in_a_worker(found, trial)
    return checked, time.monotonic() - started


def _source_report(found: submissions.Submission) -> dict[str, Any]:
    submissions.check_source(found)
    lines = [
        f"{found.name}: a white-box reference, with tune and Config; nothing was run",
        "it trains with the model's weights, which the fake model has not; it is listed but never ranked",
    ]
    return {"submission": found.name, "access": found.access, "lines": lines}
