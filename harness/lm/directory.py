"""What a model's directory must hold, looked at before transformers is: each lack is told with its remedy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from harness.errors import ModelError

_POINTER = b"version https://git-lfs"
"""How a file begins that Git Large File Storage has left in place of a large one."""
_LARGEST_POINTER = 1024
_GGUF = b"GGUF"
_GGUF_PACKAGES = ("gguf", "accelerate")
_TOKENIZERS = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""Files of which a tokenizer that reports offsets can be made, alone or with another one."""


def check_directory(source: str) -> Path | None:
    """Look whether a directory can hold a model, and find its GGUF file.

    Args:
        source: a directory in hub format, or a hub id, of which nothing is looked at.

    Returns:
        The GGUF file; None where weights are safetensors.

    Raises:
        ModelError: a file is a Git LFS pointer, a GGUF file is none or cannot be read here, the only weights are
            pickled, or there is no tokenizer.
    """
    folder = Path(source)
    if not folder.is_dir():
        return None
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.stat().st_size <= _LARGEST_POINTER and path.read_bytes().startswith(_POINTER):
            raise ModelError(
                f"{path} is a Git LFS pointer of {path.stat().st_size} bytes in place of the file. "
                f"Get the file itself: git -C {source} lfs pull"
            )
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        _check_gguf(gguf[0])
        return gguf[0]
    _check_weights(source)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(
            f"{source}: no tokenizer there. Copy tokenizer.json and tokenizer_config.json from where the model came "
            "from, or write them with the tokenizer's save_pretrained(DIR)"
        )
    return None


def _check_gguf(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(len(_GGUF))
    if head != _GGUF:
        raise ModelError(
            f"{path} is no GGUF file: it begins with {head!r}, {_GGUF!r} expected. Get it anew; or, if the weights are "
            "safetensors, take it out of the directory"
        )
    lacking = [name for name in _GGUF_PACKAGES if find_spec(name) is None]
    if lacking:
        raise ModelError(
            f'{path}: GGUF needs packages that are not here: {", ".join(lacking)}. Run: pip install -e ".[gguf]"'
        )


def _check_weights(source: str) -> None:
    """Some safetensors; loading pickled weights runs whatever they hold."""
    folder = Path(source)
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if pickled:
        raise ModelError(
            f"{source}: no *.safetensors, and pickled weights ({', '.join(pickled)}) can run any code: never read. "
            "Convert them where you trust them: save_pretrained(DIR) of transformers writes model.safetensors"
        )
