"""Time: staying longer than allowed. Each takes the place of `tune`; the referee's clock ends it."""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

from frames import Raw

from harness import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator


def ignore_the_deadline(at: Any) -> Iterator[Answer]:
    """Compute for ever."""
    while True:
        at.rng.standard_normal(1000)
    yield Answer.of(at.task)


def ignore_every_signal(at: Any) -> Iterator[Answer]:
    """Whatever can be ignored is."""
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(each, signal.SIG_IGN)
        except OSError:
            continue
    while True:
        at.rng.standard_normal(1000)
    yield Answer.of(at.task)


def patch_the_clocks(at: Any) -> Iterator[Answer]:
    """It is always midnight here."""
    for name in ("time", "monotonic", "perf_counter", "process_time"):
        setattr(time, name, lambda: 0.0)
    while time.monotonic() < 1:
        at.lm.logits(None, at.shots.train.texts[:1]) if at.lm.budget.rows_left else at.rng.standard_normal(1000)
    yield Answer.of(at.task)


def stop_oneself(at: Any) -> Iterator[Answer]:
    """A stopped process takes no processor time."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
    yield Answer.of(at.task)


def stop_oneself_by_alarm(at: Any) -> Iterator[Answer]:
    """An alarm whose handler starts all over again, so that no exception ends it."""
    signal.signal(signal.SIGALRM, lambda *_: signal.alarm(1))
    signal.alarm(1)
    while True:
        signal.pause()
    yield Answer.of(at.task)


def drip_a_frame(at: Any) -> Iterator[Answer]:
    """A frame that never ends: a byte now and then, so that no read times out."""
    raw = Raw()
    raw.sock.sendall(struct.pack("<I", 10_000))
    while True:
        raw.sock.sendall(b"\0")
        time.sleep(0.05)
    yield Answer.of(at.task)


def never_read_a_reply(at: Any) -> Iterator[Answer]:
    """Fill the referee's side of the socket, and let it wait."""
    raw = Raw()
    raw.sock.settimeout(0.5)
    while True:
        try:
            raw.send({"type": "Vocabulary"})
        except TimeoutError:
            continue
    yield Answer.of(at.task)


def stay_after_the_end(at: Any) -> Iterator[Answer]:
    """Say that it is over, and go on."""
    raw = Raw()
    raw.send({"type": "Finished", "reason": "returned", "detail": ""})
    sys.stdout.flush()
    while True:
        at.rng.standard_normal(1000)
    yield Answer.of(at.task)
