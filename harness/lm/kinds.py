"""Kinds of language models, found by the family that a model's configuration names. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ModelError
from harness.lm.packages import located

if TYPE_CHECKING:
    from harness.lm.backbones.base import Kind

_MASKED = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta",
    "xlm-roberta",
)  # fmt: skip
_CAUSAL = (
    "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "granite", "llama", "mistral", "olmo2",
    "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3",
)  # fmt: skip
_SEQ2SEQ = ("bart", "t5")
KINDS: dict[str, Kind] = {
    **dict.fromkeys(_MASKED, "masked"),
    **dict.fromkeys(_CAUSAL, "causal"),
    **dict.fromkeys(_SEQ2SEQ, "seq2seq"),
}
"""Kind of each supported family, by transformers' `model_type`."""


def kind_named(model_type: str) -> Kind:
    """The kind of a family.

    Args:
        model_type: name of the family in a transformers configuration.

    Returns:
        How models of this family are read.

    Raises:
        ModelError: the family is not supported. The message lists the supported ones, and says how one is added.
    """
    if model_type not in KINDS:
        raise ModelError(
            f"models of type {model_type!r} are not supported; supported: {', '.join(sorted(KINDS))}. "
            'Most families need one line: see "Add a family" in docs/models.md'
        )
    return KINDS[model_type]


def kind_of(source: str) -> Kind:
    """Whether a model is masked, causal or encoder-decoder, by the family that its configuration names.

    A directory's config.json is read here. For a hub id, transformers is imported and asks the hub's client.

    Args:
        source: `embedded`, ``package:NAME==VERSION``, a directory in hub format, or a hub id.

    Returns:
        The model's kind.

    Raises:
        ModelError: the package is not installed, the configuration cannot be read, or its family is not supported.
    """
    if source == "embedded":
        return "masked"
    source = located(source)
    if list(Path(source).glob("*.gguf")):
        return "causal"
    check_exists(source)
    try:
        named = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):  # a hub id, or a file for which transformers has a better error
        return _asked(source)
    return kind_named(str(named))


def check_exists(source: str) -> None:
    """Tell a mistyped directory from a hub id before the model is looked up.

    Args:
        source: `embedded`, a directory in hub format, or a hub id.

    Raises:
        ModelError: it looks like a path, and there is no such directory, or it is a file.
    """
    if Path(source).is_file():
        raise ModelError(f"{source} is a file; give the directory that holds it, --model {Path(source).parent}")
    if not Path(source).is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ModelError(f"{source}: no such directory; give one in hub format, or a hub id like owner/name")


def unavailable(source: str, kind: str, problem: Exception) -> ModelError:
    """The error for a model that cannot be loaded.

    Args:
        source: where the model was looked for.
        kind: the kind that was wanted, followed by a space; or "".
        problem: the exception that was raised.

    Returns:
        The error, to be raised from `problem`.
    """
    return ModelError(
        f"{source}: no {kind}model can be loaded from there: {type(problem).__name__}: {problem}. "
        "Give a directory in hub format (config.json, tokenizer.json, *.safetensors) with --model DIR"
    )


def _asked(source: str) -> Kind:
    """The kind, from the configuration that transformers reads."""
    import transformers  # noqa: PLC0415 - seconds to import

    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as problem:
        raise unavailable(source, "", problem) from problem
    return kind_named(config.model_type)
