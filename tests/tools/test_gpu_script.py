"""The script for a GPU, without one: its steps run on the CPU, and its ways of attention agree."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import harness

if TYPE_CHECKING:
    from types import ModuleType

    from harness.lm.model import LanguageModel

SCRIPT = Path(harness.__file__).resolve().parents[1] / "benchmarks" / "gpu.py"
SHAPE = (2, 8, 2)


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_attention_over_groups_and_over_padded_texts_is_that_of_each_text_alone(gpu: Any) -> None:
    lengths = [3, 17, 16, 1, 40]
    torch.manual_seed(0)
    q, k, v = (torch.randn((sum(lengths), 2, 8)) for _ in range(3))
    alone = [
        torch.nn.functional.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in parts))[0].transpose(0, 1)
        for parts in zip(*(t.split(lengths) for t in (q, k, v)), strict=True)
    ]
    for way in (gpu.by_groups, gpu.by_padding):
        torch.testing.assert_close(way(q, k, v, lengths), torch.cat(alone))


def test_varlen_is_called_as_the_installed_torch_has_it(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its documented meaning, since no kernel of it runs on a CPU: bounds of texts in one row of tokens."""
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no variable-length attention")
    seen: list[Any] = []

    def meant(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int) -> torch.Tensor:
        seen.append((cu_q.tolist(), cu_k.tolist(), max_q, max_k, cu_q.dtype))
        sizes = cu_q.diff().tolist()
        return torch.cat(
            [gpu.by_padding(a, b, c, [len(a)]) for a, b, c in zip(*(t.split(sizes) for t in (q, k, v)), strict=True)]
        )

    monkeypatch.setattr(varlen, "varlen_attn", meant)
    lengths = [5, 2, 9]
    q, k, v = (torch.randn((16, 2, 8)) for _ in range(3))
    torch.testing.assert_close(gpu.by_varlen(q, k, v, lengths), gpu.by_groups(q, k, v, lengths))
    assert seen == [([0, 5, 7, 16], [0, 5, 7, 16], 9, 9, torch.int32)]
    assert not gpu.has_varlen("cpu", torch.bfloat16)
    assert not gpu.has_varlen("cuda", torch.float32)


def test_queries_vary_every_layer_and_are_extrapolated(
    gpu: Any, tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    forward = tiny_lm.forward

    def watched(prompts: Any, *rest: Any) -> Any:
        asked.append(prompts.z)
        return forward(prompts, *rest)

    monkeypatch.setattr(tiny_lm, "forward", watched)
    texts = [("A warm film.",), ("It is cold.",)]
    found = gpu.queries(tiny_lm, 2, texts, deep=True, seconds=0.0)
    assert found["calls"] == gpu.POPULATION * tiny_lm.backbone.layers
    assert found["seconds_for_8000"] == pytest.approx(found["seconds"] / found["calls"] * 8000)
    varied = [{layer for layer in range(z.shape[1]) if (z[1:, layer] != z[0, layer]).any()} for z in asked]
    assert varied == [{0}, {0}, {1}]  # the first one is not counted


def test_the_steps_of_the_script_run_and_make_a_table(gpu: Any) -> None:
    attention = gpu.attention("cpu", SHAPE, [3, 17, 16])
    assert attention["groups"]["off"] < 0.1
    assert attention["padded"]["off"] < 0.1
    assert "not run" in attention["varlen"]
    graph = gpu.graph("cpu", SHAPE, texts=2, tokens=5)
    assert graph["steps_ms"] > 0
    found = {
        "tests": {"passed": False, "said": ["1 failed"], "took_s": 1.0},
        "bbt": {"calls": 40, "seconds": 2.0, "seconds_for_8000": 400.0},
        "bench_lm": {"skipped": "no end in 3 s"},
        "attention": attention,
        "graph": {"2 texts": graph, "took_s": 1.0},
    }
    table = "\n".join(gpu.rows(found, "roberta-large"))
    for part in (
        "FAILED: 1 failed",
        "40 calls in 2.0 s, so 8,000 in 400.0 s (target 45 s)",
        "no end in 3 s",
        "graph not run",
    ):
        assert part in table


def test_a_step_that_has_no_time_left_or_fails_is_said_so(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = gpu.arguments(["--device", "cpu", "--model", "mini", "--out", str(tmp_path / "gpu.json"), "--small"])
    assert gpu.started("graph", given, 0.01) == {"skipped": "no end in 0 s"}
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "none.py"))
    failed = gpu.started("graph", given, 60)
    assert "none.py" in " ".join(failed["failed"])
    with pytest.raises(SystemExit):
        gpu.arguments(["--without", "nothing"])


@pytest.mark.slow
def test_the_script_runs_as_a_whole_on_a_cpu(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "gpu.json"
    given = ["--device", "cpu", "--model", "mini", "--seconds", "1", "--without", "tests,bench_lm", "--small"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *given, "--out", str(out)])
    gpu.main()
    assert "| bbtv2 |" in capsys.readouterr().out
    assert set(json.loads(out.read_text(encoding="utf-8"))["steps"]) == {"bbt", "bbtv2", "attention", "graph"}
