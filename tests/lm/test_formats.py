"""Which number format a machine takes, and that int8 products are exact on every processor."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract import Prompt
from harness.errors import ModelError
from harness.lm import formats
from harness.lm.backbones.linear import Int8Linear
from harness.lm.formats import Processor, check, fastest
from harness.lm.load import load_model
from harness.tracks.numerics import Numerics
from harness.tracks.track import DType, ModelSpec, PromptSpec, load_track

if TYPE_CHECKING:
    from pathlib import Path

ALL: tuple[DType, ...] = ("bfloat16", "int8", "float32")
HERE = formats.here()
needs_int8 = pytest.mark.skipif(not HERE.avx2, reason="int8 products need a processor with AVX2")

PROCESSORS = {
    "Xeon with AMX": (Processor("x86_64", avx2=True, vnni=True, amx_bf16=True), "bfloat16"),
    "AVX-512 with VNNI": (Processor("x86_64", avx2=True, vnni=True), "int8"),
    "AVX-512 with VNNI and bfloat16": (Processor("x86_64", avx2=True, vnni=True, avx512_bf16=True), "int8"),
    "AVX2 alone": (Processor("x86_64", avx2=True), "int8"),
    "Windows's name of x86": (Processor("AMD64", avx2=True), "int8"),
    "x86 before AVX2": (Processor("x86_64"), "float32"),
    "ARM server with bfloat16": (Processor("aarch64", arm_bf16=True), "bfloat16"),
    "ARM before bfloat16": (Processor("aarch64"), "float32"),
    "Apple silicon": (Processor("arm64"), "float32"),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_each_kind_of_processor_takes_the_format_that_it_has_units_for(name: str) -> None:
    processor, expected = PROCESSORS[name]
    assert fastest(ALL, processor, int8=True).format == expected


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("int8", [True, False])
def test_no_processor_takes_emulated_bfloat16_where_float32_is_equal_to_the_track(name: str, int8: bool) -> None:
    processor, _ = PROCESSORS[name]
    chosen = fastest(ALL, processor, int8=int8)
    if chosen.format == "bfloat16":
        assert processor.amx_bf16 or processor.avx512_bf16 or processor.arm_bf16
    if chosen.format == "int8":
        assert int8
    assert chosen.why


def test_products_of_bfloat16_are_taken_where_int8_is_not_offered() -> None:
    """By a causal model on AVX-512 BF16, where they were measured 1.6 times as fast as float32's."""
    units = Processor("x86_64", avx2=True, vnni=True, avx512_bf16=True)
    assert fastest(("float32", "bfloat16"), units, int8=False).format == "bfloat16"
    assert fastest(("float32", "bfloat16"), Processor("x86_64", avx2=True, vnni=True), int8=False).format == "float32"


def test_a_format_that_the_track_does_not_name_is_never_taken() -> None:
    for processor, _ in PROCESSORS.values():
        for only in get_args(DType):
            assert fastest((only,), processor, int8=True).format == only
        assert fastest(("bfloat16", "float32"), processor, int8=True).format != "int8"


def test_int8_is_refused_where_nothing_computes_it() -> None:
    with pytest.raises(ModelError, match="int8 is for families with a fast path"):
        check("int8", Processor("x86_64", avx2=True), int8=False)
    with pytest.raises(ModelError, match="AVX2"):
        check("int8", Processor("aarch64"), int8=True)
    check("int8", Processor("x86_64", avx2=True), int8=True)
    check("float32", Processor("aarch64"), int8=False)


LEVELS = ("SSE41", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_AMX", "ALL")
EVERYTHING = dict.fromkeys(("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"), True)


@pytest.mark.parametrize(
    ("level", "expected"),
    list(zip(LEVELS, ("float32", "int8", "int8", "int8", "int8", "int8", "bfloat16", "bfloat16"), strict=True)),
)
def test_what_onednn_may_not_use_does_not_count(monkeypatch: pytest.MonkeyPatch, level: str, expected: DType) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: EVERYTHING)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    processor = formats.here({"ONEDNN_MAX_CPU_ISA": level})
    assert fastest(ALL, processor, int8=True).format == expected
    assert processor.vnni == (level not in {"SSE41", "AVX2", "AVX512_CORE"})


WORKED = """
import numpy as np, sys, torch
from harness.lm.load import load_model
from harness.tracks.numerics import Numerics
from harness.tracks.track import load_track
track = load_track("mini")
lm = load_model(track.model, track.prompt, numerics=Numerics(threads=1))
texts = lm.text_set("{a} It was {mask} .", (("A warm and funny film.",), ("Why?",)))
print(lm.format, *lm.forward(None, texts, lm.single_ids(("terrible", "great"))).logits.ravel().tolist())
"""


