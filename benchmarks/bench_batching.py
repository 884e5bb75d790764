"""What it would give to compute queries of several tokens in one forward pass of the embedded model.

    python benchmarks/bench_batching.py                        # int8, the format of track mini on most machines
    python benchmarks/bench_batching.py --forward invariant    # float32, a row's numbers the same in any company

Each round computes the same queries one by one and together, and counts the process's CPU seconds of both. All queries
are on the same training texts under the same template, which is the best case: they differ in their prompts alone.
The projections stay apart, since those of one query and of many at once differ in their last digits. HTTP and the
commit of each query are not in it. So a service gains at most this.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from harness.contract import Prompt, Subspace
from harness.lm.load import load_model
from harness.lm.prompts import TOGETHER, prompt_layers
from harness.tracks.examples import Source, load_shots
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from harness.contract import Coordinates, FloatArray
    from harness.lm.model import LanguageModel
    from harness.lm.text import TextSet

SIZES = ((1, 1), (1, 8), (1, 32), (2, 32), (5, 32), (20, 32))
"""Candidates and texts of a query; a training set of sst2 has 32 texts."""


def values(lm: LanguageModel, each: Coordinates) -> FloatArray:
    """The prompt of a query: (candidates, 1, tokens, width)."""
    (found,) = prompt_layers(each, lm.backbone.width, lm.device, TOGETHER if lm.format == "float32" else None)
    values: FloatArray = found.numpy()[:, None]
    return values


def measure(lm: LanguageModel, asked: list[Coordinates], texts: TextSet, words: tuple[int, ...]) -> tuple[float, bool]:
    """CPU seconds one by one over those together, and whether all logits are the same to the last bit."""
    began = time.process_time()
    apart = [lm.forward(each, texts, words).logits for each in asked]
    between = time.process_time()
    together = lm.forward(Prompt(np.concatenate([values(lm, each) for each in asked])), texts, words).logits
    ended = time.process_time()
    return (between - began) / (ended - between), bool(np.array_equal(np.concatenate(apart), together))


def size(text: str) -> tuple[int, int]:
    """Candidates and texts from 5x32."""
    candidates, _, texts = text.partition("x")
    return int(candidates), int(texts)


def main() -> None:
    """Measure and print a row for each size of a query."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forward", choices=["packed", "invariant"], default="packed")
    parser.add_argument("--queries", type=int, default=8, help="Queries that wait at once.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=SIZES, type=size, help="Candidates x texts, such as 5x32.")
    parser.add_argument("--dim", type=int, default=500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    track, file = load_track("mini"), load_task("sst2")
    spec, numerics = track.model, msgspec.structs.replace(track.numerics, forward=given.forward)
    if given.forward == "invariant":
        spec = msgspec.structs.replace(spec, dtype="float32", formats=msgspec.UNSET)
    lm = load_model(spec, track.prompt, numerics=numerics)
    task = file.task(track.profile, "masked")
    train = load_shots(file, Source("embedded"), 1, track.tasks["sst2"]).train.texts
    info, words = lm.info(train, task.template), lm.single_ids(task.words)
    space = Subspace(given.dim, (info.hidden_std[0],), info.prompt_tokens, seed=1)
    rng = np.random.default_rng(0)
    print(f"{lm.format}, {given.forward}, {given.queries} queries, one thread")
    for candidates, texts in given.sizes:
        encoded = lm.text_set(task.template, train[:texts])
        ratios, same = [], True
        for _ in range(given.rounds + 1):
            zs = rng.standard_normal((given.queries, candidates, given.dim)).astype(np.float32)
            ratio, equal = measure(lm, [space.at(z) for z in zs], encoded, words)
            ratios.append(ratio)
            same = same and equal
        shown = sorted(ratios[1:])  # the first warms up
        print(
            f"{candidates:3} candidates x {texts:2} texts: together {statistics.median(shown):.2f} times as fast "
            f"({shown[0]:.2f} to {shown[-1]:.2f}), {'the same' if same else 'other'} bits",
            flush=True,
        )


if __name__ == "__main__":
    main()
