"""Random RoBERTas in hub format and tracks that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import transformers

from harness.lm import embedded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LARGE = {
    "vocab_size": 50265, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "max_position_embeddings": 514,
}  # fmt: skip
"""RoBERTa-large's shape."""
SMALL = LARGE | {
    "vocab_size": 30522, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
}  # fmt: skip

TRACK = """
name = "shape"
title = "The official track's shape, random weights, miniature data"
rules = 1
profile = "harness-2026"
device = "{device}"

[model]
source = "{model}"
dtype = "float32"
zero_head_bias = true

[data]
source = "embedded"

[prompt]
tokens = 50
first_id = 1000

[limits]
wall_s = 900
memory_gb = 16

[numerics]
chunk_tokens = {chunk_tokens}

[tasks.sst2]
calls = 40
splits = [1]
"""


def save_model(folder: Path, shape: Mapping[str, int]) -> Path:
    """A RoBERTa of this shape with random weights, and the embedded model's tokenizer."""
    embedded.tokenizer(embedded.package_folder()).save_pretrained(folder)
    config = transformers.RobertaConfig(
        **shape, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


def save_causal(folder: Path) -> Path:
    """A small Llama with random weights, and the embedded model's tokenizer."""
    embedded.tokenizer(embedded.package_folder()).save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=30522, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, max_position_embeddings=512, initializer_range=0.1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_track(folder: Path, model: Path, device: str, chunk_tokens: int) -> Path:
    """A track of one cell, SST-2 split 1, on such a model."""
    path = folder / "shape.toml"
    path.write_text(TRACK.format(model=model, device=device, chunk_tokens=chunk_tokens), encoding="utf-8")
    return path
