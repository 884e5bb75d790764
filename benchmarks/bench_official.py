"""Time and memory of the official track's shape: RoBERTa-large with random weights, 32 texts of SST-2's length.

    python benchmarks/bench_official.py                        # the CPU, float32 as on the track
    python benchmarks/bench_official.py --dtype bfloat16
    python benchmarks/bench_official.py --device cuda

A call is one prompt over the training set. Time and memory do not depend on the values, so the weights are
random and nothing is downloaded; 1.4 GB are written once. Seconds are medians of `--repeats`. An uncounted query on one
text makes the projections first. Elapsed time and processor time are both given; other work on the machine affects
processor time little. With OMP_NUM_THREADS=1 it is the time of one core.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from bench_lm import CACHE, random_roberta_large

from harness.blackbox.projection import check_space
from harness.contract import Subspace
from harness.lm import device
from harness.lm.load import load_model
from harness.lm.model import TextSet
from harness.tracks.examples import Source, load_shots
from harness.tracks.tasks import load_task
from harness.tracks.track import DType, ModelSpec, TrackTask, load_track

if TYPE_CHECKING:
    from collections.abc import Callable

DIM = 500


def seconds(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of the clock and of the processor; each query ends with its values in main memory."""
    clock, processor = [], []
    for _ in range(repeats):
        before = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - before[0])
        processor.append(time.process_time() - before[1])
    return statistics.median(clock), statistics.median(processor)


def peak_mib() -> int:
    """Peak main memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=get_args(DType), default="float32")
    parser.add_argument("--population", type=int, default=2, help="candidates of the last two lines")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="", help="only queries with this in their names, e.g. deep")
    parser.add_argument("--cache", type=Path, default=CACHE, help="directory of the model, as bench_lm.py's")
    given = parser.parse_args()
    track = load_track("official")
    folder = random_roberta_large(given.cache)
    before = time.perf_counter()
    spec = ModelSpec(str(folder), given.dtype, zero_head_bias=True)
    lm = load_model(spec, track.prompt, device=given.device, numerics=track.numerics)
    print(f"loading: {time.perf_counter() - before:.1f} s, main memory {peak_mib():,} MiB at its peak", flush=True)
    file = load_task("sst2")
    task = file.task("harness-2026", "masked")
    texts = load_shots(file, Source("embedded"), 1, TrackTask(1, (1,))).train.texts
    encoded, words = lm.text_set(task.template, texts), lm.single_ids(task.words)
    width, layers, tokens = lm.backbone.width, lm.backbone.layers, track.prompt.tokens
    deep, shallow = (Subspace(DIM, (1.0,) * n, tokens, seed=0) for n in (layers, 1))
    check_space(deep, layers, width, tokens)
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, layers, DIM))
    many = np.repeat(one, given.population, axis=0)
    last = many.copy()
    last[:, -1] = rng.standard_normal((given.population, DIM))
    many[:, 0] = rng.standard_normal((given.population, DIM))
    queries = {
        "bare template, 1 call": (None, 1),
        "input prompt, 1 call": (shallow.at(one[:, :1]), 1),
        "deep prompt, 1 call": (deep.at(one), 1),
        f"{given.population} candidates that differ from layer 0 on": (deep.at(many), given.population),
        f"{given.population} candidates that differ in the last layer": (deep.at(last), given.population),
    }
    where = device.name(given.device) if given.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{len(texts)} texts, {encoded.tokens} tokens and {tokens} of p0 each, {given.dtype}, {where}", flush=True)
    device.reset_peak(given.device)
    for name, (prompts, calls) in queries.items():
        if given.only not in name:
            continue
        lm.forward(prompts, TextSet(encoded.encoded[:1]), words, "mask")
        took, processor = seconds(lambda prompts=prompts: lm.forward(prompts, encoded, words, "mask"), given.repeats)
        each = f"{took / calls:.1f} s per call by the clock, {processor / calls:.1f} s of the processor"
        print(f"{name}: {each}; main memory {peak_mib():,} MiB at its peak", flush=True)
    on_device = device.peak_mb(given.device)
    print("no GPU" if on_device is None else f"GPU memory {on_device:,.0f} MiB at its peak")


if __name__ == "__main__":
    main()
