"""Would queries that share a forward pass get the answers they get alone? Asks the same candidates alone and together.

Prints, per forward pass and number format, how many of the logits keep all their bits and how far the others move.
"""

from __future__ import annotations

import argparse

import msgspec
import numpy as np

from harness.contract import Subspace
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_shots
from harness.tracks.numerics import Forward, Numerics
from harness.tracks.tasks import load_task
from harness.tracks.track import DType, load_track

FORWARDS: tuple[Forward, ...] = ("packed", "invariant")


def compare(forward: Forward, dtype: DType, task: str, together: int, device: str) -> tuple[float, float]:
    """Share of logits that are equal to the last bit, and the largest difference."""
    track = load_track("mini")
    model = msgspec.structs.replace(track.model, dtype=dtype)
    numerics = Numerics(forward=forward)
    lm = load_model(model, track.prompt, device="cuda" if device == "cuda" else "cpu", numerics=numerics)
    file = load_task(task)
    wording = file.task(track.profile, "masked")
    shots = load_shots(file, Source("embedded"), 1, track.tasks[task])
    texts = lm.text_set(wording.template, shots.train.texts)
    words = lm.single_ids(wording.words)
    space = Subspace(100, lm.info(shots.train.texts, wording.template).hidden_std, lm.prompt_tokens, seed=1)
    z = np.random.default_rng(0).standard_normal((together, lm.backbone.layers, 100)).astype(np.float32)
    alone = np.concatenate([lm.forward(space.at(each[None]), texts, words).logits for each in z])
    shared = lm.forward(space.at(z), texts, words).logits
    return float((alone == shared).mean()), float(np.abs(alone - shared).max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--task", default="sst2")
    arguments = parser.parse_args()
    for forward in FORWARDS:
        for dtype in ("float32", "bfloat16"):
            for together in (2, 4, 8):
                equal, most = compare(forward, dtype, arguments.task, together, arguments.device)
                case = f"{arguments.device} {forward} {dtype}: {together} queries together"
                print(f"{case}: {equal:7.2%} of logits equal, {most:.3g}")


if __name__ == "__main__":
    main()
