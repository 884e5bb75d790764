"""Which backbone computes a model, and in which number format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.lm import formats
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.backbones.encoder import EncoderBackbone
from harness.lm.backbones.plain import PlainBackbone

if TYPE_CHECKING:
    from harness.lm.backbones.base import Backbone
    from harness.lm.device import Kind as DeviceKind
    from harness.tracks.numerics import Forward
    from harness.tracks.track import DType, ModelSpec


def number_format(model: Any, spec: ModelSpec, device: DeviceKind, forward: Forward) -> DType:
    """The number format in which `model` is computed. On a GPU and by ONNX Runtime it is the track's own."""
    if device != "cpu" or forward == "onnxruntime":
        return spec.dtype
    masked = EncoderBackbone.fits(model) and forward != "plain"
    causal = DecoderBackbone.fits(model) and forward in {"packed", "invariant"}
    processor = formats.here()
    # A causal model is computed in int8 only if the track's `dtype` asks for int8. SmolLM2's logits were off by up to
    # 1.4
    # of their standard deviation (benchmarks/README.md), so int8 does not count as equal to the other formats there.
    chosen = formats.fastest(spec.allowed, processor, int8=masked or (causal and spec.allowed == ("int8",))).format
    formats.check(chosen, processor, int8=masked or causal)
    return chosen


def backbone(
    model: Any, zero_head_bias: bool, device: DeviceKind, chunk_tokens: int, forward: Forward, int8: bool
) -> Backbone:
    """The backbone for `model` that `Numerics.forward` names. With `int8`, one that has int8 products."""
    if forward == "onnxruntime":
        try:
            from harness.lm.backbones.onnx import OnnxBackbone  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as problem:
            raise ModelError(
                f'backend onnxruntime needs the package {problem.name}, which is missing. Run: pip install -e ".[onnx]"'
            ) from problem
        return OnnxBackbone(model, zero_head_bias, device)
    masked, causal = EncoderBackbone.fits(model), DecoderBackbone.fits(model)
    if forward == "invariant" and not ((masked or causal) and device == "cpu"):
        raise ModelError(
            f'forward = "invariant" is for families with a fast path on a CPU (docs/models.md); this is '
            f'{model.config.model_type} on {device}. Use forward = "packed"'
        )
    if forward != "plain" and masked:
        packing, invariant = forward != "padded", forward == "invariant"
        return EncoderBackbone(model, zero_head_bias, chunk_tokens, packing, invariant, int8)
    if forward in {"packed", "invariant"} and causal:
        return DecoderBackbone(model, zero_head_bias, chunk_tokens, forward == "invariant", int8)
    return PlainBackbone(model, zero_head_bias)
