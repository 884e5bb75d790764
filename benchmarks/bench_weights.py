"""How much faster a population that changes weights is computed than by a loop that copies the model.

python benchmarks/bench_weights.py                            all groups, 20 candidates x 32 texts, embedded model
python benchmarks/bench_weights.py --group biases --repeats 5
python benchmarks/bench_weights.py --group rank                noise of low rank against noise in every entry

The **naive loop** is what a user writes with transformers: for each candidate a deep copy of the model, the change
written into its parameters (a LoRA is merged), and the model's own forward pass on all texts, padded, in float32. The
changes are made before the clock starts. **Ours** is a metered query's forward pass from coordinates to label-word
logits, in this machine's number format, directions drawn before. Both are measured in turns; a time is the median of
--repeats. The largest difference of their logits is told in standard deviations of the logits. An adapter has no place
in transformers' model, so the loop hooks it on. Memory is what the highest resident set of the process grows by when
all candidates are computed the first time, after one of them was.

**rank** compares two walks of this program in turn: the same group, path and number of candidates, once with noise in
every entry, whose candidates are changed in place one after the other, and once with noise of rank 1, whose candidates
are computed together. Each has a path of 10 steps, which the server keeps, and candidates go one step on, forth and
back, as an evolution strategy asks. Drawing the new steps is part of both. Numbers: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.contract import WeightSpace
from harness.lm import embedded, noise
from harness.lm.backbones import families, groups
from harness.lm.chunks import padded
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_shots
from harness.tracks.tasks import load_task
from harness.tracks.track import TrackTask, load_track

if TYPE_CHECKING:
    from collections.abc import Callable

SPACES = {
    "biases": WeightSpace("biases", 100, 0.05, 1, (3, 4, 5)),
    "biases of all layers": WeightSpace("biases", 100, 0.05, 1),
    "norms": WeightSpace("norms", 100, 0.05, 1, (3, 4, 5)),
    "lora": WeightSpace("lora", 100, 0.1, 1, (3, 4, 5), rank=4),
    "lora of all layers": WeightSpace("lora", 100, 0.1, 1, rank=4),
    "adapter": WeightSpace("adapter", 100, 0.1, 1, (3, 4, 5), rank=8),
    "attention": WeightSpace("attention", 20, 0.005, 1, (5,)),
    "all": WeightSpace("all", 5, 0.001, 1),
}
RANKED = {
    "attention, layers 3 to 5": WeightSpace("attention", 0, 0.005, 1, (3, 4, 5), 1),
    "attention, all layers": WeightSpace("attention", 0, 0.005, 1, (), 1),
    "feed-forward, all layers": WeightSpace("feed_forward", 0, 0.005, 1, (), 1),
    "all of layers 3 to 5": WeightSpace("all", 0, 0.001, 1, (3, 4, 5), 1),
}


def changes_of(model: Any, space: WeightSpace, z: np.ndarray) -> list[list[torch.Tensor]]:
    """For each candidate the values of the tensors that the space changes or adds."""
    slots = groups.slots(model, space)
    flat = torch.from_numpy(z) @ noise.draw(slots, space, range(space.dim), "cpu") * (space.std / space.dim**0.5)
    flat = flat + noise.start(slots, space, "cpu")
    sizes = [slot.size for slot in slots]
    return [
        [part.view(slot.shape) * slot.unit for slot, part in zip(slots, row.split(sizes), strict=True)] for row in flat
    ]


def naive(model: Any, space: WeightSpace, changes: list[list[torch.Tensor]], feed: Any, reads: Any, words: Any) -> Any:
    """Logits (candidates, texts, words), candidate by candidate."""
    found = []
    for change in changes:
        own = copy.deepcopy(model)
        hooks = write(own, space, change)
        with torch.inference_mode():
            logits = own(**feed).logits
        found.append(logits[torch.arange(len(reads)), reads][:, words])
        for hook in hooks:
            hook.remove()
    return torch.stack(found).numpy()


def write(own: Any, space: WeightSpace, change: list[torch.Tensor]) -> list[Any]:
    """Write a change into a model, and return the hooks that it needed."""
    blocks, hooks, left = families.layers(own), [], list(change)
    if space.group == "lora":
        for n in space.layers or range(len(blocks)):
            for beside in space.beside:
                a, b = left.pop(0), left.pop(0)
                groups.matrix(own, blocks[n], beside).parameter.data += b @ a
    elif space.group == "adapter":
        for n in space.layers or range(len(blocks)):
            parts = tuple(left.pop(0) for _ in range(4))

            def adapt(_module: Any, _args: Any, out: Any, parts: Any = parts) -> Any:
                d, e, u, v = parts
                return out + torch.nn.functional.gelu(out @ d.T + e) @ u.T + v

            hooks.append(blocks[n].output.dense.register_forward_hook(adapt))
    else:
        for slot, values in zip(groups.slots(own, space), left, strict=True):
            if slot.parameter is not None:
                slot.parameter.data += values
    return hooks


def ranked(lm: Any, encoded: Any, words: list[int], candidates: int, repeats: int) -> None:
    """Measure noise of low rank against noise in every entry, and print."""
    print(f"{'walks':<28}{'in place, rows/s':>18}{'rank 1, rows/s':>16}{'ratio':>8}")
    rows, path, pairs = candidates * len(encoded), 10, -(-candidates // 2)
    for name, thin in RANKED.items():
        full = msgspec.structs.replace(thin, rank=0)
        times: dict[int, list[float]] = {0: [], 1: []}
        with lm.serving():
            for turn in range(repeats + 1):
                new = np.tile(np.arange(pairs), 2)[:candidates] + path + turn * pairs
                streams = np.column_stack([np.tile(np.arange(path), (candidates, 1)), new])
                steps = np.column_stack([np.ones((candidates, path)), np.repeat([0.5, -0.5], pairs)[:candidates]])
                for space in (full, thin):
                    walks = space.walk(streams, steps)
                    seconds, _ = timed(lambda walks=walks: lm.forward(walks, encoded, words))
                    times[space.rank] += [seconds] * (turn > 0)  # the first turn walks the path
        slow, fast = (rows / statistics.median(times[rank]) for rank in (0, 1))
        print(f"{name:<28}{slow:>18,.0f}{fast:>16,.0f}{fast / slow:>8.1f}", flush=True)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    started = time.perf_counter()
    out = work()
    return time.perf_counter() - started, out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", action="append", choices=[*SPACES, "rank"], help="one of the cases; may be repeated")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--texts", type=int, default=32, help="of SST-2's miniature, at most 32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    task, track = load_task("sst2"), load_track("mini")
    shots = load_shots(task, Source("embedded"), 1, TrackTask(calls=1, splits=(1,), shots=16))
    lm, (model, _) = load_model(track.model, track.prompt), embedded.load()
    wording = task.task(track.profile, "masked", lm)
    torch.set_num_threads(given.threads)
    encoded = lm.text_set(wording.template, shots.train.texts[: given.texts], None)
    words = list(lm.single_ids(wording.words))
    ids, mask = padded([e.ids for e in encoded.encoded], 0)
    feed = {"input_ids": ids, "attention_mask": mask.long()}
    reads = torch.tensor([e.read for e in encoded.encoded])
    print(f"embedded model, {given.candidates} candidates x {len(encoded)} texts, ours in {lm.format}")
    chosen = given.group or [*SPACES, "rank"]
    if "rank" in chosen:
        ranked(lm, encoded, words, given.candidates, given.repeats)
    print(f"{'group':<22}{'naive, rows/s':>14}{'ours, rows/s':>14}{'ratio':>8}{'differ by':>12}{'ours, MiB more':>16}")
    rows = given.candidates * len(encoded)
    for name in (each for each in chosen if each != "rank"):
        space = SPACES[name]
        z = np.random.default_rng(0).standard_normal((given.candidates, space.dim)).astype(np.float32)
        changes = changes_of(model, space, z)
        one, many = space.at(z[:1]), space.at(z)
        lm.forward(one, encoded, words)
        before, more = peak_mib(), 0.0
        times: dict[str, list[float]] = {"naive": [], "ours": []}
        for _ in range(given.repeats):
            seconds, ours = timed(lambda many=many: lm.forward(many, encoded, words).logits)
            times["ours"].append(seconds)
            more = peak_mib() - before if len(times["ours"]) == 1 else more
            loop = timed(lambda space=space, own=changes: naive(model, space, own, feed, reads, words))
            times["naive"].append(loop[0])
        plain, fast = (rows / statistics.median(times[each]) for each in ("naive", "ours"))
        off = np.abs(ours - loop[1]).max() / loop[1].std()
        print(f"{name:<22}{plain:>14,.0f}{fast:>14,.0f}{fast / plain:>8.1f}{off:>9.2g} sd{more:>16,.0f}", flush=True)


def peak_mib() -> float:
    """The highest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
