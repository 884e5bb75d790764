"""ONNX Runtime's forward against transformers' own, and how it is chosen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAST, LAYERS, WIDTH

pytest.importorskip("onnxruntime", reason='needs pip install -e ".[onnx]"')
pytest.importorskip("onnx", reason='needs pip install -e ".[onnx]"')

from harness.contract import Prompt, Prompts, Subspace, Text
from harness.errors import ModelError
from harness.lm.backbones.onnx import OnnxBackbone
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, Numerics, PromptSpec

if TYPE_CHECKING:
    from pathlib import Path

    from harness.contract import FeatureKind
    from harness.lm.model import LanguageModel

P0 = PromptSpec(tokens=4, first_id=20)
ONNX = Numerics(forward="onnxruntime")
TEMPLATE, WORDS = "{a} . It was {mask} .", (" bad", " great", " film")
TEXTS: tuple[Text, ...] = tuple((" ".join((tiny_models.WORDS * 2)[: n % 11 + 1]),) for n in range(20))
CLOSE = 1e-4


def values(candidates: int, layers: int, tokens: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(candidates, layers, tokens, WIDTH)).astype(np.float32)


def agreeing(below: int) -> np.ndarray:
    """Deep prompts of three candidates that agree on the layers under `below`."""
    made = values(3, LAYERS)
    made[1:, :below] = made[0, :below]
    return made


CASES: dict[str, Prompts | None] = {
    "none": None,
    "add": Prompt(values(3, 1)),
    "add two tokens to two layers": Prompt(values(2, 2, 2)),
    "deep": Prompt(values(3, LAYERS)),
    "deep, agreeing below the second layer": Prompt(agreeing(1)),
    "deep, agreeing below the last layer": Prompt(agreeing(LAYERS - 1)),
    "prepend": Prompt(values(2, 1), "prepend"),
    "prepend deep": Prompt(values(2, LAYERS), "prepend"),
    "coordinates": Subspace(3, (1.0,) * LAYERS, 4, seed=1).at(np.random.default_rng(1).normal(size=(2, LAYERS, 3))),
}


@pytest.fixture(scope="module", params=FAST)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, ...]:
    """The same weights by ONNX Runtime and by transformers."""
    spec = ModelSpec(str(tiny_models.save(request.param, tmp_path_factory.mktemp(request.param))), "float32")
    found, plain = load_model(spec, P0, numerics=ONNX), load_model(spec, P0, plain=True)
    assert isinstance(found.backbone, OnnxBackbone)
    return found, plain


@pytest.mark.parametrize("features", [None, "mask", "cls", "all"])
@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_transformers_does(
    pair: tuple[LanguageModel, ...], name: str, features: FeatureKind | None
) -> None:
    ours, plain = (lm.forward(CASES[name], lm.text_set(TEMPLATE, TEXTS), lm.single_ids(WORDS), features) for lm in pair)
    np.testing.assert_allclose(ours.logits, plain.logits, atol=CLOSE)
    if features is not None:
        np.testing.assert_allclose(ours.features, plain.features, atol=CLOSE)


def test_log_probabilities_and_a_p0_are_those_of_the_plain_path(pair: tuple[LanguageModel, ...]) -> None:
    p0 = values(1, 1, seed=5)[0, 0]
    ours, plain = (
        lm.with_p0(p0).forward(CASES["add"], lm.text_set(TEMPLATE, TEXTS), lm.single_ids(WORDS), normalize=True).logits
        for lm in pair
    )
    np.testing.assert_allclose(ours, plain, atol=CLOSE)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    candidates=st.integers(1, 4),
    apart=st.integers(0, LAYERS - 1),
    chunk=st.integers(8, 200),
)
def test_lengths_candidates_and_chunks_change_nothing(
    pair: tuple[LanguageModel, ...], lengths: list[int], candidates: int, apart: int, chunk: int
) -> None:
    texts = tuple((" ".join((tiny_models.WORDS * 3)[:n]),) for n in lengths)
    made = np.repeat(values(1, LAYERS), candidates, axis=0)
    made[:, apart] = values(candidates, 1, seed=2)[:, 0]
    ours, plain = pair
    kept, ours.chunk_tokens = ours.chunk_tokens, chunk
    try:
        found, expected = (
            lm.forward(Prompt(made), lm.text_set(TEMPLATE, texts), lm.single_ids(WORDS)).logits for lm in (ours, plain)
        )
    finally:
        ours.chunk_tokens = kept
    np.testing.assert_allclose(found, expected, atol=CLOSE)


def test_other_families_and_formats_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for family, kind in (("gpt2", "causal"), ("albert", "masked")):
        spec = ModelSpec(str(tiny_models.save(family, tmp_path / family)), "float32", kind)  # type: ignore[arg-type]
        with pytest.raises(
            ModelError, match=r"backend onnxruntime supports bert, camembert, distilbert, .*, xlm-roberta; use --back"
        ):
            load_model(spec, P0, numerics=ONNX)
    spec = ModelSpec(str(tiny_models.save("bert", tmp_path / "bert")), "bfloat16")
    with pytest.raises(ModelError, match=r"bfloat16: backend onnxruntime computes in float32"):
        load_model(spec, P0, numerics=ONNX)


def test_a_provider_that_is_not_there_is_named(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    folder = tiny_models.save("bert", tmp_path / "bert")
    model = tiny_models.auto("bert").from_pretrained(folder)
    with pytest.raises(ModelError, match=r"has no CUDAExecutionProvider here, only .*onnxruntime-gpu"):
        OnnxBackbone(model, device="cuda")


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(str(tiny_models.save("bert", tmp_path / "bert")), "float32")
    monkeypatch.delitem(sys.modules, "harness.lm.backbones.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"onnxruntime.*\.\[onnx\]"):
        load_model(spec, P0, numerics=ONNX)


def test_it_takes_as_many_threads_as_torch(tmp_path: Path) -> None:
    """A track pins them in one place."""
    before = torch.get_num_threads()
    spec = ModelSpec(str(tiny_models.save("bert", tmp_path / "bert")), "float32")
    try:
        lm = load_model(spec, P0, numerics=Numerics(forward="onnxruntime", threads=1))
        session = lm.backbone._session  # type: ignore[attr-defined]
        assert session.get_session_options().intra_op_num_threads == 1
    finally:
        torch.set_num_threads(before)
