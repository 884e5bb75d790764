"""Imports a submission in a worker and builds its Config, before a model is loaded.

The worker reports its Config and waits for a reply before it calls `tune`. Here it gets no reply.
"""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.blackbox import framing, wire
from harness.contract import ModelInfo, Task
from harness.errors import ProtocolError, SubmissionError
from harness.sandbox.launch import start
from harness.sandbox.snapshot import as_given, snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.sandbox.submission import Submission
    from harness.tracks.limits import Limits
    from harness.tracks.tiers import Tier

_LONGEST_S = 60.0
_LARGEST_FRAME = 1 << 20
_GRACE_S = 0.5
_NO_TASK = Task("trial", ("no", "yes"), "accuracy", "{a} {mask}", ("no", "yes"))
_NO_MODEL = ModelInfo("trial", "masked", 1, 1, 1, 1, 1, 1.0, (1.0,))


def try_config(
    submission: Submission,
    options: Mapping[str, str],
    limits: Limits,
    tier: Tier,
    packages: tuple[str, ...] = (),
) -> None:
    """Let a worker import a submission and build its Config. Its `tune` is not called.

    The worker is the same as for cells, in the same tier, so it refuses the same submissions. A worker that reports
    nothing within a minute, or runs out of memory, does not count as a refusal. The first cell then shows the fault.

    Args:
        submission: the folder.
        options: value by name, as text.
        limits: the limits of the track.
        tier: isolation tier of the worker.
        packages: distributions that the track allows beside those of every track.

    Raises:
        SandboxError: no worker can be isolated in that tier.
        SubmissionError: the submission cannot be imported, or its Config refuses the options.
    """
    with snapshot(submission) as folder:
        job = wire.Job(str(folder), asdict(_NO_TASK), [], [], [], [], asdict(_NO_MODEL), 0, dict(options), 0)
        worker, frame = start(limits, folder, tier, packages), None
        try:
            worker.sock.settimeout(min(limits.wall_s, _LONGEST_S))
            worker.sock.sendall(wire.encode(job))
            body = framing.receive(worker.sock, _LARGEST_FRAME)
            frame = None if body is None else wire.decode_request(body)
        except (OSError, ProtocolError):
            return
        finally:
            left = worker.end(_GRACE_S if frame is None else 0)
    if isinstance(frame, wire.Finished) and frame.reason == "crashed":
        raise refusal(submission, as_given(frame.detail, folder, submission))
    if frame is None and left.code != -signal.SIGKILL:  # the kernel's signal to a process that uses too much memory
        said = as_given(left.output, folder, submission)
        raise refusal(submission, f"the worker left with exit code {left.code} before it was finished\n{said}")


def refusal(submission: Submission, said: str) -> SubmissionError:
    """The error for a submission whose process ended before it had built its Config.

    Args:
        submission: the folder.
        said: the worker's report or, without a report, its output.

    Returns:
        The error. A wrong option gives one line, anything else gives the author's traceback.
    """
    said = said.strip()
    why = f"cannot be imported or configured:\n{said}" if "\n" in said else said
    return SubmissionError(f"{submission.path}: {why}")
