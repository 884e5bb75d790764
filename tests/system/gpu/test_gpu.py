"""On a GPU: the same logits as on the CPU, and whole cells at the official track's shape."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from shape import LARGE, SMALL, save_causal, save_model, save_track

import harness
from harness.contract import Prompt, Subspace
from harness.errors import DeviceMemoryError
from harness.evaluation.overrides import Overrides
from harness.evaluation.progress import JsonProgress
from harness.evaluation.run import Evaluation
from harness.lm import device
from harness.lm.fingerprint import probe
from harness.lm.load import load_model
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.tasks import load_task
from harness.tracks.track import DType, ModelSpec, Numerics, PromptSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Text
    from harness.lm.model import LanguageModel
    from harness.results.records import CellRecord

ROOT = Path(harness.__file__).resolve().parents[1]
TEXTS: Sequence[Text] = [("A warm and funny film. " * (1 + n % 5),) for n in range(17)]
P0 = PromptSpec(50, 1000)
FORMATS: tuple[DType, ...] = ("float32", "bfloat16")
AGREE = 1e-3
"""Largest difference of a float32 logit between CPU and GPU, TF32 off."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return save_model(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of RoBERTa-large's shape: 1.4 GB on disk."""
    return save_model(tmp_path_factory.mktemp("large"), LARGE)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small causal model."""
    return save_causal(tmp_path_factory.mktemp("causal"))


def both(model: Path, plain: bool = False, kind: Any = "masked") -> tuple[LanguageModel, LanguageModel]:
    """The model on the CPU and on the GPU, with the same numeric profile."""
    spec = ModelSpec(str(model), "float32", kind, zero_head_bias=kind == "masked")
    cpu, gpu = (load_model(spec, P0, plain=plain, device=device) for device in ("cpu", "cuda"))
    return cpu, gpu


def queries() -> list[Any]:
    """No prompt, values that differ in the first layer or in the second, and coordinates."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 50, 64)).astype(np.float32)
    deep = values.copy()
    deep[:, 0] = deep[0, 0]
    return [
        None,
        Prompt(values),
        Prompt(deep),
        Subspace(20, (0.5,) * 3, 50, seed=1).at(rng.standard_normal((3, 3, 20))),
    ]


def asked(lm: LanguageModel, prompts: Any, features: Any = None) -> tuple[Any, Any]:
    """Log-probabilities of two label words, and features."""
    task = load_task("sst2").task("harness-2026", lm.kind)
    out = lm.forward(prompts, lm.text_set(task.template, tuple(TEXTS)), lm.single_ids(task.words), features, True)
    return out.logits, out.features


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_logits_and_features_agree_with_the_cpus(small: Path, causal: Path, kind: str, plain: bool) -> None:
    """In the fast path and in the plain one."""
    cpu, gpu = both({"masked": small, "causal": causal}[kind], plain, kind)
    for prompts in queries():
        for features in (None, "mask", "cls", "all"):
            for on_cpu, on_gpu in zip(asked(cpu, prompts, features), asked(gpu, prompts, features), strict=True):
                assert (on_cpu is None) == (on_gpu is None)
                if on_cpu is not None:
                    np.testing.assert_allclose(on_gpu, on_cpu, atol=AGREE)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_bfloat16_stays_near_float32(small: Path, causal: Path, kind: Any) -> None:
    """By the tensor cores, as the embedded tracks' format."""
    model = str({"masked": small, "causal": causal}[kind])
    exact, rounded = (load_model(ModelSpec(model, dtype, kind), P0, device="cuda") for dtype in FORMATS)
    for prompts in queries():
        wanted, got = asked(exact, prompts)[0], asked(rounded, prompts)[0]
        assert 0 < np.abs(got - wanted).mean() < 0.1 * wanted.std()


def test_onnx_runtimes_cuda_provider_agrees_with_the_cpus_torch(small: Path) -> None:
    """Skipped where onnxruntime has no such provider."""
    if "CUDAExecutionProvider" not in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider; pip install onnxruntime-gpu")
    spec = ModelSpec(str(small), "float32")
    torchs = load_model(spec, P0)
    onnx = load_model(spec, P0, device="cuda", numerics=Numerics(forward="onnxruntime"))
    for prompts in queries():
        np.testing.assert_allclose(asked(onnx, prompts)[0], asked(torchs, prompts)[0], atol=AGREE)


