"""The processor a model computes on, and the numeric profile of the process: the switches that change last digits."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Literal

import torch

from harness.errors import DeviceMemoryError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.tracks.track import Numerics, Track

Kind = Literal["cpu", "cuda"]


def chosen(track: Track, wanted: str | None = None) -> Kind:
    """The kind of device a run uses: `wanted` on the command line, or else the track's.

    Raises:
        InputError: there is no such kind, or a CUDA device is needed and torch sees none.
    """
    if track.device_kind(wanted) == "cpu":
        return "cpu"
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


_NO_MEMORY = "can't allocate memory"
"""What torch says where main memory ends; it has no exception of its own for that."""


@contextlib.contextmanager
def seeded(kind: Kind, seed: int) -> Iterator[None]:
    """Torch's global generators, from which dropout draws, begin at `seed` and are put back: the device's own, too."""
    with torch.random.fork_rng(devices=[] if kind == "cpu" else [torch.cuda.current_device()]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def memory_for(asked: str, remedy: str) -> Iterator[None]:
    """Say what was `asked`, what the device has and the `remedy` where its memory, or main memory, does not suffice.

    Nothing is tried again in smaller parts: which rows share a forward pass is part of the numbers.

    Raises:
        DeviceMemoryError: in place of torch's own.
    """
    try:
        yield
    except torch.OutOfMemoryError as problem:
        free, total = torch.cuda.mem_get_info()
        mine = torch.cuda.memory_reserved()
        others = max(0, total - free - mine)
        raise DeviceMemoryError(
            f"{torch.cuda.get_device_name()} has too little memory for {asked}: of its {_mib(total)} this process "
            f"holds {_mib(mine)}, others {_mib(others)}, and {_mib(free)} are free; torch says: "
            f"{_first_sentences(problem)} {remedy}. Or end what else computes there (nvidia-smi lists it), or take a "
            "device with more memory"
        ) from problem
    except (MemoryError, RuntimeError) as problem:
        if isinstance(problem, RuntimeError) and _NO_MEMORY not in str(problem):
            raise
        raise DeviceMemoryError(
            f"this machine has too little main memory for {asked}: {_first_sentences(problem)} {remedy}. "
            "Or end what else runs here"
        ) from problem


def _mib(size: int) -> str:
    return f"{size >> 20:,} MiB"


def _first_sentences(problem: Exception) -> str:
    """What was tried and failed; torch's message goes on with advice about its allocator."""
    return ". ".join(str(problem).split(". ")[:2]).strip().rstrip(".") + "."


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
