"""The cost of isolation: the start of a worker, and a query over its socket, in each tier and in one run.

    python benchmarks/bench_sandbox.py [--starts 15] [--queries 1000]

Tier 0 is the plain process: the same imports, socket and limits, without walls. A start lasts until the worker has
imported its submission. Tiers are measured in turns, so that other work on the machine affects all of them alike. The
smallest value, the median, and their difference to tier 0 are printed. On a busy machine, read the smallest value.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harness.blackbox import framing, wire
from harness.contract import Examples, Shots
from harness.errors import SandboxError
from harness.sandbox import launch
from harness.sandbox.allowlist import view
from harness.tracks.tiers import TIERS, Tier
from harness.tracks.track import Limits

LIMITS = Limits(wall_s=600, memory_gb=4)
SUBMISSION = """
import time
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    pass

def tune(lm, task, shots, rng, config):
    started = time.perf_counter()
    for _ in range({queries}):
        lm.word_ids(["a"])
    print((time.perf_counter() - started) / {queries} * 1e6, flush=True)
    yield
"""


def job(submission: Path) -> wire.Job:
    """A job of a task with two classes."""
    task = {"name": "t", "classes": ("a", "b"), "metric": "accuracy", "template": "{a} {mask}", "words": ("x", "y")}
    info = {"name": "none", "kind": "masked", "layers": 1, "width": 1, "vocabulary": 1, "max_tokens": 1,
            "prompt_tokens": 1, "embedding_std": 1.0, "hidden_std": (1.0,)}  # fmt: skip
    shots = Shots(*(Examples((("x",), ("y",)), np.array([0, 1])) for _ in range(2)))
    texts, labels = list(shots.train.texts), shots.train.labels.tolist()
    return wire.Job(str(submission), task, texts, labels, texts, labels, info, 1, {}, 0)


def run_s(tier: Tier, submission: Path) -> tuple[float, float]:
    """Seconds until a worker has imported its submission, and the microseconds that one of its queries takes."""
    started = time.perf_counter()
    worker = launch.start(LIMITS, submission, tier)
    worker.sock.sendall(wire.encode(job(submission)))
    body = framing.receive(worker.sock, 1 << 20)
    start_s = time.perf_counter() - started
    worker.sock.sendall(wire.encode(wire.Done()))
    reply = wire.encode(wire.WordIds([[1]]))
    while (body := framing.receive(worker.sock, 1 << 20)) is not None:
        if isinstance(wire.decode_request(body), wire.Finished):
            break
        worker.sock.sendall(reply)
    left = worker.end(1.0)
    return start_s, float(left.output.split()[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--queries", type=int, default=1000)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        submission = Path(folder).resolve() / "idle"
        submission.mkdir()
        Path(folder).chmod(0o755)
        (submission / "submission.py").write_text(SUBMISSION.replace("{queries}", str(given.queries)))
        started = time.perf_counter()
        view(submission)
        print(f"the view, once in a process: {time.perf_counter() - started:.3f} s")
        tiers: list[Tier] = []
        for tier in TIERS:
            try:
                run_s(tier, submission)
                tiers.append(tier)
            except SandboxError as problem:
                print(f"{tier}: {problem}")
        starts: dict[Tier, list[float]] = {tier: [] for tier in tiers}
        queries: dict[Tier, list[float]] = {tier: [] for tier in tiers}
        for _ in range(given.starts):
            for tier in tiers:
                start_s, query_us = run_s(tier, submission)
                starts[tier].append(start_s * 1e3)
                queries[tier].append(query_us)
    print("tier  start, ms: smallest (more)  median (more)   query, us: smallest  median")
    for tier in tiers:
        low, mid = min(starts[tier]), statistics.median(starts[tier])
        more = low - min(starts["0"]), mid - statistics.median(starts["0"])
        print(
            f"{tier:4}  {low:19.0f} ({more[0]:+4.0f})  {mid:6.0f} ({more[1]:+4.0f})"
            f"  {min(queries[tier]):20.1f}  {statistics.median(queries[tier]):6.1f}"
        )


if __name__ == "__main__":
    main()
