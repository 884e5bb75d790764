"""How a model's numbers are computed: the ``[numerics]`` and ``[endpoint]`` tables of a track."""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.tracks.limits import Positive  # noqa: TC001 - msgspec reads the types

Forward = Literal["packed", "invariant", "padded", "plain", "onnxruntime", "openai"]


class Numerics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How numbers are computed, apart from `ModelSpec.dtype`: all other settings that affect the last digits."""

    tf32: bool = False
    """Whether a GPU may round the factors of float32 matrix products to TF32, which has a mantissa of ten bits."""
    attention: Literal["sdpa", "math"] = "sdpa"
    """``sdpa``: torch's fused attention, with the kernel that torch chooses. ``math``: plain operations only."""
    deterministic: bool = False
    """Whether torch must use deterministic algorithms. If there is none for an operation, torch raises an error."""
    threads: Positive | None = None
    """CPU threads of the referee; None leaves the number to the environment."""
    chunk_tokens: Positive = 4096
    """Number of tokens forwarded at once. The packed path for masked models gives half as many to each CPU thread. This
    bounds the memory, and it decides which rows share a chunk and so affects the last digits."""
    forward: Forward = "packed"
    """``packed``: the fast path without pad tokens, if the family has one. ``invariant``: the same path, slower, but a
    row's numbers are the same to the last bit whatever rows share its query (these families, on a CPU). ``padded``:
    with pad tokens (masked models; causal ones as in ``plain``). ``plain``: the forward method of transformers, one
    candidate at a time. ``onnxruntime``: ONNX Runtime's kernels, in float32. ``openai``: a server
    computes, however it does."""


class EndpointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a track's model may be a served one: runs over an endpoint are ranked, each server by itself."""

    served: str = ""
    """Name of the model on the server, unless another one is given; empty takes the only one there is."""
