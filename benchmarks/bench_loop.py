"""The cost of a query without its forward pass, and the cost of a submission's own computation.

python benchmarks/bench_loop.py                  all of it, a minute or two
python benchmarks/bench_loop.py --store DIR      the ledger on another disk than the one of the temporary directory

**session**: queries over a real socketpair to a worker's real session with the fake model. The round trip minus the
fake's own time is packing, checking, pricing, the ledger and unpacking, on both sides. The ledger is first a list in
memory and then SQLite as in the harness, with each commit on disk before the reply is sent. If other programs use the
machine, processor time is more reliable than elapsed time, which includes waiting for the disk.
**cma**: ask and tell of one generation as `bbt` does them. **projections**: generated once, and the product of a
query with them. **worker**: memory of a real worker process that runs `bbtv2` on a model of RoBERTa-large's shape
(24 layers, d = 500 each). Numbers: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cma
import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.blackbox.client import RemoteBlackBox
from harness.blackbox.fake import FakeModel
from harness.blackbox.meter import Meter
from harness.blackbox.model import Forwarded
from harness.blackbox.pricing import PricedModel
from harness.blackbox.projection import generate
from harness.blackbox.session import Ledger, Session
from harness.contract import Coordinates, ModelInfo, Outputs, Prompt, Prompts, Subspace, Task, Text
from harness.evaluation.referee import Cell, run_cell
from harness.lm.model import TextSet
from harness.lm.prompts import prompt_layers
from harness.lm.text import Encoded
from harness.results.records import LedgerRow, RunKey
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.examples import Source, load_shots
from harness.tracks.tasks import load_task
from harness.tracks.track import Limits, TrackTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.contract import FeatureKind

ROOT = Path(__file__).resolve().parent.parent
LAYERS, WIDTH, TOKENS, DIM, POPULATION = 24, 1024, 50, 500, 20
FAKE_WIDTH, FAKE_TOKENS = 16, 4


class FakeServed:
    """The fake model with the interface of `LanguageModel` and the visible shape of RoBERTa-large."""

    device, prompt_tokens, max_tokens = "cpu", TOKENS, 512

    def __init__(self, task: Task) -> None:
        """Plant an optimum for `task`."""
        self._fake = FakeModel(task, 0, LAYERS, FAKE_WIDTH, FAKE_TOKENS)
        self._task = task
        self.backbone = SimpleNamespace(layers=LAYERS, width=WIDTH)
        self._texts: dict[int, tuple[Text, ...]] = {}
        self._words: dict[tuple[int, ...], tuple[str, ...]] = {}
        self.forward_s = self.forward_cpu_s = 0.0

    def info(self, _texts: Sequence[Text], _template: str) -> ModelInfo:
        """The facts of RoBERTa-large, except those of its vocabulary."""
        std = (1.0,) * LAYERS
        return ModelInfo("fake-large", "masked", LAYERS, WIDTH, 50_265, 512, TOKENS, 1.0, std)

    def check(self, _prompts: Prompts | None) -> None:
        """Accept all prompts."""

    def text_set(self, _template: str, texts: tuple[Text, ...]) -> TextSet:
        """Count one token per text. The texts are found again by the identity of the set."""
        if texts not in self._texts.values():
            self._sets = getattr(self, "_sets", {})
            made = TextSet(tuple(Encoded((0,), 0) for _ in texts))
            self._sets[texts] = made
            self._texts[id(made)] = texts
        return self._sets[texts]

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """Ids of words."""
        ids = tuple(range(len(words)))
        self._words[ids] = tuple(words)
        return ids

    def forward(
        self,
        prompts: Prompts | None,
        texts: TextSet,
        words: Sequence[int],
        features: FeatureKind | None = None,
        normalize: bool = False,
    ) -> Forwarded:
        """The fake's outputs; its time is counted."""
        wall, cpu = time.perf_counter(), time.thread_time()
        out = self._outputs(prompts, self._texts[id(texts)], self._words[tuple(words)], features or "mask", normalize)
        self.forward_s += time.perf_counter() - wall
        self.forward_cpu_s += time.thread_time() - cpu
        return Forwarded(out.logits, out.features if features else None, out.lengths)

    def outputs(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        _template: str,
        words: Sequence[str],
        features: FeatureKind,
    ) -> Outputs:
        """The outputs for the test set."""
        return self._outputs(prompts, tuple(texts), tuple(words), features, normalize=False)

    def _outputs(
        self, prompts: Prompts | None, texts: tuple[Text, ...], words: tuple[str, ...], features: Any, normalize: bool
    ) -> Outputs:
        if isinstance(prompts, Coordinates):
            prompts = Coordinates(msgspec.structs.replace(prompts.space, tokens=FAKE_TOKENS), prompts.z)
        elif prompts is not None:
            prompts = Prompt(prompts.values[:, :, :FAKE_TOKENS, :FAKE_WIDTH], prompts.mode)
        out = self._fake.outputs(prompts, texts, self._task.template, words, features, normalize)
        if not features:
            return out
        wide = np.zeros((*out.features.shape[:-1], WIDTH), dtype=np.float32)
        wide[..., :FAKE_WIDTH] = out.features
        return Outputs(out.logits, wide, out.lengths)


