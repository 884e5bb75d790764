"""Generation against transformers' own batched `generate`: the same texts, prompts and greedy tokens, in one run.

    python benchmarks/bench_generate.py --candidates 4 --texts 16

Both write after every text under every candidate: a soft prompt that is put before the text. transformers gets all
sequences in one batch, as embeddings padded on the left, with the same stops. Each is run `--repeats` times in turn;
the ratio is that of the medians. Outputs are compared: greedy tokens must be equal, but for ties in the last digits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

from harness.blackbox.text_model import Decoding
from harness.contract import Prompt, TextTask
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_test
from harness.tracks.track import load_track, track_tasks

TRACK, TASK = "mini-text", "headline"


def theirs(lm: Any, asked: Prompt | None, rows: list[tuple[int, ...]], how: Decoding) -> list[str]:
    """Outputs of transformers' `generate` for every candidate and text, in one batch padded on the left."""
    model, tokenizer = lm.backbone._model, lm.tokenizer  # noqa: SLF001
    values = torch.zeros(1, 0, lm.backbone.width) if asked is None else torch.from_numpy(asked.values[:, 0])
    longest = max(map(len, rows)) + values.shape[1]
    embeds = torch.zeros(len(values) * len(rows), longest, lm.backbone.width)
    mask = torch.zeros(embeds.shape[:2], dtype=torch.int64)
    with torch.inference_mode():
        for n, (value, ids) in enumerate((value, ids) for value in values for ids in rows):
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
    parser.add_argument("--tokens", type=int, default=24, help="longest output")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--free", action="store_true", help="no stop: every output has its full length")
    given = parser.parse_args()
    track = load_track(TRACK)
    lm, file = load_model(track.model, track.prompt), track_tasks(track)[TASK]
    task = file.wording(track.profile, "causal")
    assert isinstance(task, TextTask)  # noqa: S101
    texts = load_test(file, Source("embedded")).texts[: given.texts]
    asked = None
    if given.candidates:
        shape = (given.candidates, 1, lm.prompt_tokens, lm.backbone.width)
        values = lm.embedding_std * np.random.default_rng(0).standard_normal(shape)
        asked = Prompt(values.astype(np.float32), "prepend")
    how = Decoding(given.tokens, () if given.free else task.stop)
    model = text_model(lm)
    encoded = model.encode(task.template, texts, None if asked is None else "prepend", given.tokens)
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
        "seconds": {name: round(value, 2) for name, value in median.items()},
        "ratio": round(median["transformers"] / median["harness"], 2), "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
