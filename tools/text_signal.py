"""How much there is to tune on a text task: a soft prompt that gradients trained, against the bare template.

    python tools/text_signal.py --task plain --steps 40 --texts 80

The prompt stands before the text (`prepend`), as many vectors as the track allows, first those of its p0 tokens. Adam
lowers the cross-entropy of the references of one split's training texts, through the weights, which no submission has.
Both then write after the same test texts, and the task's metric scores them. Intervals are 95 % bootstrap intervals
over texts of 2,000 draws; the last is that of the difference, text by text. A task is worth tuning if it is above 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.contract import Answer, Examples, Member, Prompt, TextTask
from harness.evaluation.text_cells import write
from harness.evaluation.text_metrics import scores
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_shots, load_test
from harness.tracks.track import load_track, track_tasks


def trained(lm: Any, task: TextTask, train: Examples, steps: int, batch: int, rate: float) -> Prompt:
    """A prompt for `lm` from `steps` steps of Adam, each on the gradients of `batch` texts."""
    model, chance = lm.weights(), np.random.default_rng(0)
    text, embed = text_model(lm), model.get_input_embeddings()
    targets = text.target_ids(task.targets(train))
    encoded = text.encode(task.template, train.texts, "prepend", max(map(len, targets))).encoded
    ids = torch.arange(lm._p0[0], lm._p0[-1] + 1)  # noqa: SLF001
    prompt = embed(ids).detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([prompt], lr=rate)
    for step in range(steps):
        started, total = time.perf_counter(), 0.0
        for n in chance.choice(len(train), size=batch, replace=False):
            row = torch.tensor([*encoded[n].ids, *targets[n]])
            inputs = torch.cat([prompt, embed(row[:-1]).detach()])[None]
            logits = model(inputs_embeds=inputs).logits[0, -len(targets[n]) :]
            loss = F.cross_entropy(logits, row[-len(targets[n]) :]) / batch
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {total:.3f}, {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    return Prompt(prompt.detach().numpy()[None, None], "prepend")


def interval(values: Any) -> list[float]:
    """Mean and bootstrap limits."""
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return [round(100 * float(each), 1) for each in (values.mean(), low, high)]


def main() -> None:
    """Train, write, score, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", default="mini-text")
    parser.add_argument("--task", required=True)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate of Adam")
    parser.add_argument("--texts", type=int, default=240, help="test texts after which both write")
    given = parser.parse_args()
    track = load_track(given.track)
    file, source = track_tasks(track)[given.task], Source(track.data.source)
    lm = load_model(track.model, track.prompt)
    task = file.wording(track.profile, "causal")
    assert isinstance(task, TextTask)  # noqa: S101
    shots = load_shots(file, source, given.split, track.tasks[given.task])
    prompt = trained(lm, task, shots.train, given.steps, given.batch, given.rate)
    test = load_test(file, source)
    texts, references = test.texts[: given.texts], test.references[: given.texts]
    model = text_model(lm)
    found: dict[str, Any] = {"task": given.task, "split": given.split, "steps": given.steps, "texts": len(texts)}
    each = {}
    targets = model.target_ids(task.targets(shots.dev))
    for name, asked in (("bare", None), ("trained", prompt)):
        encoded = model.encode(task.template, shots.dev.texts, None if asked is None else "prepend", 40)
        loss = float(model.score(asked, encoded, targets).losses()[0])
        written = write(Answer((Member(task.template, (), asked),)), task, lm, texts)
        each[name] = scores(task.metric, written, references)
        found[name] = {task.metric: interval(each[name]), "dev_loss": round(loss, 3), "first": list(written[:3])}
    found["difference"] = interval(each["trained"] - each["bare"])
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
