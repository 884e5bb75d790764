"""A training step of a white-box reference, in three ways that take turns in one process.

torch      linear layers by torch's own products, all texts in one batch
products   linear layers by `harness.lm.gradients`, all texts in one batch
parts      the same in parts of like length, as references are trained on a CPU

    python benchmarks/bench_training.py --track mini --task snli
    python benchmarks/bench_training.py --track kit --data DIR --task qnli --batch 32
    python benchmarks/bench_training.py --track mini-text --task headline

A step is Adam's on --batch random training texts of a real split. It trains a vector that is added to the first layer's
input, and then all weights. Times are processor time; each repetition has other texts, the same for all ways.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

from harness.contract import TextTask
from harness.evaluation import white_box
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.evaluation.text_white_box import TextWhiteBox
from harness.evaluation.white_box import WhiteBox
from harness.lm.gradients import ByOneDnn
from harness.results.store import Store
from harness.tracks.examples import load_shots
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def way(name: str) -> Iterator[None]:
    """Within the block, steps are computed in this way."""
    price = white_box._PART_PRICE if name == "parts" else 10**9  # noqa: SLF001
    with (
        mock.patch.object(white_box, "_PART_PRICE", price),
        contextlib.nullcontext() if name == "torch" else ByOneDnn(),
    ):
        yield


def seconds(lm: WhiteBox, adam: torch.optim.Adam, train: Any, rows: Any) -> float:
    """Processor time of one step."""
    before = time.process_time()
    lm._step(adam, train, rows, prompted=False)  # noqa: SLF001
    return time.process_time() - before


def main() -> None:
    """Measure and print one JSON object for each kind of step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", default="mini")
    parser.add_argument("--task", default="snli")
    parser.add_argument("--data", type=Path, help="data directory of the track kit")
    parser.add_argument("--batch", type=int, default=16, help="texts a step")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    evaluation = Evaluation(load_track(given.track), Overrides(data=given.data), Store("sqlite://"))
    cell = next(each for each in evaluation.cells if each.task.name == given.task)
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    kind = TextWhiteBox if isinstance(cell.task, TextTask) else WhiteBox
    for name in ("input", "all"):
        lm = kind(evaluation.model_for(cell), cell.task, shots.train.texts)
        if name == "all":
            parameters = list(lm.module.parameters())
        else:
            added = torch.zeros(lm.info.width, requires_grad=True)
            lm.edit_input(0, lambda x, added=added: x + added)
            parameters = [added]
        for parameter in parameters:
            parameter.requires_grad_()
        adam = torch.optim.Adam(parameters, lr=1e-9)
        found: dict[str, list[float]] = {"torch": [], "products": [], "parts": []}
        rng, padding = np.random.default_rng(0), list[float]()
        for n in range(given.repeats + 1):
            rows = rng.permutation(len(shots.train))[: given.batch]
            for which, times in found.items():
                with way(which):
                    spent = seconds(lm, adam, shots.train, rows)
                if n:  # the first turn lays out memory
                    times.append(spent)
            sizes = lm._sizes(shots.train, rows, prompted=False)  # noqa: SLF001
            padding.append(len(sizes) * max(sizes) / sum(sizes))
        mean = {which: statistics.mean(times) for which, times in found.items()}
        print(
            json.dumps(
                {
                    "track": given.track, "task": given.task, "texts": len(rows), "trained": name,
                    "seconds": {which: round(value, 3) for which, value in mean.items()},
                    "torch / products": round(mean["torch"] / mean["products"], 2),
                    "products / parts": round(mean["products"] / mean["parts"], 2),
                    "padded / tokens": round(statistics.mean(padding), 2),
                    "threads": torch.get_num_threads(),
                }
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