def test_projections_live_on_the_gpu_and_are_dropped_in_time(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those in main memory are."""
    from harness.blackbox import projection
    from harness.lm import prompts

    _, gpu = both(small)
    one = 4 * 20 * 50 * 64
    monkeypatch.setattr(projection, "LARGEST_BYTES", 3 * one)
    prompts._on_device.matrices.clear()
    for seed in range(5):
        asked(gpu, Subspace(20, (0.5,), 50, seed=seed).at(np.ones((1, 1, 20))))
        kept = prompts._on_device.matrices.values()
        assert sum(a.nbytes for a in kept) <= 3 * one
        assert all(a.device.type == "cuda" for a in kept)


def test_a_deterministic_profile_gives_the_same_bits(small: Path) -> None:
    """Twice the same query."""
    spec = ModelSpec(str(small), "float32")
    lm = load_model(spec, P0, device="cuda", numerics=Numerics(deterministic=True))
    try:
        prompts = Prompt(np.random.default_rng(1).normal(size=(4, 3, 50, 64)).astype(np.float32))
        assert asked(lm, prompts)[0].tobytes() == asked(lm, prompts)[0].tobytes()
    finally:
        device.apply(Numerics())


def test_the_fingerprint_sees_tf32(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What CPU and GPU, and TF32 and float32, differ by at the official shape: printed, for the tolerance."""
    task = load_task("sst2").task("harness-2026", "masked")
    cpu, gpu = both(large)
    on_cpu, on_gpu = (np.array(probe(lm, task)["logits"]) for lm in (cpu, gpu))
    device.apply(Numerics(tf32=True))
    rounded = np.array(probe(gpu, task)["logits"])
    device.apply(Numerics())
    with capsys.disabled():
        print(f"\n  CPU and GPU {np.abs(on_cpu - on_gpu).max():.2e}, TF32 {np.abs(rounded - on_gpu).max():.2e}")  # noqa: T201
    np.testing.assert_allclose(on_gpu, on_cpu, atol=AGREE)
    assert np.abs(rounded - on_gpu).max() > 0


def test_too_little_memory_is_told_with_the_next_step(small: Path) -> None:
    """In a process that may take 64 MiB more than it has."""
    lm = load_model(ModelSpec(str(small), "float32"), P0, device="cuda", numerics=Numerics(chunk_tokens=10**8))
    prompts = Prompt(np.ones((200, 3, 50, 64), dtype=np.float32))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties().total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    try:
        with pytest.raises(DeviceMemoryError, match=r"200 candidates x 17 texts .* Lower chunk_tokens"):
            asked(lm, prompts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("chunk_tokens", [4096, 65536])
@pytest.mark.parametrize("name", ["bbt", "ajo"])
def test_a_cell_at_the_official_shape(
    name: str, chunk_tokens: int, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty calls; time and memory are printed, for the choice of the track's chunks."""
    record = cell(name, large, tmp_path, "cuda", chunk_tokens)
    megabytes = torch.cuda.get_device_properties().total_memory / 2**20
    assert 1_300 < record.device_peak_mb < megabytes  # the weights alone are 1,355
    with capsys.disabled():
        print(  # noqa: T201
            f"\n  {name} on {device.name('cuda')}, {chunk_tokens:,} tokens at once: "
            f"{record.rows_spent} rows, {record.tokens:,} tokens, "
            f"{record.lm_s:.1f} s in the model of {record.tuning_s:.1f} s, test {record.test_s:.1f} s, "
            f"GPU {record.device_peak_mb:,.0f} MiB, referee {record.referee_peak_mb:,.0f} MiB"
        )


@pytest.mark.parametrize("name", ["prompt_tuning", "p_tuning_v2", "lora", "bitfit"])
def test_references_train_on_the_gpu(name: str, small: Path, tmp_path: Path) -> None:
    """With the weights where they are."""
    assert cell(name, small, tmp_path, "cuda").access == "white-box"


def cell(name: str, model: Path, folder: Path, kind: str, chunk_tokens: int = 4096) -> CellRecord:
    """The record of one cell of a submission that ships, run as `harness evaluate` does."""
    from rich.console import Console

    from harness.tracks.track import load_track

    store = Store(str(folder / "results.db"))
    track = load_track(str(save_track(folder, model, kind, chunk_tokens)))
    evaluation = Evaluation(track, Overrides(white_box=True), store)
    run = evaluation.run(find(ROOT / "submissions" / name), {}, JsonProgress(Console(file=sys.stderr)))
    (stored,) = store.runs()
    (found,) = store.cells(run)
    store.close()
    assert stored.key.device == device.name(evaluation.lm.device)
    assert found.status in {"ok", "budget_exhausted"}, found.record.detail
    return found.record
