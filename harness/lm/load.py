"""Loads a language model: embedded, a directory in hub format, or a hub id. Safetensors or GGUF, never pickle."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from harness.errors import ModelError
from harness.lm.model import LanguageModel

if TYPE_CHECKING:
    from harness.track import ModelSpec, PromptSpec

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def load_model(spec: ModelSpec, prompt: PromptSpec, plain: bool = False) -> LanguageModel:
    """Load what a track names: the embedded model, a directory in hub format, or a hub id.

    Raises:
        ModelError: it cannot be had, or is of an unsupported kind; the message says what to do.
    """
    _keep_memory()
    if spec.source == "embedded":
        from harness.lm import embedded  # noqa: PLC0415 - the package is looked for only where it is used

        model, tokenizer = embedded.load()
        return LanguageModel("minilm-mlm", model, tokenizer, spec, prompt, embedded.weights_sha256(), plain)
    model, tokenizer, sha256 = _from_hub_format(spec)
    return LanguageModel(Path(spec.source).name, model, tokenizer, spec, prompt, sha256, plain)


def kind_of(source: str) -> Literal["masked", "causal"]:
    """Whether a model is masked or causal, by the architecture its configuration names.

    Raises:
        ModelError: the configuration cannot be had, or names neither.
    """
    import transformers  # noqa: PLC0415 - seconds to import

    if source == "embedded":
        return "masked"
    if list(Path(source).glob("*.gguf")):
        return "causal"
    _exists(source)
    try:
        names = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False).architectures or []
    except Exception as problem:
        raise _unavailable(source, "", problem) from problem
    if any(name.endswith("ForMaskedLM") for name in names):
        return "masked"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal"
    raise ModelError(f"{source}: architectures {names}; a *ForMaskedLM or a causal language model is needed")


def _from_hub_format(spec: ModelSpec) -> tuple[Any, Any, str]:
    import transformers  # noqa: PLC0415 - seconds to import

    transformers.utils.logging.disable_progress_bar()
    _exists(spec.source)
    directory = Path(spec.source)
    options: dict[str, Any] = {"revision": spec.revision} if not directory.is_dir() and spec.revision else {}
    gguf = sorted(directory.glob("*.gguf")) if directory.is_dir() else []
    if gguf:
        options["gguf_file"] = gguf[0].name
    kind: Any = transformers.AutoModelForMaskedLM if spec.kind == "masked" else transformers.AutoModelForCausalLM
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.source, **options)
        use_safetensors = {} if gguf else {"use_safetensors": True}
        model = kind.from_pretrained(
            spec.source, dtype=torch.float32, trust_remote_code=False, **use_safetensors, **options
        )
    except Exception as problem:
        raise _unavailable(spec.source, f"{spec.kind} ", problem) from problem
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{spec.source}: no tokenizer.json; only tokenizers that report offsets are supported")
    return model, tokenizer, _state_sha256(model)


def _state_sha256(model: Any) -> str:
    """Digest of all weights by name: the same for every file layout they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _keep_memory() -> None:
    """Let glibc reuse the memory of activations instead of handing each one back to the kernel (Linux).

    Every layer takes and frees arrays of some megabytes; without this each is mapped and zeroed anew.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _exists(source: str) -> None:
    """Tell a mistyped directory from a hub id before anything is looked up."""
    if not Path(source).is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ModelError(f"{source}: no such directory; give one in hub format, or a hub id like owner/name")


def _unavailable(source: str, kind: str, problem: Exception) -> ModelError:
    return ModelError(
        f"{source}: no {kind}model can be loaded from there: {type(problem).__name__}: {problem}. "
        "Give a directory in hub format (config.json, tokenizer.json, *.safetensors) with --model DIR"
    )
