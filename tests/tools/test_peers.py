"""Peers of the benchmark are asked the very query that is answered by the plain path."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from harness.contract import Prompt
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, Numerics, PromptSpec

if TYPE_CHECKING:
    from types import ModuleType

    from harness.lm.model import LanguageModel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SPEC, P0 = ModelSpec("embedded", "float32"), PromptSpec(8, 2000)
TEXTS = (("A warm and funny film.",), ("Why?",), ("Not one of its many jokes is new, and none of them is good.",))
WORDS = ("terrible", "great")
VALUES = np.random.default_rng(0).normal(size=(15, 1, 8, 384)).astype(np.float32)


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", BENCHMARKS / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model(SPEC, P0, plain=True, numerics=Numerics(threads=1))


def query(peers: ModuleType, lm: LanguageModel) -> tuple[object, tuple[int, ...], torch.Tensor, np.ndarray]:
    """Rows, words, prompts, and the plain path's logits of 15 candidates x 3 texts of unequal length."""
    encoded = lm.text_set("{a} It was {mask} .", TEXTS)
    rows = peers.Rows(lm._model, lm.batch(encoded.encoded, "add"))
    words = lm.single_ids(WORDS)
    return rows, words, torch.from_numpy(VALUES[:, 0]), lm.forward(Prompt(VALUES), encoded, words).logits


def test_the_graph_that_peers_convert_gives_the_plain_paths_logits(peers: ModuleType, lm: LanguageModel) -> None:
    rows, words, prompts, expected = query(peers, lm)
    graph = peers._Graph(lm._model, words).eval()

    def run(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return graph(*map(torch.from_numpy, inputs)).numpy()

    np.testing.assert_allclose(rows.logits(run, prompts), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("onnxruntime:float32", 1e-4), ("openvino:float32", 1e-4)])
def test_a_float32_peer_gives_the_plain_paths_logits(
    peers: ModuleType, lm: LanguageModel, name: str, most: float
) -> None:
    pytest.importorskip(name.split(":", maxsplit=1)[0])
    rows, words, prompts, expected = query(peers, lm)
    found = rows.logits(peers.load(name, rows, words, prompts, 1), prompts)
    np.testing.assert_allclose(found, expected, atol=most)


def test_a_peer_whose_package_is_absent_is_named(
    peers: ModuleType, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, words, prompts, _ = query(peers, lm)
    monkeypatch.setattr(peers, "find_spec", lambda package: None if package == "nncf" else object())
    with pytest.raises(peers.MissingError, match="nncf is not installed: pip install nncf"):
        peers.load("openvino:int8", rows, words, prompts, 1)


def test_agreement_counts_equal_argmaxes_and_takes_each_rows_mean_off(peers: ModuleType) -> None:
    expected = np.array([[[1.0, -1.0], [-1.0, 1.0]]])
    same = peers.agreement(expected + 7, expected)
    assert (same.same, same.rms) == (1, pytest.approx(0, abs=1e-12))
    half = peers.agreement(expected * np.array([1, -1])[:, None], expected)
    assert half.same == 0.5
    assert half.rms == pytest.approx(np.sqrt(2))


def test_an_unknown_peer_is_refused() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_lm.py"), "--peer", "tensorrt:int8"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "onnxruntime:int8" in refused.stderr
