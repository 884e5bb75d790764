"""The cost of growth: a simulated competition on 1 to 64 logical workers.

    python benchmarks/bench_scale.py --sweep                         # 1, 4, 16 and 64 workers, a few cells each
    python benchmarks/bench_scale.py --entries 1000 --report         # 1,000 submissions x 25 cells on 64 workers
    python benchmarks/bench_scale.py --plot benchmarks/scale.csv     # the picture of what was appended there

Real: Ray, the dealer that `harness evaluate --engine ray` uses, actors in processes of their own, the results database
with every fact of a cell committed as the referee commits it, the ranking and the report. Simulated: a cell's model and
worker, which are a wait of --service-s seconds spread over its queries, so that two cores can stand for 64 devices.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.errors import HarnessError
from harness.evaluation.engines.host import Loaded
from harness.evaluation.engines.job import Job
from harness.evaluation.engines.scheduler import Dealer
from harness.evaluation.overrides import Overrides
from harness.evaluation.referee import Cell, Verdict
from harness.evaluation.run import Plan
from harness.results.records import CellRecord, Fingerprint, KeptAnswer, LedgerRow, RunKey
from harness.results.status import MARKS
from harness.results.store import Store
from harness.sandbox.submission import Submission
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import Track, load_track

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.engines.host import Parcel
    from harness.tracks.tiers import Tier

SPLITS = (1, 2, 3, 4, 5)
PROCESSES = 8
"""Most actors; more workers than that share them, as cells share a device."""
DEVICE = "simulated GPU"
HERE = Path(__file__).parent


def made_up_plan(track: Track) -> Plan:
    """A track of 25 cells of `mini`, with a model that does not exist."""
    cells = []
    for name, spec in track.tasks.items():
        file = load_task(name)
        task = file.task(track.profile, "masked")
        cells += [Cell(file, task, split, spec, track.limits, Source("embedded"), 0) for split in SPLITS]
    base = RunKey(
        "", "", (), track.name, track.fingerprint, track.rules, "simulated", "m", "embedded", "d", DEVICE, 0, ""
    )
    environment = {"machine": "simulated"}
    return Plan(tuple(cells), base, {"black-box": environment, "white-box": environment}, {}, white_box=False)


class SimulatedHost:
    """Uses the store as a host does, and waits where a host would compute."""

    def __init__(self, track: Track, store: str, service_s: float, queries: int) -> None:
        """Take `service_s` seconds and `queries` ledger rows for a cell."""
        self._track, self._url, self._service_s, self._queries = track, store, service_s, queries
        self._rng = np.random.default_rng(os.getpid())

    def load(self) -> Loaded | HarnessError:
        """See `harness.evaluation.engines.host.Host`."""
        self._store, self._plan = Store(self._url), made_up_plan(self._track)
        self._tests = {cell.task.name: load_test(cell.file, cell.source) for cell in self._plan.cells}
        return Loaded(self._plan, "A")

    def run_cell(self, parcel: Parcel, run: str, number: int) -> Verdict | HarnessError | None:  # noqa: ARG002
        """See `harness.evaluation.engines.host.Host`."""
        began, in_store = time.time(), []
        cell = self._plan.cells[number]
        place, labels = (cell.task.name, cell.split), self._tests[cell.task.name].labels

        def timed(function: Any, *arguments: Any) -> Any:
            before = time.perf_counter()
            value = function(*arguments)
            in_store.append(time.perf_counter() - before)
            return value

        try:
            if place in timed(self._store.finished, run):
                return None
            attempt = timed(self._store.begin, run, *place)
            pause = self._service_s / self._queries
            for _ in range(self._queries):
                time.sleep(pause)
                timed(attempt.record, LedgerRow(640, 20_000, 2_000, 6_000, pause, 1, "0" * 64))
            kept = [KeptAnswer(mark, int(9_600 * mark), b"a" * 4_000, self._predicted(labels)) for mark in MARKS]
            record = as_stored(self._queries)
            stored = timed(attempt.finish, "ok", record, cell.task.name, labels, kept)
        except HarnessError as problem:
            return problem
        return Timed("ok", record, 0.5, stored, time.time() - began, in_store)

    def _predicted(self, labels: Any) -> Any:
        return np.where(self._rng.random(len(labels)) < 0.7, labels, (labels + 1) % 2)  # noqa: PLR2004


def as_stored(queries: int) -> CellRecord:
    """A record as large as that of a real cell, with a dozen offers and a fingerprint."""
    history = tuple((int(rows), {"dev": 0.5, "loss": 0.5}) for rows in np.linspace(0, 9_600, 12))
    return CellRecord(
        config={"dim": 500}, calls_total=300, rows_total=9_600, rows_spent=9_600, train_rows=32, queries=queries,
        level=1, tokens=280_000, bytes_up=2_000, bytes_down=6_000, lm_s=16.0, worker_peak_mb=90.0,
        referee_peak_mb=900.0, history=history, marks=MARKS, shots_sha256=("0" * 64,) * 2, sandbox="A", tuning_s=16.7,
        probe=Fingerprint("0" * 16, (0.123456,) * 32),
    )  # fmt: skip


@dataclass(frozen=True)
class Timed(Verdict):
    """The result of a simulated cell, with its times."""

    took_s: float
    store_s: list[float]
    """Of each use of the store."""


@dataclass
class Clock:
    """Records when the scheduler dealt out each cell, and when the cell came back."""

    dealt: dict[tuple[str, str, int], float] = field(default_factory=dict)
    overheads_s: list[float] = field(default_factory=list)
    store_s: list[float] = field(default_factory=list)
    first: float = math.inf
    last: float = 0.0

    def isolated(self, tier: Tier) -> None:
        """See `harness.evaluation.run.Progress`."""

    def noticed(self, lines: Sequence[str]) -> None:
        """See `harness.evaluation.run.Progress`."""

    def planned(self, entry: str, cells: Sequence[Cell], todo: Sequence[Cell], before: Any = ()) -> None:
        """See `harness.evaluation.run.Progress`."""

    def began(self, entry: str, cell: Cell) -> None:
        """See `harness.evaluation.run.Progress`."""
        now = self.dealt[entry, cell.task.name, cell.split] = time.time()
        self.first = min(self.first, now)

    def spent(self, rows: int, note: Any) -> None:
        """See `harness.evaluation.run.Progress`."""

    def ended(self, entry: str, cell: Cell, verdict: Any) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.last = time.time()
        took = self.last - self.dealt.pop((entry, cell.task.name, cell.split))
        self.overheads_s.append(took - verdict.took_s)
        self.store_s += verdict.store_s


def simulated_track() -> Track:
    """`mini` with five splits, on a logical GPU: Ray places several actors on a node then."""
    track = load_track("mini")
    tasks = {name: msgspec.structs.replace(spec, splits=SPLITS) for name, spec in track.tasks.items()}
    return msgspec.structs.replace(track, device="cuda", tasks=tasks)


def compete(store: str, entries: int, workers: int, service_s: float, queries: int) -> dict[str, float]:
    """Run the entries on the workers and return the costs."""
    import ray  # noqa: PLC0415 - after the environment is set
    import ray.util.scheduling_strategies  # noqa: PLC0415

    processes, track = min(workers, PROCESSES), simulated_track()
    folder = HERE.parent / "submissions" / "manual"
    submissions = tuple(Submission(f"entry_{n:04d}", folder, f"{n:064x}") for n in range(entries))
    job, clock = Job(track, Overrides(), Store(store), submissions, {}), Clock()

    def make_host(cells: int, **options: Any) -> Any:
        actor = ray.remote(SimulatedHost).options(max_concurrency=cells, **options)
        return actor.remote(track, store, service_s, queries)

    ray.init(
        address="local", num_gpus=processes, num_cpus=processes, include_dashboard=False, log_to_driver=False,
        logging_level="error", object_store_memory=256 << 20,
    )  # fmt: skip
    before = time.process_time()
    Dealer(ray, job, clock, workers, make_host).run()
    cpu = time.process_time() - before
    ray.shutdown()
    job.store.close()
    cells, wall_s = len(clock.overheads_s), clock.last - clock.first
    overhead, in_store = np.array(clock.overheads_s) * 1e3, np.array(clock.store_s) * 1e3
    return {
        "workers": workers, "processes": processes, "cells": cells, "service_s": service_s, "queries": queries,
        "wall_s": wall_s, "cells_per_s": cells / wall_s, "ideal_cells_per_s": workers / service_s,
        "overhead_ms_median": np.median(overhead), "overhead_ms_p95": np.percentile(overhead, 95),
        "overhead_ms_mean": overhead.mean(), "driver_cpu_ms": cpu / cells * 1e3,
        "store_ms_median": np.median(in_store), "store_ms_p95": np.percentile(in_store, 95),
        "store_ms_max": in_store.max(), "store_calls_per_s": len(in_store) / wall_s, "load_average": os.getloadavg()[0],
    }  # fmt: skip


def report(store: str) -> dict[str, float]:
    """Elapsed and processor time of the ranking and the report of this store."""
    from harness.leaderboard.rank import rank  # noqa: PLC0415
    from harness.leaderboard.report.build import build  # noqa: PLC0415

    track, opened, seconds = simulated_track(), Store(store), {}
    before, cpu = time.monotonic(), time.process_time()
    ranking = rank(opened, track.name, track.fingerprint, track.planned, track.ranks)
    seconds |= {"rank_s": time.monotonic() - before, "rank_cpu_s": time.process_time() - cpu}
    seconds["ranked"] = len(ranking.entries)
    with tempfile.TemporaryDirectory() as folder:
        before, cpu = time.monotonic(), time.process_time()
        built = build(opened, track, Path(folder) / "site", Source("embedded"), Path(folder))
        seconds |= {"report_s": time.monotonic() - before, "report_cpu_s": time.process_time() - cpu}
        seconds |= {"pages": built.pages, "site_mb": built.bytes / 1e6}
    seconds["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    opened.close()
    return seconds


def append(row: dict[str, float], path: Path) -> None:
    """Add a line to a CSV file."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(row))
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})


