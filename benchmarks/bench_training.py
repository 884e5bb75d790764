"""A training step of a white-box reference: linear layers by torch's own products, and by `harness.lm.gradients`.

    python benchmarks/bench_training.py --track mini --task snli
    python benchmarks/bench_training.py --track mini-text --task headline

A step is Adam's on --batch training texts of a real split. It trains a vector that is added to the first layer's input,
and then all weights. Both ways take turns in one process. Times are processor time; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.contract import TextTask
from harness.evaluation.text_white_box import TextWhiteBox
from harness.evaluation.white_box import WhiteBox
from harness.lm.gradients import fast_products
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_shots
from harness.tracks.track import load_track, track_tasks

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def seconds(lm: WhiteBox, parameters: list[Any], train: Any, rows: Any, within: AbstractContextManager[None]) -> float:
    """Processor time of one step."""
    adam = torch.optim.Adam(parameters, lr=1e-9)
    with within:
        before = time.process_time()
        lm._step(adam, train, rows, prompted=False)  # noqa: SLF001
        return time.process_time() - before


def main() -> None:
    """Measure and print one JSON object for each kind of step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", default="mini")
    parser.add_argument("--task", default="snli")
    parser.add_argument("--batch", type=int, default=16, help="texts a step")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    track = load_track(given.track)
    model, file = load_model(track.model, track.prompt), track_tasks(track)[given.task]
    task = file.wording(track.profile, model.kind)
    shots = load_shots(file, Source("embedded"), 1, track.tasks[given.task])
    kind = TextWhiteBox if isinstance(task, TextTask) else WhiteBox
    rows = np.arange(given.batch)
    for name in ("input", "all"):
        lm = kind(model, task, shots.train.texts)
        if name == "all":
            parameters = list(lm.module.parameters())
        else:
            added = torch.zeros(lm.info.width, requires_grad=True)
            lm.edit_input(0, lambda x, added=added: x + added)
            parameters = [added]
        for parameter in parameters:
            parameter.requires_grad_()
        found: dict[str, list[float]] = {"torch": [], "harness": []}
        for n in range(given.repeats + 1):
            for way, within in (("torch", contextlib.nullcontext()), ("harness", fast_products())):
                spent = seconds(lm, parameters, shots.train, rows, within)
                if n:  # the first turn lays out memory
                    found[way].append(spent)
        median = {way: statistics.median(values) for way, values in found.items()}
        print(
            json.dumps(
                {
                    "track": given.track, "task": given.task, "texts": given.batch, "trained": name,
                    "seconds": {way: round(value, 3) for way, value in median.items()},
                    "ratio": round(median["torch"] / median["harness"], 2), "threads": torch.get_num_threads(),
                }
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
