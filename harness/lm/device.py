"""The processor a model computes on, and the numeric profile of the process: the switches that change last digits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import torch

from harness.errors import InputError

if TYPE_CHECKING:
    from harness.track import Numerics, Track

Kind = Literal["cpu", "cuda"]


def chosen(track: Track, wanted: str | None = None) -> Kind:
    """The kind of device a run uses: `wanted` on the command line, or else the track's.

    Raises:
        InputError: there is no such kind, or a CUDA device is needed and torch sees none.
    """
    kind = wanted or track.device
    if kind == "cpu":
        return "cpu"
    if kind != "cuda":
        raise InputError(f"--device {kind}: cpu or cuda is needed")
    if not torch.cuda.is_available():
        names = f" ({track.device_name})" if track.device_name and not wanted else ""
        who = "--device cuda needs" if wanted else f"track {track.name} runs on"
        raise InputError(
            f"{who} a CUDA device{names}, and torch {torch.__version__} sees none here. Use a machine with one and a "
            f"CUDA build of torch; or give --device cpu: such a run is {_rank_of_cpu(track)}"
        )
    return "cuda"


def _rank_of_cpu(track: Track) -> str:
    return "ranked on this track" if track.ranks("cpu") else "stored and listed apart, never ranked on this track"


def name(kind: Kind) -> str:
    """The device as its driver names it, or ``cpu``: runs are comparable only if it is equal."""
    return "cpu" if kind == "cpu" else torch.cuda.get_device_name()


def facts(kind: Kind) -> dict[str, str]:
    """Versions that matter on this kind of device alone; none for the CPU."""
    if kind == "cpu":
        return {}
    return {"gpu": name(kind), "cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]


def reset_peak(kind: Kind) -> None:
    """Begin to measure the peak of device memory anew, from what is taken now."""
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_mb(kind: Kind) -> float | None:
    """Largest device memory held by tensors since `reset_peak`, MiB; None where there is no device of its own."""
    return torch.cuda.max_memory_allocated() / 2**20 if kind == "cuda" else None


def apply(numerics: Numerics) -> None:
    """Set the switches of this process to a track's numeric profile, every one of them.

    They are torch's own and hold for the whole process: of two profiles the one applied last counts. A deterministic
    profile must be applied before the first work on a CUDA device, which is when cuBLAS reads its workspace's size.
    """
    torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
    torch.backends.cudnn.allow_tf32 = numerics.tf32
    torch.backends.cudnn.benchmark = False
    plain = numerics.attention == "math"
    torch.backends.cuda.enable_math_sdp(enabled=True)
    for switch in (
        torch.backends.cuda.enable_flash_sdp,
        torch.backends.cuda.enable_mem_efficient_sdp,
        torch.backends.cuda.enable_cudnn_sdp,
    ):
        switch(not plain)
    if numerics.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(numerics.deterministic)
    if numerics.threads is not None:
        torch.set_num_threads(numerics.threads)