def plot(path: Path) -> None:
    """Plot throughput and overhead against workers, beside the CSV file."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    with path.open(encoding="utf-8") as stream:
        read = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    rows = sorted(read, key=lambda row: row["workers"])
    workers = [row["workers"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.loglog(workers, [row["ideal_cells_per_s"] for row in rows], "--", color="gray", label="ideal")
    left.loglog(workers, [row["cells_per_s"] for row in rows], "o", label="measured")
    left.set(xlabel="logical workers", ylabel="cells per second")
    left.legend()
    shown = {
        "overhead_ms_median": "scheduling, median",
        "overhead_ms_p95": "scheduling, 95 %",
        "store_ms_median": "a call of the store, median",
        "store_ms_p95": "a call of the store, 95 %",
    }
    for name, label in shown.items():
        right.loglog(workers, [row[name] for row in rows], "o", label=label)
    right.axhline(50, color="gray", linestyle=":", label="50 ms")
    right.set(xlabel="logical workers", ylabel="ms")
    right.legend(fontsize="small")
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    """Run the competition, the report and the plot, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=0, help="submissions of 25 cells each")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--sweep", action="store_true", help="1, 4, 16 and 64 workers, one entry per worker at least")
    parser.add_argument("--service-s", type=float, default=1.0, help="seconds a cell computes")
    parser.add_argument("--queries", type=int, default=4, help="ledger rows per cell")
    parser.add_argument("--store", default="", help="results database of --entries; default a temporary file")
    parser.add_argument("--report", action="store_true", help="time ranking and report of that store, too")
    parser.add_argument("--csv", type=Path, default=HERE / "scale.csv", help="append what was measured here")
    parser.add_argument("--plot", type=Path, help="draw this CSV file and do nothing else")
    arguments = parser.parse_args()
    if arguments.plot:
        plot(arguments.plot)
        return
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    how = (arguments.service_s, arguments.queries)
    with tempfile.TemporaryDirectory() as folder:
        plans = [(f"{folder}/{n}.db", max(1, n // 2), n) for n in (1, 4, 16, 64)] if arguments.sweep else []
        database = arguments.store or f"{folder}/all.db"
        plans += [(database, arguments.entries, arguments.workers)] if arguments.entries else []
        for store, entries, workers in plans:
            row = compete(store, entries, workers, *how)
            append(row, arguments.csv)
            print(json.dumps({name: float(f"{value:.4g}") for name, value in row.items()}), flush=True)
        if arguments.report:
            if "://" not in database:
                print(f"store: {Path(database).stat().st_size / 1e6:,.1f} MB", flush=True)
            print(json.dumps({name: round(float(value), 1) for name, value in report(database).items()}), flush=True)


if __name__ == "__main__":
    main()
