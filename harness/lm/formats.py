"""The number format follows the machine: of the formats that a track treats as equal, the fastest one here.

The choice depends only on what the processor can do, not on a measurement, so a machine always makes the same choice.
The chosen format is stored with each cell, and the fingerprints of fixed texts (`harness.lm.fingerprint`) are compared
within a track's rounding.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from harness.tracks.track import DType

_LEVELS = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
    "AVX512_CORE_AMX",
    "AVX512_CORE_AMX_FP16",
)
"""Values of ``ONEDNN_MAX_CPU_ISA``, in rising order. Each level includes the ones before it, except AVX2_VNNI and
_2."""


@dataclass(frozen=True)
class Processor:
    """The features of a CPU that decide in which format it multiplies matrices fastest."""

    machine: str
    """``x86_64`` or ``aarch64``, the value of ``platform.machine()``; ``arm64`` on macOS."""
    avx2: bool = False
    """256-bit integer and float32 vectors."""
    vnni: bool = False
    """Sums of four products of 8-bit integers in one instruction (AVX-512 or AVX)."""
    amx_bf16: bool = False
    """Matrix units for bfloat16."""
    avx512_bf16: bool = False
    """Sums of two products of bfloat16 in one instruction (AVX-512)."""
    arm_bf16: bool = False
    """Matrix products of bfloat16 on ARM, and a build of torch that uses them."""


@dataclass(frozen=True)
class Choice:
    """A number format, and the reason for it."""

    format: DType
    why: str


def fastest(offered: Collection[DType], processor: Processor, *, int8: bool) -> Choice:
    """The format in `offered` that `processor` computes fastest, judged by its capabilities alone.

    Args:
        offered: Number formats that a track treats as equal; at least one.
        processor: The processor that computes.
        int8: Whether the model's family has int8 products (`harness.lm.backbones.linear.Int8Linear`).

    Returns:
        The first format, in the order of speed measured in benchmarks/README.md, that is offered and that the processor
        has units for. Every processor has units for float32, which comes last. If only emulated formats are offered,
        the first of those.
    """
    x86 = processor.machine in {"x86_64", "AMD64"}
    ways: tuple[tuple[DType, bool, str], ...] = (
        ("bfloat16", processor.amx_bf16, "the processor has matrix units for bfloat16 (AMX)"),
        ("int8", int8 and x86 and processor.vnni, "the processor sums products of 8-bit integers (VNNI)"),
        ("int8", int8 and x86 and processor.avx2, "the processor has AVX2, and no units for bfloat16"),
        ("bfloat16", processor.avx512_bf16, "the processor sums products of bfloat16 (AVX-512 BF16)"),
        ("bfloat16", processor.arm_bf16, "the processor multiplies matrices of bfloat16"),
        ("float32", True, "the processor has nothing faster for this model"),
    )
    for name, there, why in ways:
        if there and name in offered:
            return Choice(name, why if len(offered) > 1 else "the track names no other")
    return Choice(next(iter(offered)), "the processor has units for none of the track's formats and emulates this one")


def check(name: DType, processor: Processor, *, int8: bool) -> None:
    """Refuse int8 if it cannot be computed.

    Raises:
        ModelError: the model's family or the processor has no int8 products.
    """
    if name != "int8":
        return
    if not int8:
        raise ModelError(
            "int8 is for families with a fast path (docs/models.md) by torch on a CPU, with forward packed, padded or "
            "invariant; set model.dtype to float32"
        )
    if not processor.avx2:
        raise ModelError(
            f"int8 needs a processor with AVX2; this one ({processor.machine}) has none, or "
            "ONEDNN_MAX_CPU_ISA forbids it. Set model.dtype to float32"
        )


def here(environment: Mapping[str, str] = os.environ) -> Processor:
    """The processor of this machine, without the features that ``ONEDNN_MAX_CPU_ISA`` in `environment` forbids."""
    machine = platform.machine()
    has = torch.cpu.get_capabilities()
    most = environment.get("ONEDNN_MAX_CPU_ISA", environment.get("DNNL_MAX_CPU_ISA", "ALL")).upper()

    def allowed(level: str) -> bool:
        return most not in _LEVELS or _LEVELS.index(level) <= _LEVELS.index(most)

    avx512 = bool(has.get("avx512_vnni")) and allowed("AVX512_CORE_VNNI")
    avx = bool(has.get("avx_vnni")) and allowed("AVX2_VNNI") and most != "AVX512_CORE"
    arm = machine in {"aarch64", "arm64"}
    return Processor(
        machine,
        avx2=bool(has.get("avx2")) and allowed("AVX2"),
        vnni=avx512 or avx,
        avx512_bf16=bool(has.get("avx512_bf16")) and allowed("AVX512_CORE_BF16"),
        amx_bf16=bool(has.get("amx_bf16")) and allowed("AVX512_CORE_AMX"),
        arm_bf16=arm and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),  # type: ignore[no-untyped-call]  # noqa: SLF001
    )
