"""The worker: `harness.sandbox.confine` becomes this program when its restrictions are in force.

It receives the `Job`, imports the submission, runs `tune`, and sends each answer over the socket. It has access only to
the socket, the Python environment and the submission's own folder, and it cannot write any file.
"""

from __future__ import annotations

import dataclasses
import errno
import faulthandler
import math
import os
import signal
import site
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.blackbox import framing, wire
from harness.blackbox.client import RemoteBlackBox
from harness.blackbox.text_client import RemoteTextBlackBox
from harness.contract import Budget, Examples, ModelInfo, Shots, Task, TextTask
from harness.errors import AnswerError, BudgetExhausted, ProtocolError, SubmissionError
from harness.sandbox import answering, traces
from harness.sandbox.submission import IMPORTABLE, load

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_LONGEST_TRACEBACK = 16_000
_FAREWELL_S = 10
_HIDDEN = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS}
_MORE = "docs/sandbox.md says what is visible; `harness check --here` runs without a sandbox, for debugging."


STACK_SIGNAL = signal.SIGUSR1
"""At this signal, the worker writes the stacks of its threads into its output, whatever code runs."""


def main(sock: socket.socket, packages: Sequence[str] = ()) -> None:
    """Run one job and exit. `packages` are distributions that the track allows beside `IMPORTABLE`."""
    faulthandler.register(STACK_SIGNAL, file=sys.stderr, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what is printed survives a kill
    sys.breakpointhook = _no_debugger
    sys.dont_write_bytecode = True
    tempfile.tempdir = os.environ.get("TMPDIR")  # set, not searched: without a writable directory the search fails
    site.setquit()  # defines `exit` and `quit`, which are missing after a start without `site`
    body = framing.receive(sock, (1 << 32) - 1)
    job = wire.decode_reply(body) if body else None
    if not isinstance(job, wire.Job):
        raise SystemExit("no job came over the socket; this program is started by `harness evaluate`")
    finished = _run(sock, job, (*IMPORTABLE, *packages))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        sock.settimeout(_FAREWELL_S)
        sock.sendall(wire.encode(finished))
        sock.recv(1)  # wait until the referee has measured our memory and closes the socket
    finally:
        os._exit(0)  # no atexit handler or thread of the submission runs after its last frame


def _run(sock: socket.socket, job: wire.Job, packages: Sequence[str]) -> wire.Finished:
    shots = Shots(
        _examples(job.train_texts, job.train_labels, job.train_references),
        _examples(job.dev_texts, job.dev_labels, job.dev_references),
    )
    budget, info = Budget(job.rows_total, job.rows_total, len(shots.train)), msgspec.convert(job.info, ModelInfo)
    task: Task | TextTask
    if shots.train.references:
        task = msgspec.convert(job.task, TextTask)
        lm: RemoteBlackBox = RemoteTextBlackBox(sock, info, task, budget, shots)
    else:
        task = msgspec.convert(job.task, Task)
        lm = RemoteBlackBox(sock, info, task, budget)
    if "matplotlib" not in packages:
        sys.modules["matplotlib"] = None  # type: ignore[assignment]  # pycma would load it: 29 MB for no use
    folder = Path(job.submission)
    try:
        solver = load(folder, job.config)
        lm.ready(
            {field.name: _plain(getattr(solver.config, field.name)) for field in dataclasses.fields(solver.config)}
        )
        given = solver.tune(lm, task, shots, np.random.default_rng(job.seed), solver.config)
        ended = answering.offered(given, lm.offer, task)
    except BudgetExhausted as end:
        return wire.Finished("budget", str(end))
    except AnswerError as problem:
        return wire.Finished("answer", str(problem))
    except MemoryError:
        return wire.Finished("memory", _trace(folder, packages))
    except ProtocolError:
        raise
    except SubmissionError as problem:  # its message is enough; a traceback of our code would hide it
        return wire.Finished("crashed", str(problem)[:_LONGEST_TRACEBACK])
    except BaseException:  # noqa: BLE001 - any exception of the author's code, SystemExit too, is reported
        return wire.Finished("crashed", _trace(folder, packages))
    return wire.Finished("returned", ended)


def _plain(value: Any) -> Any:
    """A configuration value in its stored form: plain data unchanged, anything else as text."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if value is None or type(value) in {bool, int, float, str} else repr(value)


def _no_debugger(*_given: object, **_named: object) -> None:
    raise RuntimeError(
        "breakpoint() needs a terminal, and a worker has none; run harness check --here, where the debugger works"
    )


def _trace(folder: Path, packages: Sequence[str]) -> str:
    problem = sys.exc_info()[1]
    trace = "" if problem is None else traces.authors(problem, folder)[-_LONGEST_TRACEBACK:]
    hint = _hint(problem, packages)
    return f"{trace}\n{hint}" if hint else trace


def _hint(problem: BaseException | None, packages: Sequence[str]) -> str:
    """A hint for an error that the author cannot explain: a thing exists, but the sandbox hides it."""
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        if isinstance(problem, ModuleNotFoundError):
            return (
                f"In the sandbox there is no module {problem.name!r}, installed or not: a submission imports harness, "
                f"the standard library and {', '.join(packages)} with what these need, and its own files. {_MORE}"
            )
        if isinstance(problem, OSError) and problem.errno in _HIDDEN and problem.filename is not None:
            return (
                f"In the sandbox there is no {problem.filename!r}, whether it is on the machine or not: a submission "
                f"sees its own folder (Path(__file__).parent) and the Python environment, and writes nowhere. {_MORE}"
            )
        problem = problem.__cause__ or problem.__context__
    return ""


def _examples(
    texts: list[tuple[str, ...]], labels: list[int], references: list[tuple[str, ...]] | msgspec.UnsetType
) -> Examples:
    right = () if isinstance(references, msgspec.UnsetType) else tuple(map(tuple, references))
    return Examples(tuple(tuple(text) for text in texts), np.array(labels, dtype=np.int64), right)
