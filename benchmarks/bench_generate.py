"""Generation against transformers' own batched `generate`: the same texts, prompts and greedy tokens, in one run.

    python benchmarks/bench_generate.py --candidates 4 --texts 16
    python benchmarks/bench_generate.py --candidates 4 --texts 16 --layers 15
    python benchmarks/bench_generate.py --candidates 0 --texts 16 --demonstrations 4

Both write after every text under every candidate: a soft prompt before the text. With `--layers FIRST` prompts are
deep, at every layer, and candidates differ from layer FIRST on, as in a search that goes layer by layer. With
`--demonstrations N` as many examples stand before each text.

transformers gets all sequences in one batch, as embeddings padded on the left, with the same stops. It has no deep
prompts: while it reads the batch, hooks add each sequence's values to the inputs of the layers, as a user would who
writes the loop; what they add stays in its keys and values, so later steps need no hook. Each is run `--repeats` times
in turn; the ratio is that of the medians. Outputs are compared: greedy tokens must be equal, but for ties in the last
digits. `apart` says after how many texts candidates write different outputs: so often a prompt has made a difference.
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

from harness.blackbox.text_model import Decoding
from harness.contract import Prompt, TextTask
from harness.evaluation.text_cells import read_as
from harness.lm.backbones import families
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.solving import demonstration
from harness.tracks.examples import Source, load_shots, load_test
from harness.tracks.track import load_track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACK, TASK = "mini-text", "headline"


@contextlib.contextmanager
def deep(model: Any, values: torch.Tensor, first: torch.Tensor) -> Iterator[None]:
    """Add values (sequences, layers, tokens, width) to the layers above the input of the tokens from `first` on.

    Steps of one token are left alone.
    """
    sequence = torch.arange(len(values))[:, None]
    place = first[:, None] + torch.arange(values.shape[2])

    def edit(depth: int, x: torch.Tensor) -> torch.Tensor:
        if depth == 0 or depth >= values.shape[1] or x.shape[1] == 1:
            return x
        x = x.clone()
        x[sequence, place] += values[:, depth]
        return x

    hooks = families.edit_inputs(model, edit)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def theirs(lm: Any, asked: Prompt | None, rows: list[tuple[int, ...]], how: Decoding) -> list[str]:
    """Outputs of transformers' `generate` for every candidate and text, in one batch padded on the left."""
    model, tokenizer = lm.backbone._model, lm.tokenizer  # noqa: SLF001
    values = torch.zeros(1, 1, 0, lm.backbone.width) if asked is None else torch.from_numpy(asked.values)
    longest = max(map(len, rows)) + values.shape[2]
    embeds = torch.zeros(len(values) * len(rows), longest, lm.backbone.width)
    mask = torch.zeros(embeds.shape[:2], dtype=torch.int64)
    first = torch.tensor([longest - len(ids) - values.shape[2] for _ in values for ids in rows])
    with torch.inference_mode(), deep(model, values.repeat_interleave(len(rows), 0), first):
        for n, (value, ids) in enumerate((value[0], ids) for value in values for ids in rows):
            words = model.get_input_embeddings()(torch.tensor(ids))
            size = len(ids) + len(value)
            embeds[n, longest - size :], mask[n, longest - size :] = torch.cat([value, words]), 1
        more: dict[str, Any] = {"stop_strings": list(how.stop), "tokenizer": tokenizer} if how.stop else {}
        written = model.generate(
            inputs_embeds=embeds, attention_mask=mask, do_sample=False, max_new_tokens=how.most_tokens,
            pad_token_id=tokenizer.eos_token_id, **more,
        )  # fmt: skip
    texts = tokenizer.batch_decode(written, clean_up_tokenization_spaces=False)
    return [text.partition(tokenizer.eos_token)[0] for text in texts]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=4, help="soft prompts; 0 is the bare template")
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--layers", type=int, metavar="FIRST", help="deep prompts, which differ from this layer on")
    parser.add_argument("--demonstrations", type=int, default=0, help="examples before each text")
    parser.add_argument("--tokens", type=int, default=24, help="longest output")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--free", action="store_true", help="no stop: every output has its full length")
    given = parser.parse_args()
    track = load_track(TRACK)
    lm, file = load_model(track.model, track.prompt), track_tasks(track)[TASK]
    task = file.wording(track.profile, "causal")
    assert isinstance(task, TextTask)  # noqa: S101
    source = Source("embedded")
    texts, shots = load_test(file, source).texts[: given.texts], load_shots(file, source, 1, track.tasks[TASK])
    template = "".join(demonstration(task, shots.train, n) for n in range(given.demonstrations)) + task.template
    asked = None
    if given.candidates:
        layers = 1 if given.layers is None else lm.backbone.layers
        shape = (given.candidates, layers, lm.prompt_tokens, lm.backbone.width)
        values = np.random.default_rng(0).standard_normal(shape)
        if given.layers is None:
            values *= lm.embedding_std
        else:  # as wide as BBTv2's first prompts here: the layer's own width at the input, a fifth of it above
            std = np.array(lm.info(shots.train.texts, read_as(task)).hidden_std)
            values *= (std * np.where(np.arange(layers) > 0, 0.2, 1))[:, None, None]
        values[:, : given.layers or 0] = values[:1, : given.layers or 0]
        asked = Prompt(values.astype(np.float32), "prepend")
    how = Decoding(given.tokens, () if given.free else task.stop)
    model = text_model(lm)
    encoded = model.encode(template, texts, None if asked is None else "prepend", given.tokens)
    rows = [e.ids for e in encoded.encoded]
    seconds: dict[str, list[float]] = {"harness": [], "transformers": []}
    for _ in range(given.repeats):
        before = time.perf_counter()
        mine = model.generate(asked, encoded, how, lambda _sequences: True)
        seconds["harness"].append(time.perf_counter() - before)
        before = time.perf_counter()
        other = theirs(lm, asked, rows, how)
        seconds["transformers"].append(time.perf_counter() - before)
    ours = [text for candidate in mine.texts for text in candidate]
    equal = sum(task.output(one) == task.output(two) for one, two in zip(ours, other, strict=True))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    found = {
        "sequences": len(ours), "equal": equal, "tokens": int(mine.tokens.sum()), "stop": bool(how.stop),
        "apart": sum(len(set(each)) > 1 for each in zip(*mine.texts, strict=True)),
        "read": sum(map(len, rows)) // len(rows),
        "seconds": {name: round(value, 2) for name, value in median.items()},
        "ratio": round(median["transformers"] / median["harness"], 2), "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
