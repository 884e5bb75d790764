"""Tiny random language models of each family, in hub format, with tokenizers trained on the spot."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

FAMILIES = ("bert", "roberta", "gpt2", "llama", "albert", "distilbert", "t5", "bart")
MASKED = ("bert", "roberta", "albert", "distilbert")
CAUSAL = ("gpt2", "llama")
SEQ2SEQ = ("t5", "bart")
GAPPED = (*MASKED, *SEQ2SEQ)
"""Families whose input has a gap, the mask, where it is in the template."""
FAST = ("bert", "roberta", "distilbert")
"""Families that `harness.lm.backbones.encoder` computes."""
WORDS = ("bad", "great", "yes", "no", "maybe", "film")
CORPUS = [
    "The film was bad, and it was not great. It was a film.",
    "yes or no? maybe. Say yes, say no, say maybe, say great, say bad film.",
    "A long story about a small village, told twice, and never well.",
    "It was bad . It was great . A film : yes ? no , maybe .",
] * 20
WIDTH, LAYERS, LONGEST = 16, 3, 64
UNKNOWN = "<unk>"


def kind(family: str) -> Any:
    """Kind of a family, as a track names it."""
    return "masked" if family in MASKED else "seq2seq" if family in SEQ2SEQ else "causal"


def auto(family: str) -> Any:
    """The class that loads a family."""
    names = {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    return getattr(transformers, names[kind(family)])


def start(family: str) -> int:
    """Where p0 stands: after the start token, where there is one."""
    return 0 if family in {"gpt2", "t5"} else 1


def mask(family: str) -> str:
    """What stands for {mask}."""
    return {"bert": "[MASK]", "distilbert": "[MASK]", "albert": "[MASK]", "t5": "<extra_id_0>"}.get(
        family, "<mask>" if family in GAPPED else ""
    )


def save(family: str, folder: Path) -> Path:
    """Write config.json, tokenizer.json and model.safetensors of a random model into `folder`."""
    own = tokenizer(family)
    own.save_pretrained(folder)
    size = len(own)
    with torch.random.fork_rng():
        torch.manual_seed(FAMILIES.index(family))
        model = _model(family, size)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms, which start at 0 and 1, get something to say
                parameter.data += 0.2 * torch.randn_like(parameter)
        if family == "bart":
            model.final_logits_bias += 0.2 * torch.randn_like(model.final_logits_bias)
    model.save_pretrained(folder)
    return folder


def _model(family: str, size: int) -> Any:
    make = {"masked": _masked, "causal": _causal, "seq2seq": _seq2seq}[kind(family)]
    return make(family, {"vocab_size": size, "initializer_range": 0.3})


def _masked(family: str, common: dict[str, Any]) -> Any:
    if family == "distilbert":
        config: Any = transformers.DistilBertConfig(
            **common, dim=WIDTH, n_layers=LAYERS, n_heads=2, hidden_dim=32, max_position_embeddings=LONGEST
        )
        return transformers.DistilBertForMaskedLM(config)
    common = common | {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32,
    }  # fmt: skip
    if family == "bert":
        return transformers.BertForMaskedLM(transformers.BertConfig(**common, max_position_embeddings=LONGEST))
    if family == "albert":
        ends = {"bos_token_id": 2, "eos_token_id": 3}
        config = transformers.AlbertConfig(**common, **ends, embedding_size=8, max_position_embeddings=LONGEST)
        return transformers.AlbertForMaskedLM(config)
    ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.RobertaConfig(**common, **ends, max_position_embeddings=LONGEST + 2)
    return transformers.RobertaForMaskedLM(config)


def _causal(family: str, common: dict[str, Any]) -> Any:
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


def _seq2seq(family: str, common: dict[str, Any]) -> Any:
    """Decoders are shorter than encoders, so that the two cannot be taken for each other."""
    if family == "t5":
        t5 = transformers.T5Config(
            vocab_size=common["vocab_size"], d_model=WIDTH, d_kv=8, d_ff=32, num_layers=LAYERS, num_decoder_layers=2,
            num_heads=2, relative_attention_num_buckets=8, relative_attention_max_distance=20, decoder_start_token_id=0,
        )  # fmt: skip
        return transformers.T5ForConditionalGeneration(t5)
    bart = transformers.BartConfig(
        vocab_size=common["vocab_size"], init_std=0.3, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_position_embeddings=LONGEST, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
        forced_eos_token_id=None,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(bart)


def tokenizer(family: str) -> Any:
    """A tokenizer of the kind that the family has, trained on the spot."""
    made = _t5_tokenizer() if family == "t5" else _bert_tokenizer() if family in {"bert", "distilbert"} else None
    made = made or (_albert_tokenizer() if family == "albert" else _bpe_tokenizer(family))
    raw = made.backend_tokenizer
    raw.enable_truncation(8)  # as the tokenizer of the embedded model comes; it must not matter
    if family in GAPPED:
        raw.enable_padding(length=8, pad_token=made.pad_token, pad_id=made.pad_token_id)
    return made


def _bert_tokenizer() -> Any:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = tokenizers.Tokenizer(models.WordPiece(unk_token=names[1]))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False)
    )
    return _framed(raw, "[CLS] $A [SEP]", dict(zip(("pad", "unk", "cls", "sep", "mask"), names, strict=True)))


def _albert_tokenizer() -> Any:
    names = ["<pad>", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]
    raw = _unigram(names)
    raw.add_special_tokens([tokenizers.AddedToken("[MASK]", lstrip=True, special=True)])
    return _framed(raw, "[CLS] $A [SEP]", dict(zip(("pad", "unk", "cls", "sep", "mask"), names, strict=True)))


def _t5_tokenizer() -> Any:
    """Sentinels are the last of the vocabulary, the first of them at its very end."""
    words = json.loads(_unigram(["<pad>", "</s>", UNKNOWN]).to_str())["model"]["vocab"]
    sentinels = [(f"<extra_id_{n}>", 0.0) for n in (2, 1, 0)]
    return transformers.T5Tokenizer(vocab=[(word, score) for word, score in words] + sentinels, extra_ids=3)


def _unigram(names: list[str]) -> Any:
    raw = tokenizers.Tokenizer(models.Unigram())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=names, unk_token=UNKNOWN, show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    return raw


def _bpe_tokenizer(family: str) -> Any:
    names: list[Any] = {"gpt2": ["<|end|>"], "llama": ["<s>", UNKNOWN, "</s>"]}.get(
        family, ["<s>", "<pad>", "</s>", UNKNOWN, tokenizers.AddedToken("<mask>", lstrip=True, special=True)]
    )
    raw = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN if family == "llama" else None))
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.pre_tokenizer = metaspace if family == "llama" else pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.Metaspace() if family == "llama" else decoders.ByteLevel()
    alphabet = [] if family == "llama" else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    if family == "gpt2":
        return _framed(raw, "", {"bos": "<|end|>", "eos": "<|end|>", "unk": "<|end|>"})
    if family == "llama":
        return _framed(raw, "<s> $A", {"bos": "<s>", "eos": "</s>", "unk": UNKNOWN})
    roles = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": UNKNOWN, "mask": names[-1]}
    return _framed(raw, "<s> $A </s>", roles)


def _framed(raw: Any, frame: str, roles: dict[str, Any]) -> Any:
    """A transformers tokenizer that puts special tokens around a text as `frame` says, $A being the text."""
    ids = [(name, raw.token_to_id(name)) for name in frame.split() if name != "$A"]
    if frame:
        raw.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    special = {f"{role}_token": token for role, token in roles.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **special)