class InMemory:
    """A ledger that keeps nothing."""

    def record(self, row: LedgerRow) -> None:
        """Keep nothing."""


@dataclass(frozen=True)
class Line:
    """A served session: the client's end, and the model behind it."""

    lm: RemoteBlackBox
    model: FakeServed


def line(task: Task, texts: tuple[Text, ...], ledger: Ledger) -> Iterator[Line]:
    """Open a connection, yield it, and close it."""
    ours, theirs = socket.socketpair()
    model, meter = FakeServed(task), Meter(10**7, len(texts))
    served: Any = model
    session = Session(PricedModel(served, task, 1 << 26, 1 << 26), meter, ledger)
    thread = threading.Thread(target=session.serve, args=(ours, time.monotonic() + 600))
    thread.start()
    lm = RemoteBlackBox(theirs, model.info(texts, ""), task, meter.budget)
    lm.ready({})
    yield Line(lm, model)
    theirs.close()
    thread.join()
    ours.close()


def session_overhead(store: Path, repeats: int) -> None:
    """Round trip without the forward pass, for queries of several sizes."""
    file = load_task("sst2")
    task = file.task("harness-2026", "masked")
    texts = load_shots(file, Source("embedded"), 1, TrackTask(calls=1, splits=(1,))).train.texts
    rng = np.random.default_rng(0)
    one, deep = Subspace(DIM, (1.0,), TOKENS, 1), Subspace(DIM, (1.0,) * LAYERS, TOKENS, 2)
    queries: dict[str, tuple[Prompts | None, bool]] = {
        "no prompt, 1 x 32": (None, False),
        f"z of the input, {POPULATION} x 32": (one.at(rng.normal(size=(POPULATION, DIM))), False),
        f"z of 24 layers, {POPULATION} x 32": (deep.at(rng.normal(size=(POPULATION, LAYERS, DIM))), False),
        "values of the input, 1 x 32": (Prompt(rng.normal(size=(1, 1, TOKENS, WIDTH)).astype(np.float32)), False),
        "z of the input with states, 1 x 32": (one.at(rng.normal(size=(1, DIM))), True),
    }
    results = Store(str(store / "ledger.db"))
    run = results.open_run(_key(), {})
    for name, (prompts, states) in queries.items():
        for kind, ledger in (("memory", InMemory()), ("SQLite", results.begin(run, "sst2", 1))):
            for open_line in line(task, texts, ledger):
                times = [one_query(open_line, prompts, texts, states) for _ in range(repeats + 20)][20:]
                cpu, wall = (statistics.median(part) * 1e3 for part in zip(*times, strict=True))
                print(
                    f"session {name:36} ledger in {kind}: {cpu:6.3f} ms of processor time a query, both ends; "
                    f"{wall:6.3f} ms elapsed",
                    flush=True,
                )
    rows = [timed_record(results.begin(run, "sst2", 1)) for _ in range(repeats)]
    print(f"ledger  one commit, on disk before the reply: {statistics.median(rows) * 1e3:.3f} ms")
    results.close()


def one_query(open_line: Line, prompts: Prompts | None, texts: tuple[Text, ...], states: bool) -> tuple[float, float]:
    """Processor and elapsed seconds of a round trip, without those of the fake model."""
    model = open_line.model
    cpu, wall = time.process_time() - model.forward_cpu_s, time.perf_counter() - model.forward_s
    if states:
        open_line.lm.outputs(prompts, texts)
    else:
        open_line.lm.logits(prompts, texts)
    return time.process_time() - model.forward_cpu_s - cpu, time.perf_counter() - model.forward_s - wall


