"""The device of a run, the numeric profile of the process, and the backend's fingerprint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch

from harness.errors import InputError
from harness.lm import device
from harness.lm.probe import TEXTS, probe
from harness.tasks import load_task
from harness.track import Numerics, Track, load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.lm.model import LanguageModel

OFFICIAL, MINI = load_track("official"), load_track("mini")


@pytest.fixture
def process() -> Iterator[None]:
    """Torch's switches, put back."""
    threads = torch.get_num_threads()
    yield
    device.apply(Numerics())
    torch.set_num_threads(threads)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")


def named(name: str | None) -> Track:
    return msgspec.structs.replace(OFFICIAL, device_name=name)


@pytest.mark.parametrize(
    ("track", "on", "ranked"),
    [
        (MINI, "cpu", True), (MINI, "NVIDIA H200", False), (named("NVIDIA H200"), "NVIDIA H200", True),
        (named("NVIDIA H200"), "NVIDIA A100", False), (named("NVIDIA H200"), "cpu", False),
        (named(None), "NVIDIA A100", True), (named(None), "cpu", False),
    ],
)  # fmt: skip
def test_a_track_ranks_its_device_alone(track: Track, on: str, ranked: bool) -> None:
    """Without a name it takes any GPU, never a CPU."""
    assert track.ranks(on) is ranked


def test_the_device_is_the_tracks_unless_another_is_asked_for(gpu: None) -> None:
    """Its name is the driver's."""
    assert [device.chosen(OFFICIAL), device.chosen(OFFICIAL, "cpu"), device.chosen(MINI)] == ["cuda", "cpu", "cpu"]
    assert device.chosen(MINI, "cuda") == "cuda"
    assert [device.name("cpu"), device.name("cuda")] == ["cpu", "NVIDIA H200"]
    assert device.facts("cpu") == {}
    assert device.facts("cuda")["gpu"] == "NVIDIA H200"


def test_a_missing_gpu_is_one_error_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the track's GPU, and what a run on the CPU is worth."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"official runs on a CUDA device \(NVIDIA .*--device cpu.*never ranked"):
        device.chosen(OFFICIAL)
    with pytest.raises(InputError, match=r"--device cuda needs a CUDA device, .*--device cpu.*is ranked"):
        device.chosen(MINI, "cuda")
    assert device.chosen(OFFICIAL, "cpu") == "cpu"
    with pytest.raises(InputError, match="--device tpu: cpu or cuda"):
        device.chosen(MINI, "tpu")


def test_a_profile_sets_every_switch_and_the_default_sets_them_back(
    process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process had before does not matter."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what `apply` sets is taken back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")

    def switches() -> list[bool]:
        cuda = torch.backends.cuda
        attention = [cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()]
        tf32 = [cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
        return [*attention, cuda.math_sdp_enabled(), *tf32, torch.are_deterministic_algorithms_enabled()]

    device.apply(Numerics())
    assert switches() == [True, True, True, True, False, False, False]
    device.apply(Numerics(tf32=True, attention="math", deterministic=True, threads=1))
    assert switches() == [False, False, False, True, True, True, True]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.get_num_threads() == 1
    device.apply(Numerics())
    assert switches() == [True, True, True, True, False, False, False]


def test_the_cpu_has_no_device_memory_of_its_own() -> None:
    """Its peak is none, not 0."""
    device.reset_peak("cpu")
    assert device.peak_mb("cpu") is None


@pytest.mark.parametrize("name", ["sst2", "qqp"])
def test_a_fingerprint_is_the_same_every_time(name: str, tiny_lm: LanguageModel) -> None:
    """2 prompts x texts x label words, the zero prompt's first."""
    task = load_task(name).task("house", "masked")
    first, second = probe(tiny_lm, task), probe(tiny_lm, task)
    assert first == second
    logits = np.array(first["logits"]).reshape(2, len(TEXTS), len(task.words))
    assert np.abs(logits[0] - logits[1]).max() > 0.01
    assert len({tuple(row) for row in logits[0].tolist()}) == len(TEXTS)


def test_a_fingerprint_sees_another_number_format(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the values; a difference below a hundredth mostly leaves the digest as it is."""
    task = load_task("sst2").task("house", "masked")
    before = probe(tiny_lm, task)
    monkeypatch.setattr(tiny_lm.backbone, "_fused", [_rounded(layer) for layer in tiny_lm.backbone._fused])  # type: ignore[attr-defined]
    after = probe(tiny_lm, task)
    assert 0 < np.abs(np.subtract(before["logits"], after["logits"])).max() < 1
    assert before["sha256"] != after["sha256"]


def _rounded(layer: object) -> object:
    """The weights of a layer, as bfloat16 has them."""
    pairs = {name: tuple(t.bfloat16().float() for t in pair) for name, pair in vars(layer).items()}
    return type(layer)(**pairs)
