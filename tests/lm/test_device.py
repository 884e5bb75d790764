"""The device of a run, the numeric profile of the process, and the backend's fingerprint."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from outer_models import write_submission

from harness.cli.console import err
from harness.contract import Examples, Prompt, Shots
from harness.errors import DeviceMemoryError, InputError
from harness.evaluation import referee
from harness.evaluation.overrides import Overrides
from harness.evaluation.progress import PlainProgress
from harness.evaluation.run import Evaluation
from harness.evaluation.training import train
from harness.evaluation.white_box import Predictor, Recipe, WhiteBox
from harness.lm import device, load, model
from harness.lm.backbones.encoder import EncoderBackbone
from harness.lm.fingerprint import TEXTS, fingerprint, probe
from harness.lm.load import load_model
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.numerics import Numerics
from harness.tracks.tasks import load_task
from harness.tracks.track import Track, load_track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.lm.backbones.base import Batch
    from harness.lm.model import LanguageModel

OFFICIAL, MINI = load_track("official"), load_track("mini")


@pytest.fixture
def process() -> Iterator[None]:
    """Restores torch's switches after the test."""
    threads = torch.get_num_threads()
    yield
    device.apply(Numerics())
    torch.set_num_threads(threads)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a machine with a GPU."""
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
    with pytest.raises(InputError, match=r"--device cuda needs a CUDA device, .*--device cpu.*then ranked"):
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
    """Its peak is None and not 0."""
    device.reset_peak("cpu")
    assert device.peak_mb("cpu") is None


# ── memory that does not suffice ─────────────────────────────────────────────────────────────────────────────

RAN_OUT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24.00 GiB. See documentation"


def runs_out(*_: object, **__: object) -> Any:
    raise torch.OutOfMemoryError(RAN_OUT)


@pytest.fixture
def full(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 24 GiB: 21 are held here, 2 by others, 1 is free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 24 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 21 << 30)


def forward(lm: LanguageModel, candidates: int) -> None:
    """Three texts under `candidates` prompts."""
    task = load_task("sst2").task("harness-2026", "masked")
    texts = lm.text_set(task.template, (("a film",), ("a film",), ("a story",)))
    lm.forward(Prompt(np.ones((candidates, 1, 2, lm.backbone.width), dtype=np.float32)), texts, (2000, 2001))


def test_a_chunk_too_large_for_the_device_is_told_with_its_size_and_the_next_step(
    full: None, tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the request, the memory and the remedy, but not torch's advice about its allocator."""
    monkeypatch.setattr(tiny_lm.backbone, "hidden", runs_out)
    with pytest.raises(DeviceMemoryError) as problem:
        forward(tiny_lm, 2)
    said = str(problem.value)
    for fact in (
        "NVIDIA H200 has too little memory for 2 candidates x 3 texts x ", "tokens at once (chunk_tokens = 4,096)",
        "of its 24,576 MiB, this process holds 21,504 MiB, other processes hold 2,048 MiB, and 1,024 MiB are free",
        "Tried to allocate 2.00 GiB.",
        "Lower chunk_tokens in [numerics] of a track file of your own, for example to 2,048",
    ):  # fmt: skip
        assert fact in said, said
    assert "documentation" not in said


def test_a_chunk_is_not_tried_again_in_smaller_parts(
    full: None, tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which rows share a chunk affects the numbers."""
    tried: list[int] = []

    def hidden(batch: Batch) -> Any:
        tried.append(batch.candidates)
        runs_out()

    monkeypatch.setattr(tiny_lm.backbone, "hidden", hidden)
    with pytest.raises(DeviceMemoryError):
        forward(tiny_lm, 4)
    assert tried == [4]


def test_all_else_that_takes_memory_says_what_it_was(
    full: None, tiny_lm: LanguageModel, tiny_track: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Projections, the widths of the layers' inputs, the weights, and what a reference trains."""
    task = load_task("sst2").task("harness-2026", "masked")
    shots = Examples((("a film",),) * 3, np.zeros(3, dtype=np.int64))
    with monkeypatch.context() as patch:
        patch.setattr(model, "prompt_layers", runs_out)
        with pytest.raises(DeviceMemoryError, match=r"the projections and prompts of 5 candidates.*fewer candidates"):
            forward(tiny_lm, 5)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_lm.backbone, "layer_std", runs_out)
        with pytest.raises(DeviceMemoryError, match=r"3 texts x .* tokens at once, on which the layers' widths"):
            tiny_lm.info(shots.texts, task.template)
    with monkeypatch.context() as patch:
        patch.setattr(load, "LanguageModel", runs_out)
        track = load_track(str(tiny_track))
        with pytest.raises(DeviceMemoryError, match=r"too little memory for .* in float32: .*--model"):
            load_model(track.model, track.prompt)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_lm, "weights", runs_out)
        with pytest.raises(DeviceMemoryError, match="a second copy of the weights"):
            WhiteBox(tiny_lm, task, shots.texts)
    white = WhiteBox(tiny_lm, task, shots.texts)
    monkeypatch.setattr(white, "logits", runs_out)
    with pytest.raises(DeviceMemoryError, match=r"3 texts x .* tokens at once, without gradients"):
        white.predicted(shots.texts)
    fit = white.fit([], Shots(shots, shots), np.random.default_rng(0), Recipe(0.1, 2, 1, 1))
    adam = SimpleNamespace(zero_grad=lambda: None, step=runs_out, param_groups=[{"params": [torch.zeros(1000, 2)]}])
    monkeypatch.setattr(torch.optim, "Adam", lambda *_, **__: adam)
    next(fit)
    with pytest.raises(DeviceMemoryError, match=r"a step on 2 texts x .* with gradients.*--config batch=N"):
        next(fit)
    monkeypatch.setattr(white, "_parts", lambda *_: [])
    with pytest.raises(DeviceMemoryError, match=r"Adam's two averages of 2,000 parameters.*bitfit"):
        white._step(adam, shots, np.arange(3), False)  # type: ignore[arg-type]


