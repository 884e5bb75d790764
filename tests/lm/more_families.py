"""Tiny random models of the families that only the tests of this folder's `test_more_families.py` need.

Each name is a family and what is particular about the configuration; each entry says where its layers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tiny_models
import torch
import transformers
from tiny_models import LAYERS, LONGEST, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
BERT = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": LONGEST, "initializer_range": 0.3,
}  # fmt: skip
ROBERTA = BERT | {"max_position_embeddings": LONGEST + 2}
CAUSAL = BERT | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
DEBERTA = BERT | {
    "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
GEMMA = CAUSAL | {"head_dim": 8, "tie_word_embeddings": True}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 10}


@dataclass(frozen=True)
class Made:
    """How a tiny model is made."""

    config: str
    """The class of its configuration, without `Config`."""
    layers: str
    """Where its layers are."""
    options: Mapping[str, Any]
    """Of the configuration."""
    kind: str = "causal"


def masked(config: str, layers: str, options: Mapping[str, Any]) -> Made:
    """A masked model."""
    return Made(config, layers, options, "masked")


MODELS = {
    "xlm-roberta": masked("XLMRoberta", "roberta.encoder.layer", ROBERTA),
    "camembert": masked("Camembert", "roberta.encoder.layer", ROBERTA),
    "electra": masked("Electra", "electra.encoder.layer", BERT | {"embedding_size": 8}),
    "electra, of one width": masked("Electra", "electra.encoder.layer", BERT | {"embedding_size": WIDTH}),
    "mpnet": masked("MPNet", "mpnet.encoder.layer", ROBERTA | {"relative_attention_num_buckets": 32}),
    "deberta": masked("Deberta", "deberta.encoder.layer", DEBERTA),
    "deberta, with positions": masked("Deberta", "deberta.encoder.layer", DEBERTA | {"position_biased_input": True}),
    "deberta-v2": masked("DebertaV2", "deberta.encoder.layer", DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v2, version 3": masked(
        "DebertaV2", "deberta.encoder.layer",
        DEBERTA | {"legacy": False, "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    ),
    "modernbert": masked(
        "ModernBert", "model.layers", BERT | {"global_attn_every_n_layers": 2, "local_attention": 6}
    ),
    "qwen2": Made("Qwen2", "model.layers", CAUSAL),
    "qwen2, tied, with windows": Made(
        "Qwen2", "model.layers", CAUSAL | WINDOWS | {"tie_word_embeddings": True, "use_sliding_window": True}
    ),
    "qwen3": Made("Qwen3", "model.layers", CAUSAL | {"head_dim": 8}),
    "mistral": Made("Mistral", "model.layers", CAUSAL | {"sliding_window": None}),
    "mistral, with a window": Made("Mistral", "model.layers", CAUSAL | {"sliding_window": 10}),
    "gemma": Made("Gemma", "model.layers", GEMMA),
    "gemma2": Made(
        "Gemma2", "model.layers",
        GEMMA | WINDOWS | {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    ),
    "gemma3_text": Made("Gemma3Text", "model.layers", GEMMA | WINDOWS | {"query_pre_attn_scalar": 8}),
    "phi": Made("Phi", "model.layers", CAUSAL | {"partial_rotary_factor": 0.5}),
    "phi3": Made("Phi3", "model.layers", CAUSAL),
    "opt": Made("OPT", "model.decoder.layers", {
        "hidden_size": WIDTH, "ffn_dim": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "init_std": 0.3,
        "max_position_embeddings": LONGEST, "word_embed_proj_dim": WIDTH,
    }),
    "opt, projected, post-norm": Made("OPT", "model.decoder.layers", {
        "hidden_size": WIDTH, "ffn_dim": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "init_std": 0.3,
        "max_position_embeddings": LONGEST, "word_embed_proj_dim": 8, "do_layer_norm_before": False,
    }),
    "gpt_neox": Made("GPTNeoX", "gpt_neox.layers", BERT),
    "gpt_neox, sequential": Made("GPTNeoX", "gpt_neox.layers", BERT | {"use_parallel_residual": False}),
    "gpt_neo": Made("GPTNeo", "transformer.h", {
        "hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": 2, "intermediate_size": 32, "window_size": 5,
        "attention_types": [[["global", "local", "global"], 1]], "max_position_embeddings": LONGEST,
        "initializer_range": 0.3,
    }),
    "olmo2": Made("Olmo2", "model.layers", CAUSAL),
    "smollm3": Made("SmolLM3", "model.layers", CAUSAL | {"no_rope_layer_interval": 2}),
    "granite": Made("Granite", "model.layers", CAUSAL | {
        "embedding_multiplier": 3.0, "logits_scaling": 2.5, "residual_multiplier": 0.7, "attention_multiplier": 0.4,
    }),
    "falcon": Made("Falcon", "transformer.h", {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "initializer_range": 0.3,
    }),
    "falcon, new": Made("Falcon", "transformer.h", {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_kv_heads": 2,
        "new_decoder_architecture": True, "initializer_range": 0.3,
    }),
    "falcon, alibi": Made("Falcon", "transformer.h", {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "initializer_range": 0.3,
        "alibi": True, "parallel_attn": False, "bias": True,
    }),
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """Write config.json, tokenizer.json and model.safetensors of a random model into `folder`."""
    made = MODELS[name]
    tokenizer = tiny_models.tokenizer("roberta" if made.kind == "masked" else "gpt2")
    tokenizer.save_pretrained(folder)
    size = len(tokenizer) + 4  # room for a token that transformers adds to Qwen's
    config = getattr(transformers, f"{made.config}Config")(vocab_size=size, **ENDS, **made.options)
    auto = "AutoModelForMaskedLM" if made.kind == "masked" else "AutoModelForCausalLM"
    with torch.random.fork_rng():
        torch.manual_seed(list(MODELS).index(name))
        model = getattr(transformers, auto).from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms, which start at 0 and 1, get something to say
                parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder
