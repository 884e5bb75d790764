"""A track whose model is a tiny tokenizer alone, since the weights are on a server, and a fake server for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fake_openai_server import FakeServer

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS, TRAIN = 3, 4
SECRET = "sk-secret-of-a-test"  # noqa: S105 - no secret
TRACK = """
name = "served"
title = "A tiny tokenizer, and a server"
rules = 1
profile = "harness-2026"
device = "cpu"

[model]
source = "{model}"
dtype = "float32"
kind = "causal"

[endpoint]

[prices]
currency = "USD"
per_million_tokens = 1000.0
per_million_received = 2000.0

[data]
source = "embedded"

[prompt]
tokens = 2
first_id = 20

[limits]
wall_s = 60
memory_gb = 3

[tasks.sst2]
calls = 3
splits = [1]
shots = 2
dev = 2
"""


def save_track(folder: Path) -> Path:
    """Write the track and its tokenizer into `folder`, and return the track's file."""
    sys.path.insert(0, str(Path(__file__).parent / "lm"))
    try:
        import tiny_models
    finally:
        sys.path.pop(0)
    tiny_models.save("gpt2", folder)
    (folder / "model.safetensors").write_bytes(b"not here")
    path = folder / "served.toml"
    path.write_text(TRACK.format(model=folder), encoding="utf-8")
    return path


def fake_server(track: Path) -> FakeServer:
    """A llama.cpp server for the track's tokenizer; its log-probabilities depend on which tokens are in the prompt."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(track.parent)
    values = log_probabilities(len(tokenizer))
    return FakeServer("llama.cpp", values, lambda text: tokenizer(text)["input_ids"], lambda i: tokenizer.decode([i]))


def log_probabilities(vocabulary: int) -> Callable[[list[int]], list[float]]:
    """What the fake server answers after token ids."""
    weights = np.random.default_rng(0).normal(size=(vocabulary, vocabulary))

    def values(ids: list[int]) -> list[float]:
        raw = weights[ids].mean(axis=0)
        found: list[float] = (raw - np.log(np.exp(raw).sum())).tolist()
        return found

    return values
