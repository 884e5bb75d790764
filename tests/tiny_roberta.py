"""A tiny random RoBERTa whose tokenizer cuts words as RoBERTa's does, with room for p0 as on `official` and `paper`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from harness.tracks.tasks import load_task, task_names

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, WIDTH, VOCABULARY, LONGEST = 3, 16, 1100, 200
CASES = [(name, profile) for name in task_names() for profile in load_task(name).profiles]
WORDS = sorted({word.strip() for name, profile in CASES for word in load_task(name).profiles[profile].masked.words})
CUT = ("Athlete", "Village", "Album", "EducationalInstitution", "MeanOfTransportation", "OfficeHolder", "WrittenWork")
"""Label words the tokenizer has to cut: its corpus has only the beginnings of them."""
CORPUS = [f"{word} {word} . It was {word} , News: [ Category: ? {word}" for word in WORDS if word not in CUT] * 30
CORPUS += [word[:4] for word in CUT] * 30


def save(folder: Path) -> tuple[Any, Any]:
    """Write it into `folder` in hub format; the model and its tokenizer, which cuts no label word of harness-2026."""
    raw: Any = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
    special: list[Any] = ["<s>", "<pad>", "</s>", "<unk>", mask]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=1000, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": mask}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **roles)
    tokenizer.save_pretrained(folder)
    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=LONGEST + 2, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.RobertaForMaskedLM(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms, which start at 0 and 1, get something to say
                parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval(), tokenizer
