"""Tiny random language models of each family, in hub format, with tokenizers trained on the spot."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

FAMILIES = ("bert", "roberta", "gpt2", "llama")
MASKED = ("bert", "roberta")
WORDS = ("bad", "great", "yes", "no", "maybe", "film")
CORPUS = [
    "The film was bad, and it was not great. It was a film.",
    "yes or no? maybe. Say yes, say no, say maybe, say great, say bad film.",
    "A long story about a small village, told twice, and never well.",
    "It was bad . It was great . A film : yes ? no , maybe .",
] * 20
WIDTH, LAYERS, LONGEST = 16, 3, 64


def save(family: str, folder: Path) -> Path:
    """Write config.json, tokenizer.json and model.safetensors of a random model into `folder`."""
    tokenizer = _tokenizer(family)
    tokenizer.save_pretrained(folder)
    size = len(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(FAMILIES.index(family))
        model = _model(family, size)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms, which start at 0 and 1, get something to say
                parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def _model(family: str, size: int) -> Any:
    common = {"vocab_size": size, "initializer_range": 0.3}
    if family in MASKED:
        encoder = {
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32,
        }  # fmt: skip
        if family == "bert":
            config = transformers.BertConfig(**common, **encoder, max_position_embeddings=LONGEST)
            return transformers.BertForMaskedLM(config)
        config = transformers.RobertaConfig(
            **common, **encoder, max_position_embeddings=LONGEST + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2
        )
        return transformers.RobertaForMaskedLM(config)
    if family == "gpt2":
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        gpt2 = transformers.GPT2Config(**common, **ends, n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=LONGEST)
        return transformers.GPT2LMHeadModel(gpt2)
    llama = transformers.LlamaConfig(
        **common,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(llama)


def _tokenizer(family: str) -> Any:
    roberta, names = family == "roberta", _special(family)
    raw: Any
    if family == "bert":
        raw = tokenizers.Tokenizer(models.WordPiece(unk_token=names[1]))
        raw.normalizer = normalizers.BertNormalizer(lowercase=True)
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False)
    else:
        raw = tokenizers.Tokenizer(models.BPE(unk_token="<unk>" if family == "llama" else None))
        metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
        raw.pre_tokenizer = metaspace if family == "llama" else pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.Metaspace() if family == "llama" else decoders.ByteLevel()
        alphabet = [] if family == "llama" else pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=450, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )
    if roberta:
        names[4] = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
    raw.train_from_iterator(CORPUS, trainer)
    if family != "gpt2":
        start, end = (names[2], names[3]) if family == "bert" else (names[0], names[2])
        single = f"{start} $A" if family == "llama" else f"{start} $A {end}"
        ids = [(name, raw.token_to_id(name)) for name in (start, end)]
        raw.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    raw.enable_truncation(8)  # as the tokenizer of the embedded model comes; it must not matter
    if family in MASKED:
        pad = names[0] if family == "bert" else names[1]
        raw.enable_padding(length=8, pad_token=pad, pad_id=raw.token_to_id(pad))
    roles = {
        "bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "roberta": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "gpt2": {"bos_token": "<|end|>", "eos_token": "<|end|>", "unk_token": "<|end|>"},
        "llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    }[family]
    mask = {"bert": {"mask_token": "[MASK]"}, "roberta": {"mask_token": names[-1]}}.get(family, {})
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **roles, **mask)


def _special(family: str) -> list[Any]:
    return {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "gpt2": ["<|end|>"],
        "llama": ["<s>", "<unk>", "</s>"],
    }[family].copy()