@pytest.mark.parametrize(("onednn", "aten"), [("SSE41", "default"), ("AVX2", "avx2"), ("AVX512_CORE_VNNI", "avx2")])
def test_a_lesser_processor_takes_its_own_format_and_gives_the_same_logits(onednn: str, aten: str) -> None:
    """In a process of its own: oneDNN and torch read their limits once."""
    limits = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", WORKED], env=os.environ | limits, stdout=subprocess.PIPE, text=True, check=True
    )
    name, *logits = ran.stdout.split()
    expected = fastest(ALL, formats.here({"ONEDNN_MAX_CPU_ISA": onednn}), int8=True)
    assert name == expected.format
    track = load_track("mini")
    spec = ModelSpec(track.model.source, "float32")
    lm = load_model(spec, track.prompt, numerics=Numerics(threads=1))
    texts = lm.text_set("{a} It was {mask} .", (("A warm and funny film.",), ("Why?",)))
    reference = lm.forward(None, texts, lm.single_ids(("terrible", "great"))).logits.ravel()
    assert np.abs(np.array(list(map(float, logits))) - reference).max() < track.rounding


@needs_int8
@pytest.mark.parametrize("rows", [1, 3, 64, 257])
@pytest.mark.parametrize("ends", ["all", "one sign"])
def test_integer_sums_do_not_saturate(rows: int, ends: str) -> None:
    """Every pair of products at its largest: where pairs are summed in 16 bits, 8-bit weights would be wrong here."""
    torch.manual_seed(0)
    width = 512
    sign = torch.ones(1) if ends == "one sign" else torch.randint(0, 2, (rows, width)) * 2.0 - 1
    x = torch.ones(rows, width) * sign
    weight = torch.ones(96, width) * (1 if ends == "one sign" else torch.randint(0, 2, (96, width)) * 2.0 - 1)
    found = Int8Linear(weight, None)(x)
    assert torch.allclose(found, x @ weight.T, rtol=1e-6, atol=1e-3)  # ones and their scales are exact in float32


@needs_int8
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    into=st.sampled_from([8, 33, 128]),
    out=st.sampled_from([4, 31, 96]),
    seed=st.integers(0, 99),
)
def test_int8_products_are_those_of_the_rounded_factors(rows: int, into: int, out: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(*shape, generator=rng) for shape in ((rows, into), (out, into), (out,)))
    found = Int8Linear(weight, bias)(x)
    scale, row = weight.abs().amax(1) / 63, x.abs().amax(1, keepdim=True) / 127
    w = (weight / scale[:, None]).round().double() * scale[:, None].double()
    exact = (x / row).round().double() * row.double() @ w.T + bias.double()
    # A row's number at the border between two integers may go to either: one step of the row times the largest weight.
    assert float((found.double() - exact).abs().max()) < 1e-4 + float((row * weight.abs().max()).max())
    assert float((found.double() - exact).abs().median()) < 1e-5


@needs_int8
def test_an_int8_row_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(1)
    layer, x = Int8Linear(torch.randn(96, 128), torch.randn(96)), torch.randn(300, 128)
    together = layer(x)
    for first, last in ((0, 1), (7, 20), (255, 300)):
        assert torch.equal(layer(x[first:last]), together[first:last])


@needs_int8
def test_rows_and_weights_of_zeros_give_the_bias() -> None:
    bias = torch.randn(8)
    assert torch.equal(Int8Linear(torch.zeros(8, 16), bias)(torch.randn(3, 16)), bias.expand(3, 8))
    assert torch.equal(Int8Linear(torch.randn(8, 16), bias)(torch.zeros(3, 16)), bias.expand(3, 8))


def test_the_list_of_formats_is_no_part_of_a_tracks_fingerprint() -> None:
    assert (load_track("mini").fingerprint, load_track("kit").fingerprint) == MEASURED


MEASURED = ("8088f363d2dc772a", "b8849aca530e113a")
"""Of the runs in docs/results-mini.md and docs/results-kit.md, measured before there was such a list."""


def test_a_model_without_int8_products_takes_another_format() -> None:
    spec = ModelSpec("embedded", "bfloat16", formats=ALL)
    plain = load_model(spec, PromptSpec(8, 2000), numerics=Numerics(forward="plain", threads=1))
    assert plain.format == fastest(ALL, HERE, int8=False).format
    with pytest.raises(ModelError, match="int8 is for"):
        load_model(ModelSpec("embedded", "int8"), PromptSpec(8, 2000), numerics=Numerics(forward="plain", threads=1))


@needs_int8
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_causal_models_in_int8_stay_near_float32(family: str, tmp_path: Path) -> None:
    folder, prompt = tiny_models.save(family, tmp_path), PromptSpec(4, 20)
    texts = tuple((" ".join(tiny_models.WORDS[: n % 6 + 1] * (n % 4 + 1)),) for n in range(12))
    values = np.random.default_rng(0).normal(size=(3, tiny_models.LAYERS, 4, tiny_models.WIDTH)).astype(np.float32)
    logits = {}
    for dtype in ("float32", "int8"):
        lm = load_model(ModelSpec(str(folder), dtype, "causal"), prompt, numerics=Numerics(threads=1))  # type: ignore[arg-type]
        encoded = lm.text_set("{a} . It was {mask}", texts)
        logits[dtype] = lm.forward(Prompt(values), encoded, lm.single_ids((" bad", " great", " film"))).logits
    off = np.abs(logits["int8"] - logits["float32"]).mean()
    assert 0 < off < 0.1 * logits["float32"].std()
    listed = load_model(ModelSpec(str(folder), "bfloat16", "causal", formats=ALL), prompt, numerics=Numerics(threads=1))
    assert listed.format == fastest(ALL, HERE, int8=False).format  # it is taken only where `dtype` asks for it