def test_a_reference_without_memory_has_that_status_and_the_message(full: None, tiny_lm: LanguageModel) -> None:
    """Even when it had a predictor before; another error of its code is still a crash."""
    task = load_task("sst2").task("harness-2026", "masked")
    shots = Examples((("a film",),) * 3, np.zeros(3, dtype=np.int64))

    def solver(problem: Callable[[], Any]) -> Any:
        def tune(*_: object) -> Iterator[Predictor]:
            yield Predictor(lambda texts: np.full((len(texts), 2), 0.5))
            with device.memory_for("a step", "Take fewer texts"):
                problem()

        return SimpleNamespace(tune=tune, config=None, folder=Path(__file__).parent)

    white = WhiteBox(tiny_lm, task, shots.texts)
    ran = train(solver(runs_out), white, task, Shots(shots, shots), 0, lambda *_: None)
    assert (ran.status, "too little memory for a step" in ran.detail) == ("out_of_memory", True)
    assert "Traceback" not in ran.detail
    ran = train(solver(lambda: 1 / 0), white, task, Shots(shots, shots), 0, lambda *_: None)
    assert (ran.status, "Traceback" in ran.detail) == ("crashed", True)


def test_an_evaluation_that_runs_out_of_device_memory_keeps_what_is_finished(
    full: None, tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells it happened in are told as what they are; `again` runs them once more."""
    store = Store(str(tmp_path / "results.db"))
    entry = find(write_submission(tmp_path, "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)"))
    evaluation = Evaluation(load_track(str(tiny_track)), Overrides(), store)
    every = evaluation.plan
    first = dataclasses.replace(every, cells=every.cells[:1])
    with PlainProgress(err) as progress:
        evaluation.plan = first
        run = evaluation.run(entry, {}, progress)
        evaluation.plan = every
        with monkeypatch.context() as patch:
            patch.setattr(evaluation.lm.backbone, "hidden", runs_out)
            patch.setattr(
                referee, "fingerprint", lambda *_: None
            )  # where it does not suffice for these texts, all ends
            evaluation.run(entry, {}, progress)
        assert len(store.finished(run)) == len(every.cells)
        failed = [cell for cell in store.cells(run) if cell.status == "out_of_memory"]
        assert len(failed) == len(store.failed(run)) == len(every.cells) - len(first.cells) > 0
        assert all("too little memory" in cell.record.detail for cell in failed)
        assert evaluation.run(entry, {}, progress, again=True) == run
    assert {cell.status for cell in store.cells(run)} == {"ok"}
    store.close()


@pytest.mark.parametrize("name", ["sst2", "qqp"])
def test_a_fingerprint_is_the_same_every_time(name: str, tiny_lm: LanguageModel) -> None:
    """2 prompts x texts x label words, the zero prompt's first."""
    task = load_task(name).task("harness-2026", "masked")
    first, second = probe(tiny_lm, task), probe(tiny_lm, task)
    assert first == second
    logits = np.array(first.logits).reshape(2, len(TEXTS), len(task.words))
    assert np.abs(logits[0] - logits[1]).max() > 0.01
    assert len({tuple(row) for row in logits[0].tolist()}) == len(TEXTS)


def test_a_fingerprint_is_taken_once_for_a_model_and_a_task(tiny_lm: LanguageModel) -> None:
    """The cells of a task share it; another wording is asked for anew."""
    task = load_task("sst2").task("harness-2026", "masked")
    first = fingerprint(tiny_lm, task)
    assert first == probe(tiny_lm, task)
    assert fingerprint(tiny_lm, dataclasses.replace(task)) is first
    assert fingerprint(tiny_lm, dataclasses.replace(task, words=task.words[::-1])) != first


def test_a_fingerprint_sees_another_number_format(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values differ. A difference below 0.01 usually does not change the digest."""
    task = load_task("sst2").task("harness-2026", "masked")
    before = probe(tiny_lm, task)
    rounded = copy.deepcopy(tiny_lm._model).bfloat16().float()
    monkeypatch.setattr(tiny_lm, "backbone", EncoderBackbone(rounded))
    after = probe(tiny_lm, task)
    assert 0 < np.abs(np.subtract(before.logits, after.logits)).max() < 1
    assert before.sha256 != after.sha256