def timed_record(ledger: Ledger) -> float:
    """Seconds of one ledger row."""
    before = time.perf_counter()
    ledger.record(LedgerRow(640, 50_000, 40_000, 5_000, 0.5, 1, "0" * 64))
    return time.perf_counter() - before


def cma_generation(generations: int) -> None:
    """Ask and tell at d = 500, population 20, as `bbt` calls them."""
    search = cma.CMAEvolutionStrategy(np.zeros(DIM), 1.0, {"popsize": POPULATION, "seed": 1, "verbose": -9})
    asked, told = [], []
    with threadpool_limits(1):  # as in a worker
        for _ in range(generations):
            before = time.process_time()
            zs = search.ask()
            middle = time.process_time()
            search.tell(zs, [float(z @ z) for z in zs])
            asked.append(middle - before)
            told.append(time.process_time() - middle)
    ask, tell = statistics.fmean(asked), statistics.fmean(told)
    print(
        f"cma     d = {DIM}, population {POPULATION}: ask {ask * 1e3:.1f} ms, tell {tell * 1e3:.1f} ms a generation "
        f"(slowest {max(map(sum, zip(asked, told, strict=True))) * 1e3:.0f} ms); 8,000 calls: "
        f"{(ask + tell) * 8000 / POPULATION:.1f} s"
    )


def projections(layers: int) -> None:
    """The cost of generating A_l once, and of a query's product with it."""
    space = Subspace(DIM, (1.0,) * layers, TOKENS, seed=3)
    z = np.random.default_rng(0).normal(size=(1, layers, DIM))
    z = np.repeat(z, POPULATION, axis=0)
    z[1:, -1] += 1  # as in bbtv2: candidates differ in one layer
    before = time.process_time()
    generate(space, 0, WIDTH)
    made = time.process_time() - before
    prompt_layers(space.at(z), WIDTH)
    times = []
    for _ in range(5):
        before = time.process_time()
        prompt_layers(space.at(z), WIDTH)
        times.append(time.process_time() - before)
    print(
        f"projections  A_l of {TOKENS * WIDTH:,} x {DIM}: {made:.2f} s, once; a query's product with those of "
        f"{layers} layers: {statistics.median(times) * 1e3:.0f} ms"
    )


def worker_memory(store: Path, calls: int) -> None:
    """Peak resident memory of a worker that runs bbtv2 on 24 layers."""
    file = load_task("sst2")
    spec = TrackTask(calls=calls, splits=(1,))
    limits = Limits(wall_s=600, memory_gb=4)
    task = file.task("harness-2026", "masked")
    cell = Cell(file, task, 1, spec, limits, Source("embedded"), 0)
    results = Store(str(store / "worker.db"))
    attempt = results.begin(results.open_run(_key(), {}), "sst2", 1)
    served: Any = FakeServed(task)
    verdict = run_cell(
        cell, find(ROOT / "submissions" / "bbtv2"), {"dim": str(DIM)}, served, attempt, lambda _rows, _note: None
    )
    record = verdict.record
    print(
        f"worker  bbtv2, {LAYERS} layers x d {DIM}, {calls:,} calls: {record.worker_peak_mb:.0f} MiB at most "
        f"({verdict.status}, {record.queries:,} queries, {record.tuning_s:.0f} s)"
    )
    results.close()


def _key() -> RunKey:
    return RunKey("bench", "", (), "bench", "", 1, "fake", "", "embedded", "", "cpu", 0, "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("session", "cma", "projections", "worker")
    parser.add_argument("--part", action="append", choices=parts, help="only this")
    parser.add_argument("--repeats", type=int, default=200, help="queries of each kind")
    parser.add_argument("--calls", type=int, default=1500, help="budget of the worker: 480 search each layer once")
    parser.add_argument("--layers", type=int, default=4, help="layers of the projections, 0.1 GB each")
    parser.add_argument("--store", type=Path, help="directory for the ledger; default a temporary one")
    given = parser.parse_args()
    wanted = given.part or parts
    with tempfile.TemporaryDirectory(dir=given.store) as folder:
        if "session" in wanted:
            session_overhead(Path(folder), given.repeats)
        if "cma" in wanted:
            cma_generation(given.repeats)
        if "projections" in wanted:
            projections(given.layers)
        if "worker" in wanted:
            worker_memory(Path(folder), given.calls)


if __name__ == "__main__":
    main()
