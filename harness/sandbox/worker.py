"""Entry of the worker process: ``python -I -m harness.sandbox.worker FD``.

Receives the `Job`, takes its limits, imports the submission, runs `tune`, and hands each answer over the socket.
Nothing but the socket, the Python environment and the submission's own folder is meant to be of use here.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.contract import Budget, Examples, ModelInfo, Shots, Task
from harness.errors import AnswerError, BudgetExhausted, ProtocolError
from harness.lm import wire
from harness.lm.client import RemoteBlackBox
from harness.submission import load

_PR_SET_PDEATHSIG = 1
_LONGEST_TRACEBACK = 16_000
_FAREWELL_S = 10


def main() -> None:
    """Run one job and exit."""
    sys.dont_write_bytecode = True
    _die_with_parent()
    sock = socket.socket(fileno=int(sys.argv[1]))
    body = wire.receive(sock, (1 << 32) - 1)
    job = wire.decode_reply(body) if body else None
    if not isinstance(job, wire.Job):
        raise SystemExit("no job came over the socket; this program is started by `harness evaluate`")
    _limit(job.limits)
    finished = _run(sock, job)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        sock.settimeout(_FAREWELL_S)
        sock.sendall(wire.encode(finished))
        sock.recv(1)  # until the referee has looked at our memory and hangs up
    finally:
        os._exit(0)  # no atexit handlers or threads of the submission outlive its last frame


def _run(sock: socket.socket, job: wire.Job) -> wire.Finished:
    task = msgspec.convert(job.task, Task)
    shots = Shots(_examples(job.train_texts, job.train_labels), _examples(job.dev_texts, job.dev_labels))
    budget = Budget(job.rows_total, job.rows_total, len(shots.train))
    lm = RemoteBlackBox(sock, msgspec.convert(job.info, ModelInfo), task, budget)
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # pycma would load it where it is: 29 MB for nothing
    try:
        solver = load(Path(job.submission), job.config)
        lm.ready(
            {field.name: _plain(getattr(solver.config, field.name)) for field in dataclasses.fields(solver.config)}
        )
        for answer in solver.tune(lm, task, shots, np.random.default_rng(job.seed), solver.config):
            lm.offer(answer)
    except BudgetExhausted as end:
        return wire.Finished("budget", str(end))
    except AnswerError as problem:
        return wire.Finished("answer", str(problem))
    except MemoryError:
        return wire.Finished("memory", _trace())
    except ProtocolError:
        raise
    except BaseException:  # noqa: BLE001 - whatever the author's code raises, SystemExit too, is reported
        return wire.Finished("crashed", _trace())
    return wire.Finished("returned")


def _plain(value: Any) -> Any:
    """A configuration's value as it is stored: plain data as it is, anything else as it prints."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if value is None or type(value) in {bool, int, float, str} else repr(value)


def _trace() -> str:
    return traceback.format_exc()[-_LONGEST_TRACEBACK:]


def _examples(texts: list[tuple[str, ...]], labels: list[int]) -> Examples:
    return Examples(tuple(tuple(text) for text in texts), np.array(labels, dtype=np.int64))


def _die_with_parent() -> None:
    """Be killed when the referee dies, however it dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(limits: dict[str, float]) -> None:
    """Take the track's limits on memory, processor time and open files; they cannot be raised again."""
    for kind, value in (
        (resource.RLIMIT_AS, int(limits["memory_gb"] * 2**30)),
        (resource.RLIMIT_CPU, int(limits["wall_s"] * (os.cpu_count() or 1)) + 60),
        (resource.RLIMIT_NOFILE, int(limits["open_files"])),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (capped, capped))


if __name__ == "__main__":
    main()
