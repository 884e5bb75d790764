"""Loads a language model: embedded, from a package, a directory or a hub id. Safetensors or GGUF, never pickle."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import ModelError
from harness.lm.device import apply, memory_for
from harness.lm.directory import check_directory
from harness.lm.kinds import check_exists, unavailable
from harness.lm.model import LanguageModel
from harness.lm.packages import PREFIX, located
from harness.lm.text import Vocabulary
from harness.tracks.numerics import Numerics

if TYPE_CHECKING:
    from harness.lm.device import Kind as DeviceKind
    from harness.tracks.track import ModelSpec, PromptSpec

_AUTO = {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def load_model(
    spec: ModelSpec,
    prompt: PromptSpec,
    plain: bool = False,
    device: DeviceKind = "cpu",
    numerics: Numerics | None = None,
) -> LanguageModel:
    """Load the model that a track names: the embedded one, one in a package, a directory in hub format, or a hub id.

    `numerics` None means the default numeric profile. The profile is set for the whole process, so the model that is
    loaded last decides it.

    Raises:
        ModelError: the model cannot be loaded, is of an unsupported kind, or does not fit the device. The message says
        what to do.
    """
    _keep_memory()
    numerics = numerics or Numerics()
    apply(numerics)
    how = (device, numerics.chunk_tokens, "plain" if plain else numerics.forward)
    if spec.source == "embedded":
        from harness.lm import embedded  # noqa: PLC0415 - the package is needed only here

        model, tokenizer = embedded.load()
        return LanguageModel("minilm-mlm", model, tokenizer, spec, prompt, embedded.weights_sha256(), *how)
    model, tokenizer, sha256 = _from_hub_format(spec)
    with memory_for(f"{spec.source} in {spec.dtype}", "Give a smaller one with --model"):
        return LanguageModel(_name(spec.source), model, tokenizer, spec, prompt, sha256, *how)


def load_tokens(spec: ModelSpec) -> Vocabulary | None:
    """The vocabulary of a track's model, by its tokenizer alone; None if the tokenizer is not on this machine."""
    try:
        tokenizer = load_tokenizer(spec)
    except ModelError:
        return None  # not available here for any reason; `load_model` reports it
    return Vocabulary(_name(spec.source), tokenizer, len(tokenizer))


def load_tokenizer(spec: ModelSpec) -> Any:
    """The tokenizer of a track's model, without its weights. The hub is not asked.

    Raises:
        ModelError: it is not on this machine, or does not report offsets.
    """
    import transformers  # noqa: PLC0415 - seconds to import

    if spec.source == "embedded":
        from harness.lm import embedded  # noqa: PLC0415

        return embedded.tokenizer(embedded.package_folder())
    source = located(spec.source)
    where: dict[str, Any] = {"revision": spec.revision, "local_files_only": True}
    if Path(source).is_dir():
        gguf = check_directory(source)
        where = {} if gguf is None else {"gguf_file": gguf.name}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
    except Exception as problem:
        raise unavailable(spec.source, "", problem) from problem
    return _with_offsets(spec.source, tokenizer)


def _with_offsets(source: str, tokenizer: Any) -> Any:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{source}: no tokenizer.json; only tokenizers that report offsets are supported")
    return tokenizer


def _name(source: str) -> str:
    """What a model is called: by its package, or by the last name of its directory or hub id."""
    return Path(source.removeprefix(PREFIX).partition("==")[0] if source.startswith(PREFIX) else source).name


def _from_hub_format(spec: ModelSpec) -> tuple[Any, Any, str]:
    import transformers  # noqa: PLC0415 - seconds to import

    transformers.utils.logging.disable_progress_bar()
    source = located(spec.source)
    check_exists(source)
    directory = Path(source)
    options: dict[str, Any] = {"revision": spec.revision} if not directory.is_dir() and spec.revision else {}
    gguf = check_directory(source)
    if gguf:
        options["gguf_file"] = gguf.name
    auto = getattr(transformers, _AUTO[spec.kind])
    if gguf:
        _without_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        use_safetensors = {} if gguf else {"use_safetensors": True}
        model, report = auto.from_pretrained(
            source,
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
            **use_safetensors,
            **options,
        )
    except Exception as problem:
        raise unavailable(spec.source, f"{spec.kind} ", problem) from problem
    _with_offsets(spec.source, tokenizer)
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{spec.source}: {len(missing)} weights of {type(model).__name__} are not in its files, first "
            f"{missing[0]}; give a checkpoint saved with its language-model head, of kind {spec.kind}"
        )
    return model, tokenizer, _state_sha256(model)


def _without_bar() -> None:
    """Let transformers convert a GGUF file silently: its bar is one of tqdm's own, which no setting of it hides."""
    from transformers import modeling_gguf_pytorch_utils as converting  # noqa: PLC0415 - seconds to import

    if hasattr(converting, "tqdm"):
        converting.tqdm = lambda tensors, **_: tensors


def _state_sha256(model: Any) -> str:
    """A digest of all weights by name. It does not depend on the layout of the files."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _keep_memory() -> None:
    """Make glibc (Linux) reuse the memory of activations and not return it to the kernel.

    Every layer allocates and frees arrays of some megabytes. Otherwise the kernel maps and clears each of them again.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_ARENA_MAX, 1)  # an arena of a thread's own hands memory back, whatever the threshold
