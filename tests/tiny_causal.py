"""A tiny random causal model in hub format that reads the miniatures of text tasks, and a track of two of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from harness.tracks.tasks import tasks_dir

if TYPE_CHECKING:
    from pathlib import Path

WIDTH, LAYERS, LONGEST, TOKENS = 16, 2, 256, 2
NAMES = ("plain", "reply")
CALLS, SHOTS = 30, 4

TRACK = """
name = "tiny-text"
title = "A random causal model and two tasks whose answer is text"
rules = 1
profile = "harness-2026"
device = "cpu"

[model]
source = "{model}"
dtype = "float32"
kind = "causal"

[data]
source = "embedded"

[prompt]
tokens = 2
first_id = 20

[limits]
wall_s = 120
memory_gb = 3

[tasks.plain]
calls = 30
row_tokens = 32
splits = [1, 2]
shots = 4
dev = 4

[tasks.reply]
calls = 30
row_tokens = 32
splits = [1, 2]
shots = 4
dev = 4
"""


def save(folder: Path) -> Path:
    """Write the model into `folder`."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    corpus = [
        field
        for name in NAMES
        for line in (tasks_dir() / name / "mini" / "pool.jsonl").read_text(encoding="utf-8").splitlines()
        for row in [json.loads(line)]
        for field in (*row["texts"], *row["references"])
    ]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(corpus, trainer)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|end|>")
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **ends)
    own.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(own), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=32, max_position_embeddings=LONGEST, initializer_range=0.3,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_track(folder: Path) -> Path:
    """The model in ``folder/model``, and the path of a track that uses it."""
    path = folder / "tiny-text.toml"
    path.write_text(TRACK.format(model=save(folder / "model").as_posix()), encoding="utf-8")
    return path
